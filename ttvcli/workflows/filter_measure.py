"""Measure one source and write its state: what the worker processes of `prep filter` do."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ttvcli import catalog
from ttvcli.artifacts.atomic import sha256_file
from ttvcli.core.filters.decode_pass import Measured, measure
from ttvcli.core.filters.filter import Filter
from ttvcli.core.video.decode import check_file
from ttvcli.core.video.errors import UnreadableVideo
from ttvcli.workflows.filter_state import State, stamp, write_state
from ttvcli.workflows.process_pool import Beats
from ttvcli.workflows.video_sources import Source


@dataclass(frozen=True)
class Task:
    """A source to be measured; names of filters instead of filters, so that it fits in a pipe."""

    source: Source
    key: str
    out: Path
    filters: tuple[str, ...]
    thumbnails: bool
    models: tuple[Path, ...] = ()  # for filters that take them


def measure_source(task: Task, beat: Callable[[Any], None]) -> dict[str, Any]:
    """Measure a source and write its state; `beat` gets the number of frames now and then.

    Returns:
        `frames` decoded, and `failed` (reason and detail) or None.
    """
    filters: list[Filter] = [
        catalog.get("filter", name).equipped(task.models) for name in task.filters
    ]
    counter = Beats(beat)
    before = stamp(task.source.path)
    state: State = {"name": task.source.name, "stamp": before}
    pictures: list[Any] = []
    try:
        check_file(task.source.path)
        found = measure(task.source.path, filters, thumbnails=task.thumbnails, beat=counter)
        # After decoding: what is no video is not read to its end.
        state["sha256"] = sha256_file(task.source.path, counter.alive)
        if stamp(task.source.path) != before:
            raise UnreadableVideo("changed")
        state |= _facts(found) | {"filters": {item.name: item.version for item in filters}}
        pictures = found.thumbnails
    except UnreadableVideo as error:
        state["failed"] = {"reason": error.reason_code, "detail": error.detail}
    except OSError as error:  # a broken disk, a network folder that went away, or the decoder's
        state["failed"] = {"reason": "permission", "detail": error.strerror or "read error"}
    except Exception as error:  # whatever one file does, the others are measured
        state["failed"] = {"reason": "crashed", "detail": f"{type(error).__name__}: {error}"}
    write_state(task.out, task.key, state, pictures)
    return {"frames": counter.frames, "failed": state.get("failed")}


def write_failure(task: Task, reason: str, detail: str) -> None:
    """Write the state of a source that a worker died of."""
    failed = {"reason": reason, "detail": detail}
    state = {"name": task.source.name, "stamp": stamp(task.source.path), "failed": failed}
    write_state(task.out, task.key, state)


def _facts(found: Measured) -> State:
    clip, info = found.clip, found.clip.info
    return {
        "info": {
            "width": info.width,
            "height": info.height,
            "fps": round(float(clip.frames / clip.duration), 6) if clip.duration else None,
            "frames": clip.frames,
            "duration": round(float(clip.duration), 6),
            "container": info.container,
            "codec": info.codec,
            "pixel_format": info.pixel_format,
            "rotation": info.rotation,
            "notes": list(info.notes),
        },
        "metrics": found.metrics,
        "records": found.records,
    }
