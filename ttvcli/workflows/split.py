"""Cut videos into clips of one length, frame rate and size, along their scenes.

Each source is decoded twice, in one of several processes: once to find its scenes, its true length
and that it is sound, once to cut it. The clips of a source are written one after another, each
whole or absent, with its line of the manifest last; the end brings the lines into the order of the
sources. A run that was killed goes on where it stopped and ends with the bytes of an uninterrupted
one, whatever the number of processes.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ttvcli.artifacts.atomic import remove_leftovers, write_json
from ttvcli.artifacts.lock import only_writer
from ttvcli.artifacts.manifest import MANIFEST_NAME
from ttvcli.artifacts.schema import HEADER_NAME, header, read_header
from ttvcli.core.video.clip_stream import Broken
from ttvcli.core.video.decode import VideoInfo, probe
from ttvcli.core.video.errors import UnreadableVideo
from ttvcli.core.video.shots import MICRO
from ttvcli.workflows.free_space import check_free_space
from ttvcli.workflows.output_folder import OutputFolder, check_output, summary, warn_of_others
from ttvcli.workflows.process_pool import Message, ProcessPool, machine_workers, why_lost
from ttvcli.workflows.split_cut import CutTask, Looked, LookTask, Task, stated_frames, work
from ttvcli.workflows.split_job import SplitConfig, SplitJob, prepare
from ttvcli.workflows.split_records import Clip, clip_record, make_report
from ttvcli.workflows.step import SILENT, PlainResult, Plan, Progress
from ttvcli.workflows.video_sources import OTHER_FILE, Source, Sources, unread_tables

__all__ = ["SplitConfig", "SplitResult", "plan", "run"]

_RESULTS = "????????????????-????.mp4"
_SPARE_DISK = 64 << 20
# Measured on a film at crf 17 and on one core: bits a pixel, seconds a pixel decoded or encoded.
_BITS_PER_PIXEL = 0.35
_DECODE, _ENCODE = 2.5e-9, 5e-8

Cutter = Callable[[Iterable[Task]], Iterator[Message]]


@dataclass(frozen=True)
class SplitResult(PlainResult):
    """What a run did; `clips` counts all that are there, `made` those of this run."""

    paths: list[Path]
    clips: int
    made: int
    failed: list[dict[str, Any]]


def plan(config: SplitConfig) -> Plan:
    """Look at every video's header and tell at most how much a run would make."""
    job = prepare(config)
    check_output(config.out, "clips", job.settings(), force=config.force)
    infos = list(_headers(job))
    small = [info for info in infos if job.too_small((info.width, info.height))]
    seconds = sum(info.duration or 0.0 for info in infos if info not in small)
    clips = int(seconds * MICRO / job.rule.length / job.per_clip)
    width, height = job.size
    encoded = clips * job.clip_frames * width * height
    decoded = sum(stated_frames(info) * info.width * info.height for info in infos)
    return Plan(
        command="prep split",
        items=[
            ("videos", len(job.sources.videos)),
            ("unreadable videos", len(job.sources.videos) - len(infos)),
            ("smaller than the size", len(small)),
            ("left out by the manifest", job.sources.left_out),
            ("seconds of video", round(seconds, 1)),
            ("clips, at most", clips),
            ("clip", f"{job.clip_frames} frames, {width}x{height}, {float(job.rule.fps):g} fps"),
            ("detector", config.detector),
            ("processes", job.workers),
            ("output", str(config.out)),
        ],
        bytes={"disk": int(clips * _bytes_per_clip(job))},
        eta_seconds=(2 * decoded * _DECODE + encoded * _ENCODE) / job.workers,
    )


def run(
    config: SplitConfig, progress: Progress = SILENT, *, cutter: Cutter | None = None
) -> SplitResult:
    """Cut every video that is not done yet.

    Args:
        config: settings.
        progress: where to report.
        cutter: does the tasks it is given and tells about each; processes by default.

    Raises:
        UsageError: the output was made with other settings, or another process writes there.
        WouldNotFit: not enough disk.
        ArtifactError: no source.
    """
    job = prepare(config)
    settings = job.settings()
    with only_writer(config.out):
        if config.force:
            _remove_clips(config.out)
        folder = OutputFolder.open(config.out, header("clips", settings), force=config.force)
        return _Run(job, folder, progress).all(cutter)


