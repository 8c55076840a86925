"""Ask a captioner about many segments: decode ahead, keep every answer at once, ask for none twice.

Answers go to a journal beside the manifest, each flushed to the disk before the next is waited for.
A run that was killed reads it back. It goes away when the manifest has been written.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from ttvcli.artifacts.manifest import ManifestWriter, read_manifest
from ttvcli.artifacts.schema import settings_hash
from ttvcli.core.captions.check import check_caption
from ttvcli.core.captions.instruction import clean_answer
from ttvcli.core.video.errors import UnreadableVideo
from ttvcli.errors import Interrupted, WorkFailed, counted
from ttvcli.workflows.caption_fill_in import Gap, asked, bounds
from ttvcli.workflows.caption_frames import Shown, read_ahead
from ttvcli.workflows.caption_model import FAILED, CaptionConfig, Captioner, NoCaption, View
from ttvcli.workflows.caption_sources import Library
from ttvcli.workflows.step import Progress, StopRequest

JOURNAL_NAME = "captions.partial.jsonl"
_MOST_FAILURES = 8  # in a row, before the first answer: then it is the captioner, not the segments
_SHOWN = 80  # characters of an unusable answer

Failure = tuple[str, str]  # reason, detail


class Journal:
    """The answers of an unfinished run."""

    def __init__(self, manifest: Path) -> None:
        self.path = manifest.parent / JOURNAL_NAME
        self._known: dict[str, str] = {}
        if self.path.is_file():
            lines = read_manifest(self.path)
            self._known = {str(line.get("id")): str(line.get("caption") or "") for line in lines}
        self._writer: ManifestWriter | None = None

    def get(self, key: str) -> str:
        """Return an answer of an earlier run, "" if there is none."""
        return self._known.get(key, "")

    def add(self, key: str, caption: str) -> None:
        """Keep an answer."""
        if self._writer is None:  # nothing is written before there is something to keep
            self._writer = ManifestWriter(self.path)
        self._writer.append({"id": key, "caption": caption})
        self._known[key] = caption

    def remove(self) -> None:
        """Forget all: the manifest has them."""
        self.path.unlink(missing_ok=True)


def ask_all(
    library: Library,
    gaps: list[Gap],
    captioner: Captioner,
    journal: Journal,
    *,
    config: CaptionConfig,
    progress: Progress,
    stop: StopRequest,
) -> tuple[dict[Gap, str], dict[Gap, Failure]]:
    """Return a caption for every gap that the captioner has one for, and why others have none.

    Raises:
        Interrupted: on request; what was answered is kept.
        WorkFailed: the captioner fails for everything.
    """
    return _Asking(library, captioner, journal, config, progress, stop).all(gaps)


class _Asking:
    def __init__(
        self,
        library: Library,
        captioner: Captioner,
        journal: Journal,
        config: CaptionConfig,
        progress: Progress,
        stop: StopRequest,
    ) -> None:
        self.library = library
        self.captioner = captioner
        self.journal = journal
        self.config = config
        self.rules = config.rules()
        self.progress = progress
        self.stop = stop
        self.hash = settings_hash(captioner.settings)
        self.captions: dict[Gap, str] = {}
        self.failures: dict[Gap, Failure] = {}
        self.answered = False
        self.unanswered = 0  # requests that failed

    def all(self, gaps: list[Gap]) -> tuple[dict[Gap, str], dict[Gap, Failure]]:
        keys = {gap: self._key(gap) for gap in gaps}
        self.captions = {gap: text for gap in gaps if (text := self.journal.get(keys[gap]))}
        todo: dict[int, list[Gap]] = {}
        for gap in gaps:
            if gap not in self.captions:
                todo.setdefault(gap.clip, []).append(gap)
        self.progress.start("captioning", len(gaps), "segments", done=len(self.captions))
        spans = asked(self.library, todo)
        with read_ahead(spans, self.captioner.choice, self.config) as shown:
            views = self._views(todo, shown)
            if self.captioner.concurrency > 1:
                self._several(views, keys)
            else:
                for gap, view in views:
                    self._take(gap, keys[gap], partial(self.captioner, view))
                    self._check(len(gaps))
        self.progress.finish()
        return self.captions, self.failures

    def _several(self, views: Iterator[tuple[Gap, View]], keys: dict[Gap, str]) -> None:
        waiting: dict[Future[str], Gap] = {}
        pool = ThreadPoolExecutor(self.captioner.concurrency)
        try:
            for gap, view in views:
                waiting[pool.submit(self.captioner, view)] = gap
                # Twice as many as are asked for at a time: decoding never keeps the server waiting.
                while len(waiting) >= 2 * self.captioner.concurrency:
                    self._collect(waiting, keys)
                self._check(len(keys))
            while waiting:
                self._collect(waiting, keys)
                self._check(len(keys))
        except BaseException:
            self.captioner.stop()
            pool.shutdown(wait=True, cancel_futures=True)
            for future, gap in waiting.items():  # what was answered meanwhile is paid for
                if not future.cancelled() and future.exception() is None:
                    with suppress(NoCaption):
                        self._keep(gap, keys[gap], future.result())
            raise
        pool.shutdown()

    def _collect(self, waiting: dict[Future[str], Gap], keys: dict[Gap, str]) -> None:
        done, _ = wait(waiting, return_when=FIRST_COMPLETED)
        for future in done:
            gap = waiting.pop(future)
            self._take(gap, keys[gap], future.result)

    def _take(self, gap: Gap, key: str, answer: Callable[[], str]) -> None:
        try:
            text = answer()
            self.answered = True
            self._keep(gap, key, text)
        except NoCaption as none:
            self._fail(gap, none.reason, none.detail)
            self.unanswered += none.reason == FAILED
        self.progress.advance(1, **({"failed": len(self.failures)} if self.failures else {}))
        if not self.answered and self.unanswered >= _MOST_FAILURES:
            raise WorkFailed(
                f"the captioner failed {self.unanswered} times and never answered: "
                f"{self.failures[gap][1]}",
                where=self.captioner.source,
                fix="once it answers, the same command continues",
            )

    def _keep(self, gap: Gap, key: str, answer: str) -> None:
        caption = clean_answer(answer)
        verdict = check_caption(caption, self.rules, declared="en")
        if verdict.problem:
            shown = caption if len(caption) <= _SHOWN else caption[:_SHOWN] + "..."
            raise NoCaption("unusable_answer", f"{verdict.problem}: {shown!r}")
        self.journal.add(key, caption)
        self.captions[gap] = caption

    def _views(self, todo: dict[int, list[Gap]], shown: Shown) -> Iterator[tuple[Gap, View]]:
        for index, (number, group) in enumerate(todo.items()):
            clip = self.library.clips[number]
            spans = bounds(clip, group)
            seen = set()
            try:
                for found in shown(index):
                    gap = group[found.number]
                    seen.add(gap)
                    start, end = spans[found.number]
                    name = f"{clip.name} at {start:.3g} s"
                    yield gap, View(name, end - start, found.frames)
                reason = "outside_video", "the segment begins after the video has ended"
            except UnreadableVideo as error:
                reason = error.reason_code, error.detail
            for gap in group:
                if gap not in seen:
                    self._fail(gap, *reason)
                    self.progress.advance()

    def _fail(self, gap: Gap, reason: str, detail: str) -> None:
        self.failures[gap] = (reason, detail)

    def _check(self, total: int) -> None:
        if self.stop.requested:
            raise Interrupted(
                f"stopped with {len(self.captions)} of {counted(total, 'segment')} captioned",
                where=str(self.journal.path),
                fix="the same command continues",
            )

    def _key(self, gap: Gap) -> str:
        clip = self.library.clips[gap.clip]
        span = clip.spans[gap.span]
        file: Any = None
        with suppress(OSError):
            found = clip.path.stat()
            file = [found.st_size, found.st_mtime_ns]
        parts = [str(clip.record["path"]), file, span.get("start"), span.get("end"), self.hash]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]
