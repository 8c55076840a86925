"""Look at one source, and cut it to clips: what the worker processes of `prep split` do.

Decoder and encoder share a process, so that a picture never leaves it. What goes to the process
that asked is how many frames were decoded, and what is known of each clip whose file is in place.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from ttvcli.artifacts.atomic import replacing, sha256_file
from ttvcli.core.filters.black_bars import BlackBars
from ttvcli.core.video.clip_stream import Broken
from ttvcli.core.video.crop import Edges, shown_inside
from ttvcli.core.video.decode import VideoInfo, check_file, open_video, probe
from ttvcli.core.video.encode import write_video
from ttvcli.core.video.errors import UnreadableVideo
from ttvcli.core.video.frame_picker import FramePicker
from ttvcli.core.video.picture import PictureReader
from ttvcli.core.video.resample import enlarged
from ttvcli.core.video.segments import Segment, assemble, clip_frames, cut_scenes, held_frames
from ttvcli.core.video.shots import MICRO, FoundShots, find_shots
from ttvcli.core.video.timeline import TimedFrame
from ttvcli.errors import counted
from ttvcli.workflows.encode_job import plain_number
from ttvcli.workflows.process_pool import Beats
from ttvcli.workflows.split_job import SplitJob
from ttvcli.workflows.split_records import Clip, source_cut, spans_of

_USUAL_FPS = Fraction(25)  # of a source that does not say

Beat = Callable[[Any], None]


@dataclass(frozen=True)
class Looked:
    """What a first look at a source shows."""

    sha256: str
    frames: int  # as its header tells
    seconds: float


@dataclass(frozen=True)
class LookTask:
    """A source to be looked at: is it a video at all, and which."""

    index: int  # of the source
    path: Path

    def do(self, beat: Beat) -> Looked:
        """Hash the file and open it."""
        try:
            check_file(self.path)
            digest = sha256_file(self.path, Beats(beat).alive)
            info = probe(self.path)
        except OSError as error:  # a broken disk or a network folder that went away
            raise UnreadableVideo("permission", error.strerror or "read error") from error
        return Looked(digest, stated_frames(info), info.duration or 0.0)


@dataclass(frozen=True)
class CutTask:
    """A source to be cut, all but the clips of it that are there."""

    index: int  # of the source
    path: Path
    sha256: str
    there: frozenset[int]
    job: SplitJob  # its sources are left out: a task is the same size however many there are
    threads: int  # for a network that finds shots

    def do(self, beat: Beat) -> None:
        """Find its scenes and write its clips; `beat` gets each `Clip`."""
        if self.job.config.detector == "transnetv2":
            import torch

            torch.set_num_threads(self.threads)
        beats, bars = Beats(beat), BlackBars()

        def see(frame: TimedFrame) -> None:
            bars.see(frame)
            beats(beats.frames + 1)

        with _reading():
            found = find_shots(self.path, self.job.make_detector(), see)
        edges = bars.edges() if self.job.config.bars == "crop" else Edges()
        shown = shown_inside(found.info, edges)
        if self.job.too_small(shown):
            inside = " inside its bars" if edges else ""
            shape = f"{shown[0]}x{shown[1]}{inside}"
            raise UnreadableVideo("too_small", f"{shape}; --allow-upscale takes it all the same")
        rule, per_clip = self.job.rule, self.job.per_clip
        segments, dropped = cut_scenes(found.clock, found.shots, rule)
        clips = assemble(segments, per_clip, within_scene=self.job.config.join == "scene")
        if not clips:
            raise UnreadableVideo("too_short", _why_none(found, len(segments)))
        about = source_cut(found, segments, dropped, len(clips) * per_clip, edges)
        self._cut(found, edges, asdict(about), clips, beat, beats)

    def _cut(
        self,
        found: FoundShots,
        edges: Edges,
        about: dict[str, Any],
        clips: list[tuple[Segment, ...]],
        beat: Beat,
        beats: Beats,
    ) -> None:
        rule, size, out = self.job.rule, self.job.size, self.job.config.out
        with open_video(self.path) as video:
            convert = PictureReader(found.info.sample_aspect, size, edges)
            frames = _sound(video.frames())
            picker = FramePicker(frames, convert, lambda: beats(beats.frames + 1))
            for number, clip in enumerate(clips):
                if number in self.there:
                    continue
                name = f"{self.sha256[:16]}-{number:04d}"
                path = out / f"{name}.mp4"
                shown = clip_frames(found.clock, clip, rule)
                self._write(path, picker.pick(shown))
                made = Clip(
                    id=name,
                    path=path.name,
                    sha256=sha256_file(path),
                    bytes=path.stat().st_size,
                    width=size[0],
                    height=size[1],
                    fps=plain_number(rule.fps),
                    frames=len(shown),
                    source_sha256=self.sha256,
                    clip=number,
                    clips=len(clips),
                    start=round(float(clip[0].start) / MICRO, 6),
                    held=held_frames(found.clock, clip, rule),
                    spans=spans_of(clip, rule),
                    cut=about,
                    notes=self._notes(found.info, edges),
                )
                beat(made)

    def _write(self, path: Path, frames: Iterator[Any]) -> None:
        rate, config = self.job.rule.fps, self.job.config
        with replacing(path) as temporary:
            write_video(temporary, frames, rate, crf=config.crf, preset=config.preset)

    def _notes(self, info: VideoInfo, edges: Edges) -> list[str]:
        factor = enlarged(shown_inside(info, edges), self.job.size)
        return [*info.notes, *([f"enlarged {factor:.2f} times"] if factor > 1 else [])]


Task = LookTask | CutTask


def work(task: Task, beat: Beat) -> Looked | Broken | None:
    """Do a task; `Broken` if its source cannot be used.

    Raises:
        OSError: a clip cannot be written.
    """
    try:
        return task.do(beat)
    except UnreadableVideo as error:
        return Broken(error.reason_code, error.detail)
    except OSError:
        raise
    except Exception as error:  # whatever one file does, the others are cut
        return Broken("crashed", f"{type(error).__name__}: {error}")


def stated_frames(info: VideoInfo) -> int:
    """Return how many frames a video has, as far as its header tells."""
    return round((info.duration or 0.0) * float(info.fps or _USUAL_FPS))


def _sound(frames: Iterable[TimedFrame]) -> Iterator[TimedFrame]:
    with _reading():
        yield from frames


@contextmanager
def _reading() -> Iterator[None]:
    """Tell errors of the source from those of the clips, which end the run."""
    try:
        yield
    except OSError as error:  # of the disk it is on, or the decoder's own
        raise UnreadableVideo("permission", error.strerror or "read error") from error


def _why_none(found: FoundShots, segments: int) -> str:
    scenes = counted(len(found.shots), "scene")
    if segments:
        return f"only {counted(segments, 'segment')} in {scenes}, which make no clip"
    lengths = (
        found.clock.start_of(shot.end) - found.clock.start_of(shot.first) for shot in found.shots
    )
    longest = max(lengths, default=0) / MICRO
    return f"the longest of {scenes} has {longest:.2f} s"