class _Run:
    """One pass over the sources, which are known by their numbers."""

    def __init__(self, job: SplitJob, folder: OutputFolder, progress: Progress) -> None:
        self.job = job
        self.folder = folder
        self.progress = progress
        self.videos = job.sources.videos
        self.workers = min(job.workers, len(self.videos))
        self.looked: dict[int, Looked] = {}
        self.failed: dict[int, dict[str, Any]] = {}
        self.first: dict[str, int] = {}  # hash to the first source with these bytes
        self.duplicates: list[dict[str, Any]] = []
        self.decoded: Counter[int] = Counter()  # frames, as they were counted for the progress
        self.made = 0

    def all(self, cutter: Cutter | None) -> SplitResult:
        try:
            with ProcessPool(work, self.workers, self.job.config.patience) as pool:
                each = cutter or pool.map
                self._look(each)
                self._cut(self._todo(), each)
        finally:  # what killed workers were writing
            remove_leftovers(self.folder.path)
        self.progress.finish()
        failed = [self.failed[index] for index in sorted(self.failed)]
        records = [record for digest in self.first for record in self._records(digest)]
        warn_of_others(self.progress, self.folder.finish(records))
        settings, sources = self.job.settings(), self.job.sources
        report = make_report(settings, sources, records, failed, self.duplicates)
        write_json(self.folder.path / "report.json", report)
        hint = unread_tables(self.job.config.source, sources)
        if hint and report["clips_without_caption"]:
            self.progress.warn(hint)
        used, copies = report["cut_videos"], len(self.duplicates)
        self.progress.note(summary(len(records), used, len(self.videos), copies))
        return SplitResult([self.folder.path], len(records), self.made, failed)

    def _look(self, each: Cutter) -> None:
        """Find out which sources are videos, and which of them are the same."""
        self.progress.start("reading", len(self.videos), "videos")
        tasks = (LookTask(index, source.path) for index, source in enumerate(self.videos))
        for message in each(tasks):
            if message.kind == "beat":
                self.progress.advance(0)
                continue
            found = self._outcome(message)
            if isinstance(found, Looked):
                self.looked[message.item.index] = found
            self.progress.advance()
        for index in sorted(self.looked):
            digest, name = self.looked[index].sha256, self.videos[index].name
            same = self.first.setdefault(digest, index)
            if same != index:
                self.duplicates.append({"item": name, "same_as": self.videos[same].name})

    def _todo(self) -> list[CutTask]:
        """Return what is to be cut; checks the disk."""
        bare = replace(self.job, sources=Sources([]))
        threads = max(machine_workers() // self.workers, 1)
        tasks, seconds = [], 0.0
        for digest, index in self.first.items():
            there = [r for r in self.folder.of_source(digest) if self._sound(r)]
            if there and len(there) == there[0].get("clips"):
                continue
            numbers = frozenset(record["clip"] for record in there)
            path = self.videos[index].path
            tasks.append(CutTask(index, path, digest, numbers, bare, threads))
            seconds += self.looked[index].seconds
        if seconds:
            clips = seconds * MICRO / self.job.rule.length / self.job.per_clip
            fix = "choose another --out, a smaller --size, or fewer videos with --limit N"
            need = int(clips * _bytes_per_clip(self.job))
            check_free_space(self.folder.path, need, fix, spare=_SPARE_DISK)
        return tasks

    def _cut(self, tasks: list[CutTask], each: Cutter) -> None:
        frames = sum(2 * self.looked[task.index].frames for task in tasks)
        self.progress.start("cutting", frames, "frames")
        for message in each(tasks):
            index = message.item.index
            if message.kind != "beat":
                self._outcome(message)
                self._advance(index, 2 * self.looked[index].frames)
            elif isinstance(message.value, Clip):
                self.folder.add(self._record(message.value, self.videos[index]))
                self.made += 1
            else:
                self._advance(index, message.value)

    def _outcome(self, message: Message) -> Any:
        """Return what a task gave; a source that is of no use is kept with the reason."""
        found = message.value
        if message.kind == "error":  # not of the video, but of writing clips
            raise found
        if message.kind in ("crashed", "timeout"):
            found = Broken(message.kind, why_lost(message, self.job.config.patience))
        source = self.videos[message.item.index]
        if isinstance(found, Looked) and not source.described(found.sha256):
            found = Broken("changed", OTHER_FILE)
        if isinstance(found, Broken):
            entry = {"item": source.name, "reason": found.reason_code, "detail": found.detail}
            self.failed[message.item.index] = entry
        return found

    def _advance(self, index: int, frames: int) -> None:
        """Count the frames of a source, but never more than were announced."""
        frames = min(frames, 2 * self.looked[index].frames)
        self.progress.advance(frames - self.decoded[index])
        self.decoded[index] = frames

    def _records(self, digest: str) -> list[dict[str, Any]]:
        """Return the lines of all clips of a source, with what its captions are now."""
        source = self.videos[self.first[digest]]
        lines = sorted(self.folder.of_source(digest), key=lambda line: line["clip"])
        return [self._record(Clip.from_record(line), source, line) for line in lines]

    def _record(
        self, clip: Clip, source: Source, before: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        return clip_record(clip, source, self.job.rule, before)

    def _sound(self, record: dict[str, Any]) -> bool:
        """Tell whether the file of a record is whole; if not, forget the record."""
        path = self.folder.path / record["path"]
        if path.is_file() and path.stat().st_size == record["bytes"]:
            return True
        self.folder.forget(record["id"])
        return False


def _remove_clips(out: Path) -> None:
    """Delete what an earlier run made: the manifest first, so that no line outlives its file.

    `prepare` has seen to it that clips in this folder are those of this step.
    """
    if (out / HEADER_NAME).is_file() and read_header(out).get("kind") == "clips":
        (out / MANIFEST_NAME).unlink(missing_ok=True)
        for clip in out.glob(_RESULTS):
            clip.unlink()


def _headers(job: SplitJob) -> Iterator[VideoInfo]:
    for source in job.sources.videos:
        try:
            yield probe(source.path)
        except UnreadableVideo:
            continue


def _bytes_per_clip(job: SplitJob) -> float:
    quality = 2 ** ((17 - job.config.crf) / 6)  # H.264: six steps halve or double the bytes
    return job.clip_frames * job.size[0] * job.size[1] * _BITS_PER_PIXEL / 8 * quality
