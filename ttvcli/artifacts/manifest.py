"""The manifest: one clip a line of JSON, in a file that only ever grows.

Fields that ttv knows: `id`, `path` (relative to the manifest), `sha256`, `width`, `height`, `fps`,
`frames`, `duration`, `keep`, `reasons`, `metrics`, `segments` (each `start`, `end`, `caption`,
`language`, `caption_source`, `scene_start`, `scene_end`). All others are kept as they are. The
header of the run that wrote it is in `ttv.json` beside it.
"""

import json
import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from ttvcli.artifacts.atomic import append_line, json_text, replacing
from ttvcli.errors import ArtifactError

MANIFEST_NAME = "manifest.jsonl"
_SHOWN = 40  # characters of a value in a complaint

Record = dict[str, Any]


def manifest_path(path: str | Path) -> Path:
    """Return the manifest itself, given it or the folder that holds it."""
    path = Path(path)
    return path / MANIFEST_NAME if path.is_dir() else path


def read_manifest(path: str | Path) -> list[Record]:
    """Read all records of a manifest, of the folder that holds it, or of standard input ("-").

    A last line that is neither JSON nor ended by a newline was being written when the writer died:
    it is ignored. Any other line that is not an object raises ArtifactError with its number.
    """
    if str(path) == "-":
        return _parse(sys.stdin.read(), where="standard input")
    file = manifest_path(path)
    try:
        text = file.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        raise ArtifactError(
            "there is no such manifest",
            where=str(file),
            fix="give a manifest.jsonl or the folder that holds one",
        ) from None
    except OSError as error:
        raise ArtifactError(f"the manifest cannot be read: {error}", where=str(file)) from error
    return _parse(text, where=str(file))


def iterate_manifest(path: str | Path) -> Iterator[Record]:
    """Yield the records of a manifest that is whole, one at a time."""
    with manifest_path(path).open(encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        for line in file:
            if line.strip():
                yield json.loads(line)


def write_manifest(path: str | Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write a whole manifest at once, atomically."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        for record in records:  # there may be millions
            file.write(to_line(record) + "\n")


def to_line(record: Mapping[str, Any]) -> str:
    """Return a record as one line of JSON, keys in the order of the record."""
    return json_text(dict(record))


class ManifestWriter:
    """Appends records, each flushed to the disk before `append` returns; "-" is standard output.

    Opening repairs the file: a torn last line is cut off, a missing last newline is added. `done`
    holds the ids already there, so a step that goes through its items in order continues where it
    stopped.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = None if str(path) == "-" else Path(path)
        self.done: set[str] = set()
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            _repair_last_line(self.path)
            self.done = {str(record.get("id")) for record in read_manifest(self.path)}
        else:
            self.path.touch()

    def append(self, record: Mapping[str, Any]) -> None:
        """Add one record."""
        line = to_line(record)
        if self.path is None:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
        else:
            append_line(self.path, line)
        self.done.add(str(record.get("id")))

    def __enter__(self) -> "ManifestWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing is held open between records."""


def _parse(text: str, *, where: str) -> list[Record]:
    lines = text.removeprefix("\ufeff").split("\n")  # some editors put this mark there
    records = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            if number == len(lines):
                break
            raise ArtifactError(
                f"line {number} is not JSON: {error}",
                where=where,
                fix="correct the line, or run the step that writes the manifest again",
            ) from error
        if not isinstance(record, dict):
            raise ArtifactError(
                f"line {number} is {type(record).__name__}, expected an object", where=where
            )
        complaint = segments_complaint(record)
        if complaint:
            raise ArtifactError(
                f"line {number}: {complaint}",
                where=where,
                fix="segments is a list of objects with start and end in seconds, and a caption",
            )
        records.append(record)
    return records


def segments_complaint(record: Mapping[str, Any]) -> str:
    """Say what is wrong with the captioned spans of a record written by hand; "" if nothing is."""
    if isinstance(record.get("caption"), list | dict):
        return f"caption is {_shown(record['caption'])}, expected a text"
    segments = record.get("segments")
    if segments is None:
        return ""
    if not isinstance(segments, list):
        return f"segments is {_shown(segments)}, expected a list"
    for number, segment in enumerate(segments):
        if not isinstance(segment, dict):
            return f"segment {number} is {_shown(segment)}, expected an object"
        for key in ("start", "end"):
            if segment.get(key) is not None and not _is_seconds(segment[key]):
                return f"{key} of segment {number} is {_shown(segment[key])}, expected seconds"
        if isinstance(segment.get("caption"), list | dict):
            return f"caption of segment {number} is {_shown(segment['caption'])}, expected a text"
    return ""


def _is_seconds(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def _repair_last_line(path: Path) -> None:
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole == len(data):
        return
    try:
        last = json.loads(data[whole:])
    except ValueError:
        last = None
    if isinstance(last, dict):  # a file written by hand
        append_line(path, "")
    else:
        os.truncate(path, whole)
