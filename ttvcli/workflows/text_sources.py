"""Find the texts that `embed-text` works on: a manifest, a list of prompts, or "-"."""

import hashlib
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ttvcli.artifacts.manifest import MANIFEST_NAME, read_manifest, segments_complaint
from ttvcli.artifacts.storyboard import Segment, Storyboard
from ttvcli.errors import ArtifactError
from ttvcli.workflows.video_sources import clean

# Fields of the latents' record that describe the latents file.
_OF_THE_FILE = {"path", "sha256"}


@dataclass(frozen=True)
class Texts:
    """The texts of one clip: one a segment, with marks where a new scene begins."""

    id: str
    prompts: list[str]
    record: dict[str, Any] = field(default_factory=dict)


def find_texts(source: str | Path) -> list[Texts]:
    """List the clips of a source in its order.

    Raises:
        ArtifactError: nothing there, a clip without an id, or two with the same.
    """
    if str(source) == "-":
        text = sys.stdin.read()
        if text.lstrip().startswith("{"):
            records = [_object(line) for line in text.splitlines() if line.strip()]
            return _from_records(records, "standard input")
        return _from_lines(text, "standard input")
    path = Path(source)
    if path.suffix.lower() == ".txt":
        try:
            return _from_lines(path.read_text("utf-8-sig", errors="replace"), str(path))
        except OSError as error:
            raise ArtifactError(f"cannot be read: {error.strerror}", where=str(path)) from error
    if path.is_dir() and not (path / MANIFEST_NAME).is_file():
        raise ArtifactError(
            f"the folder has no {MANIFEST_NAME}",
            where=str(path),
            fix="give the folder that `ttv prep encode` wrote",
        )
    return _from_records(read_manifest(path), str(path))


def prompts_of(record: dict[str, Any]) -> list[str]:
    """Return the texts of a record as the model gets them, scene marks included."""
    segments = record.get("segments") or [{"caption": record.get("caption", "")}]
    return Storyboard(
        tuple(
            Segment(
                text=" ".join(clean(str(segment.get("caption") or "")).split()),
                scene_start=number > 0 and bool(segment.get("scene_start")),
            )
            for number, segment in enumerate(segments)
        )
    ).prompts


def _from_records(records: list[dict[str, Any]], where: str) -> list[Texts]:
    found: dict[str, Texts] = {}
    for number, record in enumerate(records, start=1):
        if record.get("keep") is False:
            continue
        name = record.get("id")
        if not isinstance(name, str) or not name or "/" in name or name in (".", "..", "empty"):
            raise ArtifactError(f"record {number} has no usable id: {name!r}", where=where)
        if name in found:
            raise ArtifactError(f"record {number} repeats the id {name!r}", where=where)
        kept = {key: value for key, value in record.items() if key not in _OF_THE_FILE}
        found[name] = Texts(name, prompts_of(record), clean(kept))
    if not found:
        raise ArtifactError(
            "there is no clip in it", where=where, fix="make some with `ttv prep encode`"
        )
    return list(found.values())


def _from_lines(text: str, where: str) -> list[Texts]:
    lines = dict.fromkeys(" ".join(clean(line).split()) for line in text.splitlines())
    found = []
    for line in lines:
        if line:
            name = hashlib.sha256(line.encode()).hexdigest()[:16]
            found.append(Texts(name, [line], {"segments": [{"caption": line}]}))
    if not found:
        raise ArtifactError("there is no prompt in it", where=where, fix="write one a line")
    return found


def _object(line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise ArtifactError(f"not a manifest: {error}", where="standard input") from error
    if not isinstance(value, dict):
        raise ArtifactError("not a manifest: a line is no object", where="standard input")
    complaint = segments_complaint(value)
    if complaint:
        raise ArtifactError(complaint, where=f"standard input, clip {value.get('id')!r}")
    return value
