"""Segments that still need a caption: a table to fill in by hand, a contact sheet for each.

What somebody wrote into the table before is kept when it is written again.
"""

import hashlib
import os
import re
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ttvcli.artifacts.atomic import write_bytes
from ttvcli.artifacts.captions import CaptionRow, in_a_table, read_caption_table, write_fill_in
from ttvcli.core.video.contact_sheet import contact_sheet
from ttvcli.core.video.errors import UnreadableVideo
from ttvcli.core.video.segment_frames import FrameChoice
from ttvcli.errors import ArtifactError, UsageError
from ttvcli.workflows.caption_frames import Spans, read_ahead
from ttvcli.workflows.caption_model import CaptionConfig
from ttvcli.workflows.caption_sources import CaptionedClip, Library
from ttvcli.workflows.step import Progress
from ttvcli.workflows.video_sources import path_from

DEFAULT_NAME = "captions.todo.jsonl"
_TILES = FrameChoice(count=6, longest=240)
_COLUMNS = 3
_SHEET = re.compile(r"-[0-9a-f]{6}-\d{4,}\.png$")
_LONGEST_NAME = 60  # characters of the video's name in that of a sheet


@dataclass(frozen=True)
class Gap:
    """A segment whose caption is missing or not good enough."""

    clip: int  # number of the clip's line in the manifest
    span: int
    problem: str


class FillIn:
    """The table of a run."""

    def __init__(self, library: Library, path: Path | None) -> None:
        self.library = library
        self.path = path or library.manifest.parent / DEFAULT_NAME
        self.sheets = self.path.with_suffix("")  # captions.todo/

    def earlier(self, *, force: bool) -> dict[tuple[str, int | None], str]:
        """Return what is filled in already, by path and segment.

        Raises:
            UsageError: the table can no longer be read, and is not to be replaced.
        """
        if not self.path.is_file():
            return {}
        try:
            rows = read_caption_table(self.path)
        except ArtifactError as error:
            if force:
                return {}
            raise UsageError(
                f"the table to fill in is in the way: {error.what}",
                where=error.where,
                fix="correct it, move it, or replace it with --force",
            ) from error
        return {(row.file, row.segment): row.caption for row in rows if row.caption}

    def write(
        self, gaps: list[Gap], earlier: dict[tuple[str, int | None], str], sheets: set[Gap]
    ) -> None:
        """Write one line for each gap; the table goes away when there is none."""
        if not gaps:
            self.path.unlink(missing_ok=True)
            return
        write_fill_in(self.path, (self._line(gap, earlier, gap in sheets) for gap in gaps))

    def draw(
        self, gaps: list[Gap], config: CaptionConfig, progress: Progress, lost: Container[int]
    ) -> tuple[set[Gap], dict[Gap, tuple[str, str]]]:
        """Draw the sheets that are not there; returns those there are, and why others are not.

        Clips with a number in `lost` are not opened.
        """
        wanted: dict[int, list[Gap]] = {}
        drawn = set()
        for gap in gaps:
            if self._sheet(gap).is_file():
                drawn.add(gap)
            elif gap.clip not in lost:
                wanted.setdefault(gap.clip, []).append(gap)
        unread: dict[Gap, tuple[str, str]] = {}
        if wanted:
            progress.start("drawing", sum(map(len, wanted.values())), "contact sheets")
        with read_ahead(asked(self.library, wanted), _TILES, config) as shown:
            for index, group in enumerate(wanted.values()):
                try:
                    for seen in shown(index):
                        sheet = contact_sheet(list(seen.frames), seen.times, columns=_COLUMNS)
                        write_bytes(self._sheet(group[seen.number]), sheet)
                        drawn.add(group[seen.number])
                        progress.advance()
                except UnreadableVideo as error:
                    reason = error.reason_code, error.detail
                    unread |= dict.fromkeys(set(group) - drawn, reason)
        progress.finish()
        return drawn, unread

    def remove_sheets(self, open_gaps: list[Gap]) -> None:
        """Delete the sheets of segments that have a caption now."""
        if not self.sheets.is_dir():
            return
        wanted = {self._sheet(gap).name for gap in open_gaps}
        for path in self.sheets.iterdir():
            if _SHEET.search(path.name) and path.name not in wanted:
                path.unlink(missing_ok=True)
        if not any(self.sheets.iterdir()):
            self.sheets.rmdir()

    def _line(
        self, gap: Gap, earlier: dict[tuple[str, int | None], str], sheet: bool
    ) -> dict[str, Any]:
        clip = self.library.clips[gap.clip]
        span = clip.spans[gap.span]
        path = path_from(self.path.parent, clip.path)
        return {
            "path": path,
            "id": str(clip.record.get("id") or ""),
            "segment": gap.span,
            "start": span.get("start") or 0.0,
            "end": "" if span.get("end") is None else span["end"],
            "problem": gap.problem,
            "present": span.get("caption", ""),
            "contact_sheet": path_from(self.path.parent, self._sheet(gap)) if sheet else "",
            "caption": earlier.get((in_a_table(path), gap.span), ""),
        }

    def _sheet(self, gap: Gap) -> Path:
        clip = self.library.clips[gap.clip]
        plain = re.sub(r"[^A-Za-z0-9.-]+", "_", clip.name)[-_LONGEST_NAME:].strip("._")
        # Names that differ in other characters only must not share a sheet.
        digest = hashlib.sha256(os.fsencode(clip.record["path"])).hexdigest()[:6]
        return self.sheets / f"{plain}-{digest}-{gap.span:04d}.png"


def asked(library: Library, gaps: dict[int, list[Gap]]) -> list[tuple[Path, Spans]]:
    """Return the video of each group of gaps, by the number of its clip, and where they are."""
    clips = ((library.clips[number], group) for number, group in gaps.items())
    return [(clip.path, bounds(clip, group)) for clip, group in clips]


def bounds(clip: CaptionedClip, gaps: list[Gap]) -> list[tuple[float, float]]:
    """Return start and end of the segments, in seconds of the video."""
    found = []
    for gap in gaps:
        span = clip.spans[gap.span]
        start, end = float(span.get("start") or 0.0), span.get("end")
        last = float(clip.record.get("duration") or start + 3.0) if end is None else float(end)
        found.append((start, max(last, start)))
    return found


def rows_by_clip(
    library: Library, rows: list[CaptionRow], folder: Path
) -> tuple[dict[int, list[CaptionRow]], list[CaptionRow]]:
    """Return the rows of a table for each clip, and those that name none.

    A row may name the clip by its id, or by its path from the table, from the clips, or in full.
    """
    names: dict[str, int] = {}
    for number, clip in library.clips.items():
        if clip.record.get("id"):
            names[str(clip.record["id"])] = number
    for number, clip in library.clips.items():
        whole = str(clip.path.resolve())
        for place in (os.path.normpath(clip.record["path"]), whole):
            names[in_a_table(place)] = number
    found: dict[int, list[CaptionRow]] = {}
    unknown: list[CaptionRow] = []
    for row in rows:
        whole = in_a_table(str((folder / row.file).resolve()))
        places = (os.path.normpath(row.file), whole, row.id)
        match = next((names[place] for place in places if place in names), None)
        if match is None:
            unknown.append(row)
        else:
            found.setdefault(match, []).append(row)
    return found, unknown
