"""Give every segment a usable English caption: from where captions stand, a model, or by hand.

Nothing is lost: a caption that is good enough stays, one that is replaced is kept as
`replaced`, and the manifest is written beside and renamed.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ttvcli.artifacts.atomic import write_json
from ttvcli.artifacts.captions import CaptionRow, read_caption_table
from ttvcli.artifacts.lock import only_writer
from ttvcli.artifacts.manifest import to_line, write_manifest
from ttvcli.artifacts.schema import (
    HEADER_NAME,
    Header,
    check_claim,
    claim_folder,
    header,
    plain,
    read_header,
)
from ttvcli.core.captions.check import check_caption
from ttvcli.errors import UsageError, counted
from ttvcli.workflows.caption_ask import Journal, ask_all
from ttvcli.workflows.caption_fill_in import FillIn, Gap, rows_by_clip
from ttvcli.workflows.caption_frames import LOST
from ttvcli.workflows.caption_judge import BY_HAND, WANTED, Judged, take_from_output
from ttvcli.workflows.caption_model import (
    CaptionConfig,
    Captioner,
    check_captioner,
    load_captioner,
    read_instruction,
)
from ttvcli.workflows.caption_sources import Library, load_library
from ttvcli.workflows.step import SILENT, PlainResult, Plan, Progress, stop_on_signal

REPORT_NAME = "captions.json"
_OF_A_CAPTION = ("caption", "language", "caption_source", "caption_problem")

__all__ = ["CaptionConfig", "CaptionResult", "plan", "run"]


@dataclass(frozen=True)
class CaptionResult(PlainResult):
    """What a run did; `open` segments are without a usable caption, and listed in `failed`."""

    paths: list[Path]
    videos: int
    segments: int
    captioned: int
    open: int
    fill_in: Path | None
    failed: list[dict[str, Any]]


def plan(config: CaptionConfig) -> Plan:
    """Judge every caption and tell what would be asked for; reads no weights, asks no server."""
    check_captioner(config)
    read_instruction(config)
    library = load_library(config.source, config.out, config.limit)
    _check_kind(library)
    if not library.in_place:
        check_claim(library.manifest.parent, _header(), force=config.force)
    work = Judged(config, library)
    every = work.gaps()
    gaps = every if config.force else take_from_output(library, every)
    problems = Counter(gap.problem for gap in gaps)
    items: list[tuple[str, str | int | float]] = [
        ("videos", len(library.clips)),
        ("left out", len(library.records) - len(library.clips)),
        ("segments", sum(len(clip.spans) for clip in library.clips.values())),
    ]
    items += [(f"captions from {name}", n) for name, n in sorted(library.found.items())]
    items += [(f"rows for no clip in {table}", len(files)) for table, files in library.astray]
    if len(gaps) < len(every):
        items.append(("captioned by an earlier run", len(every) - len(gaps)))
    items += [("in an unknown language", work.unsure), ("to caption", len(gaps))]
    items += [(f"  {name}", problems[name]) for name in sorted(problems)]
    items += [
        ("unreadable videos", len(work.unreadable)),
        ("captioner", config.captioner or "none"),
        ("processes that decode", config.decoders),
        ("output", str(library.manifest)),
    ]
    return Plan(command="prep caption", items=items)


def run(
    config: CaptionConfig,
    progress: Progress = SILENT,
    *,
    load: Callable[[CaptionConfig], Captioner] = load_captioner,
) -> CaptionResult:
    """Caption every segment that needs it and write the manifest.

    Args:
        config: settings.
        progress: where to report.
        load: makes the captioner; called only if there is something to caption.

    Raises:
        UsageError: no such captioner, no place for the result, or another process writes there.
        ArtifactError: no source, or a table or a model that cannot be read.
    """
    check_captioner(config)
    read_instruction(config)
    rows = read_caption_table(config.from_file) if config.from_file is not None else []
    library = load_library(config.source, config.out, config.limit)
    folder = library.manifest.parent
    _check_kind(library)
    with only_writer(folder):
        if not library.in_place:
            claim_folder(folder, _header(), force=config.force)
        return _Run(config, library, rows, progress, load).all()


class _Run:
    def __init__(
        self,
        config: CaptionConfig,
        library: Library,
        rows: list[CaptionRow],
        progress: Progress,
        load: Callable[[CaptionConfig], Captioner],
    ) -> None:
        self.config = config
        self.library = library
        self.rows = rows
        self.progress = progress
        self.load = load
        self.work = Judged(config, library)
        self.failures: dict[Gap, tuple[str, str]] = {}
        self.captioned: Counter[str] = Counter()
        self.unmatched = 0

    def all(self) -> CaptionResult:
        fill_in = FillIn(self.library, self.config.fill_in)
        written = fill_in.earlier(force=self.config.force)
        self._check_handwork(fill_in, written)
        gaps = self.work.gaps(self.progress)
        self.progress.note(self._summary(gaps))
        for table, files in self.library.astray:
            self._tell_astray(table, files, "no clip of this manifest")
        astray = [clip for clip in self.library.clips.values() if clip.astray]
        if astray:
            rows = counted(sum(clip.astray for clip in astray), "row")
            self.progress.warn(
                f"tables of captions: {rows} for segments that their clip does not have, the first "
                f"one of {astray[0].name!r}"
            )
        journal = Journal(self.library.manifest)
        left = self._from_earlier_output(gaps)
        left = self._from_file(left)
        left = self._from_captioner(left, journal)
        write = self._write_manifest()
        open_gaps = [gap for gap in left if gap.problem != WANTED]
        fill_in.remove_sheets(open_gaps)
        fill_in.write(open_gaps, written, self._draw(fill_in, open_gaps))
        self._tell(open_gaps, fill_in, written)
        failed = [self._failure(gap) for gap in left]
        self._report(gaps, failed)
        journal.remove()
        spans = [len(clip.spans) for clip in self.library.clips.values()]
        return CaptionResult(
            paths=[write],
            videos=len(spans),
            segments=sum(spans),
            captioned=sum(self.captioned.values()),
            open=len(open_gaps),
            fill_in=fill_in.path if open_gaps else None,
            failed=failed,
        )

    def _draw(self, fill_in: FillIn, open_gaps: list[Gap]) -> set[Gap]:
        """Draw contact sheets; returns the segments that have one."""
        if not self.config.sheets:
            return set()
        lost = {gap.clip for gap, (reason, _) in self.failures.items() if reason in LOST}
        lost |= {n for n, error in self.work.unreadable.items() if error.reason_code in LOST}
        drawn, unread = fill_in.draw(open_gaps, self.config, self.progress, lost)
        for gap, reason in unread.items():
            self.failures.setdefault(gap, reason)
        return drawn

    def _check_handwork(self, fill_in: FillIn, written: dict[tuple[str, int | None], str]) -> None:
        """Refuse to let a model write what somebody has written already."""
        if written and self.config.captioner and not (self.config.from_file or self.config.force):
            raise UsageError(
                f"{counted(len(written), 'caption')} filled in by hand would not be used",
                where=str(fill_in.path),
                fix=f"add --from-file {fill_in.path}, or --force to leave them",
            )

    def _from_earlier_output(self, gaps: list[Gap]) -> list[Gap]:
        left = gaps if self.config.force else take_from_output(self.library, gaps)
        if len(left) < len(gaps):
            count = counted(len(gaps) - len(left), "segment")
            self.progress.note(f"{count} captioned by an earlier run, {len(left)} left")
        return left

    def _from_file(self, gaps: list[Gap]) -> list[Gap]:
        table = self.config.from_file
        if table is None:
            return gaps
        rows, unknown = rows_by_clip(self.library, self.rows, table.parent)
        if unknown:
            self._tell_astray(table, [row.file for row in unknown], "no clip of this run")
        left = {(gap.clip, gap.span): gap for gap in gaps}
        astray = []  # rows of segments that are not there
        for number, of_clip in rows.items():
            for row in of_clip:
                spans = self.library.clips[number].span_at(row)
                astray += [] if spans else [row]
                for span in spans:
                    gap = left.get((number, span))
                    if gap is None and self.config.force:
                        gap = Gap(number, span, WANTED)
                    if row.caption and gap is not None and self._take_row(row, gap, table.name):
                        left.pop((number, span), None)
        if astray:
            self.progress.warn(
                f"{table.name}: {counted(len(astray), 'row')} for segments that their clip does "
                f"not have, the first one of {astray[0].file!r}"
            )
        return list(left.values())

    def _tell_astray(self, table: Path, files: list[str], what: str) -> None:
        rows = counted(len(files), "row")
        self.progress.warn(f"{table}: {rows} for {what}, the first one for {files[0]!r}")
        self.unmatched += len(files)

    def _take_row(self, row: CaptionRow, gap: Gap, table: str) -> bool:
        """Take the caption of a row if it is of use."""
        verdict = check_caption(row.caption, self.work.rules, declared=row.language)
        if verdict.problem:
            self.failures[gap] = (verdict.problem, f"in {table}: {row.caption}")
            return False
        self._put(gap, row.caption, BY_HAND, verdict.language)
        return True

    def _from_captioner(self, gaps: list[Gap], journal: Journal) -> list[Gap]:
        if not self.config.captioner:
            return gaps
        askable = [gap for gap in gaps if gap.clip not in self.work.unreadable]
        if askable:
            captioner = self.load(self.config)
            with stop_on_signal() as stop:  # elsewhere a signal ends the run at once
                captions, failures = ask_all(
                    self.library,
                    askable,
                    captioner,
                    journal,
                    config=self.config,
                    progress=self.progress,
                    stop=stop,
                )
            self.failures |= failures
            for gap, caption in captions.items():
                self._put(gap, caption, captioner.source, "en")
            gaps = [gap for gap in gaps if gap not in captions]
        return gaps

    def _put(self, gap: Gap, caption: str, source: str, language: str) -> None:
        clip = self.library.clips[gap.clip]
        span, clip.uncut = clip.spans[gap.span], False
        if span["caption"] and span["caption"] != caption:
            before = {key: span[key] for key in _OF_A_CAPTION if key in span}
            span["replaced"] = [*(span.get("replaced") or []), before]
        span.pop("caption_problem", None)
        span |= {"caption": caption, "language": language, "caption_source": source}
        self.failures.pop(gap, None)
        self.captioned[source] += 1

    def _write_manifest(self) -> Path:
        path = self.library.manifest
        records = self.library.finished()
        lines = "".join(to_line(record) + "\n" for record in records).encode()
        if not path.is_file() or path.read_bytes() != lines:
            write_manifest(path, records)
        return path

    def _failure(self, gap: Gap) -> dict[str, Any]:
        clip = self.library.clips[gap.clip]
        span = clip.spans[gap.span]
        unreadable = self.work.unreadable.get(gap.clip)
        reason, detail = self.failures.get(gap, (gap.problem, span["caption"]))
        if unreadable is not None:
            reason, detail = unreadable.reason_code, unreadable.detail
        start = span.get("start") or 0.0
        end = "the end" if span.get("end") is None else f"{span['end']:g} s"
        item = f"{clip.name}, {start:g} to {end}"
        return {"item": item, "segment": gap.span, "reason": reason, "detail": detail}

    def _summary(self, gaps: list[Gap]) -> str:
        segments = sum(len(clip.spans) for clip in self.library.clips.values())
        problems = Counter(gap.problem for gap in gaps)
        listed = ", ".join(f"{count} {name}" for name, count in sorted(problems.items()))
        return f"{counted(segments, 'segment')}, {len(gaps)} to caption" + (
            f": {listed}" if listed else ""
        )

    def _tell(
        self, open_gaps: list[Gap], fill_in: FillIn, written: dict[tuple[str, int | None], str]
    ) -> None:
        if not open_gaps:
            return
        self.progress.warn(
            f"{counted(len(open_gaps), 'segment')} without a usable caption: fill in "
            f"{fill_in.path} and give it to --from-file, or name a model with --captioner"
        )
        if written and self.config.from_file is None:
            ready = counted(len(written), "caption")
            self.progress.warn(f"{fill_in.path} has {ready}: read with --from-file")

    def _report(self, gaps: list[Gap], failed: list[dict[str, Any]]) -> None:
        clips = self.library.clips.values()
        spans = [span for clip in clips for span in clip.spans]
        report = {
            **header("report", {"step": "prep caption", "rules": plain(self.work.rules)}),
            "videos": len(clips),
            "left_out": len(self.library.records) - len(clips),
            "segments": len(spans),
            "problems": dict(sorted(Counter(gap.problem for gap in gaps).items())),
            "captioned": dict(sorted(self.captioned.items())),
            "sources": _counted(span.get("caption_source") for span in spans),
            "languages": _counted(span.get("language") for span in spans),
            "rows_without_clip": self.unmatched,
            "open": failed,
        }
        write_json(self.library.manifest.parent / REPORT_NAME, report)


def _header() -> Header:
    """The header of a folder whose videos are elsewhere."""
    return header("clips", {"step": "prep caption"})


def _check_kind(library: Library) -> None:
    """Refuse folders whose manifest describes something else than videos."""
    folder = library.manifest.parent
    if (folder / HEADER_NAME).is_file():
        kind = read_header(folder).get("kind")
        if kind == "filtered":
            raise UsageError(
                "the folder holds verdicts, whose manifest gets no captions",
                where=str(folder),
                fix="--out FOLDER, a new one, for the manifest with captions",
            )
        if kind != "clips":
            raise UsageError(
                f"the folder holds {kind}, not clips",
                where=str(folder),
                fix="give the folder of the videos",
            )
    elif not library.in_place and library.manifest.exists():
        raise UsageError(
            "the output folder has a manifest of something else",
            where=str(folder),
            fix="choose another --out",
        )


def _counted(values: Any) -> dict[str, int]:
    return dict(sorted(Counter(str(value) for value in values if value).items()))
