"""Cut videos into clips of one length, frame rate and size, along their scenes.

Each source is decoded twice: once to find its scenes, its true length and that it is sound, once to
cut it. Clips are written one after another, each whole or absent, with its line of the manifest
last; sources are taken in a fixed order. A run that was killed goes on where it stopped and ends
with the bytes of an uninterrupted one.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from ttvcli.artifacts.atomic import replacing, sha256_file, write_json
from ttvcli.artifacts.lock import only_writer
from ttvcli.artifacts.manifest import MANIFEST_NAME
from ttvcli.artifacts.schema import HEADER_NAME, header, read_header
from ttvcli.core.filters.black_bars import BlackBars
from ttvcli.core.video.crop import Edges, shown_inside
from ttvcli.core.video.decode import VideoInfo, check_file, open_video, probe
from ttvcli.core.video.encode import write_video
from ttvcli.core.video.errors import UnreadableVideo
from ttvcli.core.video.frame_picker import FramePicker
from ttvcli.core.video.picture import PictureReader
from ttvcli.core.video.resample import enlarged
from ttvcli.core.video.segments import (
    Segment,
    assemble,
    clip_frames,
    cut_scenes,
    held_frames,
)
from ttvcli.core.video.shots import MICRO, FoundShots, find_shots
from ttvcli.core.video.timeline import TimedFrame
from ttvcli.errors import counted
from ttvcli.workflows.encode_job import plain_number
from ttvcli.workflows.free_space import check_free_space
from ttvcli.workflows.output_folder import OutputFolder, check_output, warn_of_others
from ttvcli.workflows.split_job import SplitConfig, SplitJob, prepare
from ttvcli.workflows.split_records import Clip, clip_record, make_report, source_cut, spans_of
from ttvcli.workflows.step import SILENT, PlainResult, Plan, Progress
from ttvcli.workflows.video_sources import Source, unread_tables

__all__ = ["SplitConfig", "SplitResult", "plan", "run"]

_RESULTS = "????????????????-????.mp4"
_SPARE_DISK = 64 << 20
# Measured on a film at crf 17 and on one core: bits a pixel, seconds a pixel decoded or encoded.
_BITS_PER_PIXEL = 0.35
_DECODE, _ENCODE = 2.5e-9, 5e-8
_USUAL_FPS = Fraction(25)  # of a source that does not say


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
    small = [info for info in infos if _too_small(job, (info.width, info.height))]
    seconds = sum(info.duration or 0.0 for info in infos if info not in small)
    clips = int(seconds * MICRO / job.rule.length / job.per_clip)
    width, height = job.size
    decoded = sum(_frames(info) * info.width * info.height for info in infos)
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
            ("output", str(config.out)),
        ],
        bytes={"disk": int(clips * _bytes_per_clip(job))},
        eta_seconds=2 * decoded * _DECODE + clips * job.clip_frames * width * height * _ENCODE,
    )


def run(config: SplitConfig, progress: Progress = SILENT) -> SplitResult:
    """Cut every video that is not done yet.

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
        return _Run(job, folder, progress).all()


