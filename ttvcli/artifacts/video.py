"""A generated video: the `.mp4`, and beside it a `.json` that suffices to make it again."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ttvcli.artifacts.atomic import replacing, write_json
from ttvcli.artifacts.schema import check_header, header
from ttvcli.errors import ArtifactError

KIND = "video"


def sidecar_path(video: str | Path) -> Path:
    """Return where the facts about a video are: `out.mp4` has `out.json`."""
    return Path(video).with_suffix(".json")


@contextmanager
def new_video(
    path: str | Path, settings: Any, made_from: Mapping[str, Any] | None = None
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Give a temporary path to encode to, and a dict for facts known only afterwards.

    On success the video gets its name and then its sidecar, header and facts together; a video
    without a sidecar is thus one whose writer died in between. On failure neither exists.

    Args:
        path: the final name, ending in `.mp4`.
        settings: everything that the frames depend on.
        made_from: hashes of the model and other inputs.

    Raises:
        ArtifactError: the name does not end in `.mp4`.
    """
    path = Path(path)
    if path.suffix.lower() != ".mp4":
        raise ArtifactError(
            f"a video is written as .mp4, not {path.suffix or 'without a suffix'!r}",
            where=str(path),
            fix=f"name it {path.with_suffix('.mp4').name}",
        )
    facts: dict[str, Any] = {}
    sidecar = sidecar_path(path)
    with replacing(path) as temporary:
        yield temporary, facts
        sidecar.unlink(missing_ok=True)  # never a new video beside the facts of an old one
    write_json(sidecar, {**header(KIND, settings, made_from), **facts})


def read_again(path: str | Path) -> dict[str, Any]:
    """Return the settings files' table of a sidecar: the settings that make its video once more.

    Raises:
        ArtifactError: the file is not the sidecar of a video.
    """
    found = read_sidecar(path)
    tables = found.get("again")
    if not isinstance(tables, dict):
        raise ArtifactError("the sidecar has no settings to use again", where=str(path))
    if "storyboard" in found:  # the sidecar can be read as one
        tables["sample"]["storyboard"] = str(path)
    return tables


def read_sidecar(video: str | Path) -> dict[str, Any]:
    """Return what is known about a video, by its path or that of its sidecar.

    Raises:
        ArtifactError: the sidecar is missing or damaged.
    """
    path = sidecar_path(video)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(
            "the video has no sidecar",
            where=str(path),
            fix="keep the .json that `ttv sample` writes beside the video",
        ) from None
    except (ValueError, OSError) as error:
        raise ArtifactError(f"the sidecar cannot be read: {error}", where=str(path)) from error
    if not isinstance(found, dict):
        raise ArtifactError("the sidecar is not a JSON object", where=str(path))
    check_header(found, kind=KIND, where=path)
    return found
