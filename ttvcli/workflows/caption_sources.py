"""The clips of a `prep caption` run with the captions they came with, wherever those stand.

A caption is looked for in this order: the clip's line of the manifest, `<name>.txt` beside it, a
`metadata.jsonl` or `.csv` in its folder or a folder above, `prompts.txt` with `videos.txt`.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ttvcli.artifacts.captions import (
    TABLE_NAMES,
    VIDEOS,
    CaptionRow,
    in_a_table,
    read_caption_table,
    read_prompt_lists,
)
from ttvcli.artifacts.manifest import MANIFEST_NAME, Record, read_manifest
from ttvcli.errors import ArtifactError, UsageError
from ttvcli.workflows.video_sources import (
    MANIFEST_SUFFIXES,
    clean,
    find_sources,
    path_from,
    printable,
    read_caption,
)

SEGMENT_SECONDS = 3.0
_SAME_START = 0.02  # seconds

Span = dict[str, Any]


@dataclass
class CaptionedClip:
    """One video with its captioned spans; `spans` is what will stand in the manifest."""

    record: Record  # its line of the manifest, as it was found
    path: Path
    name: str  # for messages
    spans: list[Span] = field(default_factory=list)
    whole: bool = False  # the spans are ours, not those of the manifest
    uncut: bool = False  # its length could not be told: the next run is to cut it
    waiting: list[tuple[CaptionRow, str]] = field(default_factory=list)  # until it is cut
    astray: int = 0  # rows of tables for segments that it does not have

    def span_at(self, row: CaptionRow) -> list[int]:
        """Return the numbers of the spans that a row of a table means."""
        if row.segment is not None:
            return [row.segment] if 0 <= row.segment < len(self.spans) else []
        if row.start is None:
            return list(range(len(self.spans)))
        starts = enumerate(float(span.get("start") or 0.0) for span in self.spans)
        return [number for number, start in starts if abs(start - row.start) < _SAME_START]


@dataclass(frozen=True)
class Library:
    """All lines of the manifest, the clips that take part, and where the result goes."""

    records: list[Record]
    clips: dict[int, CaptionedClip]  # by number of the line
    root: Path  # what paths in the records are relative to
    manifest: Path  # to write
    found: dict[str, int]  # how many captions came from where
    astray: list[tuple[Path, list[str]]]  # tables, and the files in them that are no clips

    @property
    def in_place(self) -> bool:
        """Whether the manifest goes where the clips are."""
        return self.manifest.parent.resolve() == self.root.resolve()

    def finished(self) -> list[Record]:
        """Return the lines of the new manifest."""
        lines = []
        folder, in_place = self.manifest.parent, self.in_place
        for number, record in enumerate(self.records):
            clip = self.clips.get(number)
            line = dict(record)
            if not in_place and not Path(record["path"]).is_absolute():
                line["path"] = path_from(folder, self.root / record["path"])
            if clip is not None and not clip.uncut:
                line["segments"] = clip.spans
            lines.append(line)
        return lines


def load_library(source: str, out: Path | None, limit: int) -> Library:
    """Find the clips and their captions; opens no video.

    Raises:
        ArtifactError: nothing there, a record without a path, or a table that cannot be read.
        UsageError: it is not said where the result goes.
    """
    records, root, present = _records(source)
    if out is None and present is None:
        raise UsageError("where does the manifest go?", where=source, fix="add --out FOLDER")
    manifest = out / MANIFEST_NAME if out is not None else present
    assert manifest is not None
    tables = _Tables(root)
    clips: dict[int, CaptionedClip] = {}
    found: dict[str, int] = {}
    for number, record in enumerate(records):
        if not isinstance(record.get("path"), str) or not record["path"]:
            raise ArtifactError(f"record {number + 1} has no path", where=source)
        if record.get("keep") is False or (limit and len(clips) >= limit):
            continue
        path = root / record["path"]
        clip = CaptionedClip(record, path, printable(Path(record["path"]).as_posix()))
        _fill(clip, tables)
        for span in clip.spans:
            if span.get("caption"):
                origin = str(span["caption_source"])
                found[origin] = found.get(origin, 0) + 1
        for _, origin in clip.waiting:
            found[origin] = found.get(origin, 0) + 1
        clips[number] = clip
    return Library(records, clips, root, manifest, found, tables.astray(records))


def stated_duration(clip: CaptionedClip) -> float | None:
    """Return the seconds that a clip lasts as its record has it; None if it does not."""
    duration = clip.record.get("duration")
    if isinstance(duration, int | float) and 0 < duration < 1e6:
        return float(duration)
    return None


def cut_into_segments(clip: CaptionedClip, duration: float) -> None:
    """Give a clip without segments of its own one span for each 3 s.

    Each keeps the text that stood for the whole.
    """
    count = max(round(duration / SEGMENT_SECONDS), 1)
    ends = [SEGMENT_SECONDS * (number + 1) for number in range(count - 1)]
    ends.append(round(duration, 6))
    before = clip.spans[0] if clip.spans else {}
    rest = {key: value for key, value in before.items() if key not in ("start", "end")}
    clip.spans = [
        {"start": SEGMENT_SECONDS * number, "end": end, "caption": "", **rest}
        for number, end in enumerate(ends)
    ]


def _records(source: str) -> tuple[list[Record], Path, Path | None]:
    """Return the records, the folder of their paths, and the manifest that may be written."""
    path = Path(source)
    if source == "-":
        return read_manifest("-"), Path(), None
    if path.is_dir() and not (path / MANIFEST_NAME).is_file():
        videos = find_sources(path).videos
        records = [{"path": video.path.relative_to(path).as_posix()} for video in videos]
        return records, path, path / MANIFEST_NAME
    if path.is_dir() or path.suffix.lower() in MANIFEST_SUFFIXES:
        manifest = path / MANIFEST_NAME if path.is_dir() else path
        records = read_manifest(manifest)
        if not records:
            raise ArtifactError("the manifest is empty", where=str(manifest))
        return records, manifest.parent, manifest
    find_sources(path)  # tells what is wrong with it
    return [{"path": path.name}], path.parent, None


def _fill(clip: CaptionedClip, tables: "_Tables") -> None:
    """Set the spans of a clip, with the captions that are somewhere."""
    record = clip.record
    if record.get("segments"):
        clip.spans = [clean(span) for span in record["segments"]]
    else:
        clip.whole = True
        text = record.get("caption") or ""
        clip.spans = [{"start": 0.0, "end": record.get("duration"), "caption": clean(str(text))}]
        if record.get("language"):
            clip.spans[0]["language"] = clean(record["language"])
    for span in clip.spans:
        span["caption"] = " ".join(str(span.get("caption") or "").split())
        if span["caption"] and not span.get("caption_source"):
            span["caption_source"] = "manifest"
    if all(span["caption"] for span in clip.spans):
        return
    sidecar = read_caption(clip.path.with_suffix(".txt"))
    if sidecar is not None:
        _put(clip, CaptionRow("", clean(sidecar)), "sidecar")
    rows = tables.of(clip)
    clip.waiting = [
        (row, origin)
        for row, origin in rows
        if clip.whole and row.caption and (row.segment is not None or row.start is not None)
    ]
    for row, origin in rows:
        if (row, origin) not in clip.waiting:
            _put(clip, row, origin)


def put_waiting(clip: CaptionedClip) -> None:
    """Give the segments of a clip that was cut the captions that tables have for them."""
    for row, origin in clip.waiting:
        _put(clip, row, origin)


def _put(clip: CaptionedClip, row: CaptionRow, origin: str) -> None:
    places = clip.span_at(row)
    clip.astray += not places
    for number in places:
        span = clip.spans[number]
        if row.caption and not span["caption"]:
            span["caption"], span["caption_source"] = row.caption, origin
            span.pop("caption_problem", None)
            if row.language:
                span["language"] = row.language


class _Tables:
    """The tables of captions in the folders of a library, each read once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._known: dict[Path, dict[str, list[tuple[CaptionRow, str]]]] = {}
        self._files: dict[Path, list[str]] = {}  # of each table

    def of(self, clip: CaptionedClip) -> list[tuple[CaptionRow, str]]:
        """Return the rows for a clip with where they are from, the nearest table first."""
        found: list[tuple[CaptionRow, str]] = []
        folder = clip.path.parent
        while True:
            table = self._read(folder)
            found += table.get(in_a_table(os.path.relpath(clip.path, folder)), [])
            found += table.get(str(clip.record.get("id") or "\0"), [])
            if folder in (self.root, folder.parent) or not folder.is_relative_to(self.root):
                return found
            folder = folder.parent

    def astray(self, records: list[Record]) -> list[tuple[Path, list[str]]]:
        """Return the tables that were read and have rows for no video of the manifest."""
        paths = (os.path.normpath(self.root / record["path"]) for record in records)
        known = set(map(in_a_table, paths))
        ids = {str(record["id"]) for record in records if record.get("id")}
        found = []
        for table, files in self._files.items():
            places = ((file, in_a_table(os.path.normpath(table.parent / file))) for file in files)
            lost = [file for file, place in places if place not in known and file not in ids]
            found += [(table, lost)] if lost else []
        return found

    def _read(self, folder: Path) -> dict[str, list[tuple[CaptionRow, str]]]:
        if folder not in self._known:
            table: dict[str, list[tuple[CaptionRow, str]]] = {}
            for name in TABLE_NAMES:
                if (folder / name).is_file():
                    rows = read_caption_table(folder / name)
                    self._files[folder / name] = [row.file for row in rows]
                    for row in rows:
                        table.setdefault(os.path.normpath(row.file), []).append((row, "metadata"))
            rows = read_prompt_lists(folder)
            self._files[folder / VIDEOS] = [row.file for row in rows]
            for row in rows:
                table.setdefault(os.path.normpath(row.file), []).append((row, "prompts"))
            self._known[folder] = table
        return self._known[folder]