class _Run:
    """One pass over the sources."""

    def __init__(self, job: SplitJob, folder: OutputFolder, progress: Progress) -> None:
        self.job = job
        self.folder = folder
        self.progress = progress
        self.settings = job.settings()
        self.failed: list[dict[str, Any]] = []
        self.duplicates: list[dict[str, Any]] = []
        self.records: list[dict[str, Any]] = []  # of all clips, in the order of the sources
        self.made = 0
        self.frames_left = 0  # of the present source, as far as its header tells

    def all(self) -> SplitResult:
        videos = self.job.sources.videos
        looked = self._look(videos)
        seen: dict[str, str] = {}
        for source, (digest, frames) in zip(videos, looked, strict=True):
            if digest is None:
                continue
            if digest in seen:
                self.duplicates.append({"item": source.name, "same_as": seen[digest]})
            else:
                seen[digest] = source.name
                self.frames_left = frames
                try:
                    self._source(source, digest)
                except UnreadableVideo as error:
                    self._fail(source, error)
                frames = self.frames_left
            self.progress.advance(frames)
        self.progress.finish()
        order = {source.name: number for number, source in enumerate(videos)}
        self.failed.sort(key=lambda entry: order[entry["item"]])
        others = self.folder.finish(self.records)
        warn_of_others(self.progress, others)
        report = make_report(
            self.settings, self.job.sources, self.records, self.failed, self.duplicates
        )
        write_json(self.folder.path / "report.json", report)
        hint = unread_tables(self.job.config.source, self.job.sources)
        if hint and report["clips_without_caption"]:
            self.progress.warn(hint)
        cut = report["cut_videos"]
        clips = counted(len(self.records), "clip")
        self.progress.note(f"{clips} from {cut} of {counted(len(videos), 'video')}")
        return SplitResult([self.folder.path], len(self.records), self.made, self.failed)

    def _look(self, videos: list[Source]) -> list[tuple[str | None, int]]:
        """Return (content hash or None, frames to decode) of each source; checks the disk."""
        self.progress.start("reading", len(videos), "videos")
        found: list[tuple[str | None, int]] = []
        seconds = 0.0
        for source in videos:
            try:
                check_file(source.path)
                digest = sha256_file(source.path)
                frames = 0
                if self._finished(digest) is None:
                    info = probe(source.path)
                    frames = 2 * _frames(info)
                    seconds += info.duration or 0.0
                found.append((digest, frames))
            except UnreadableVideo as error:
                self._fail(source, error)
                found.append((None, 0))
            except OSError as error:  # a broken disk or a network folder that went away
                self._fail(source, UnreadableVideo("permission", error.strerror or "read error"))
                found.append((None, 0))
            self.progress.advance()
        if seconds:
            clips = seconds * MICRO / self.job.rule.length / self.job.per_clip
            fix = "choose another --out, a smaller --size, or fewer videos with --limit N"
            need = int(clips * _bytes_per_clip(self.job))
            check_free_space(self.folder.path, need, fix, spare=_SPARE_DISK)
        self.progress.start("cutting", sum(frames for _, frames in found), "frames")
        return found

    def _source(self, source: Source, digest: str) -> None:
        finished = self._finished(digest)
        if finished is not None:
            self.records += [self._record(Clip.from_record(r), source, r) for r in finished]
            return
        bars = BlackBars()

        def see(frame: TimedFrame) -> None:
            bars.see(frame)
            self._advance()

        found = find_shots(source.path, self.job.make_detector(), see)
        edges = bars.edges() if self.job.config.bars == "crop" else Edges()
        shown = shown_inside(found.info, edges)
        if _too_small(self.job, shown):
            inside = " inside its bars" if edges else ""
            shape = f"{shown[0]}x{shown[1]}{inside}"
            raise UnreadableVideo("too_small", f"{shape}; --allow-upscale takes it all the same")
        segments, dropped = cut_scenes(found.clock, found.shots, self.job.rule)
        clips = assemble(segments, self.job.per_clip, within_scene=self.job.config.join == "scene")
        if not clips:
            raise UnreadableVideo("too_short", _why_none(found, len(segments)))
        about = source_cut(found, segments, dropped, len(clips) * self.job.per_clip, edges)
        self._cut(source, digest, found, edges, asdict(about), clips)

    def _cut(
        self,
        source: Source,
        digest: str,
        found: FoundShots,
        edges: Edges,
        about: dict[str, Any],
        clips: list[tuple[Segment, ...]],
    ) -> None:
        with open_video(source.path) as video:
            convert = PictureReader(found.info.sample_aspect, self.job.size, edges)
            picker = FramePicker(video.frames(), convert, self._advance)
            for number, clip in enumerate(clips):
                name = f"{digest[:16]}-{number:04d}"
                old = self.folder.done.get(name)
                if old is not None and self._sound(old):
                    self.records.append(self._record(Clip.from_record(old), source, old))
                    continue
                path = self.folder.path / f"{name}.mp4"
                shown = clip_frames(found.clock, clip, self.job.rule)
                self._write(path, picker.pick(shown))
                made = Clip(
                    id=name,
                    path=path.name,
                    sha256=sha256_file(path),
                    bytes=path.stat().st_size,
                    width=self.job.size[0],
                    height=self.job.size[1],
                    fps=plain_number(self.job.rule.fps),
                    frames=len(shown),
                    source_sha256=digest,
                    clip=number,
                    clips=len(clips),
                    start=round(float(clip[0].start) / MICRO, 6),
                    held=held_frames(found.clock, clip, self.job.rule),
                    spans=spans_of(clip, self.job.rule),
                    cut=about,
                    notes=self._notes(found.info, edges),
                )
                record = self._record(made, source)
                self.folder.add(record)
                self.records.append(record)
                self.made += 1

    def _write(self, path: Path, frames: Iterator[Any]) -> None:
        config = self.job.config
        with replacing(path) as temporary:
            write_video(temporary, frames, self.job.rule.fps, crf=config.crf, preset=config.preset)

    def _notes(self, info: VideoInfo, edges: Edges) -> list[str]:
        factor = enlarged(shown_inside(info, edges), self.job.size)
        return [*info.notes, *([f"enlarged {factor:.2f} times"] if factor > 1 else [])]

    def _record(
        self, clip: Clip, source: Source, before: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        return clip_record(clip, source, self.job.rule, before)

    def _advance(self) -> None:
        """Count a decoded frame, but never more of a source than were announced."""
        if self.frames_left:
            self.frames_left -= 1
            self.progress.advance()

    def _finished(self, digest: str) -> list[dict[str, Any]] | None:
        """Return the records of a source all of whose clips are there and sound, else None."""
        records = self.folder.of_source(digest)
        if not records or len(records) != records[0].get("clips"):
            return None
        return records if all(self._sound(record) for record in records) else None

    def _sound(self, record: dict[str, Any]) -> bool:
        """Tell whether the file of a record is whole; if not, forget the record."""
        path = self.folder.path / record["path"]
        if path.is_file() and path.stat().st_size == record["bytes"]:
            return True
        self.folder.forget(record["id"])
        return False

    def _fail(self, source: Source, error: UnreadableVideo) -> None:
        self.failed.append(
            {"item": source.name, "reason": error.reason_code, "detail": error.detail}
        )


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


def _too_small(job: SplitJob, shown: tuple[int, int]) -> bool:
    if job.config.allow_upscale:
        return False
    return enlarged(shown, job.size) > 1


def _why_none(found: FoundShots, segments: int) -> str:
    scenes = counted(len(found.shots), "scene")
    if segments:
        return f"only {counted(segments, 'segment')} in {scenes}, which make no clip"
    lengths = (
        found.clock.start_of(shot.end) - found.clock.start_of(shot.first) for shot in found.shots
    )
    longest = max(lengths, default=0) / MICRO
    return f"the longest of {scenes} has {longest:.2f} s"


def _frames(info: VideoInfo) -> int:
    return round((info.duration or 0.0) * float(info.fps or _USUAL_FPS))


def _bytes_per_clip(job: SplitJob) -> float:
    quality = 2 ** ((17 - job.config.crf) / 6)  # H.264: six steps halve or double the bytes
    return job.clip_frames * job.size[0] * job.size[1] * _BITS_PER_PIXEL / 8 * quality
