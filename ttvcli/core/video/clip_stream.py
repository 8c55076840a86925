"""One source as a stream of events: where its clips lie, their frames, whether it was sound.

A video is decoded once. Where its clips lie is foretold from its packets, which costs next to
nothing, and compared with the frames once the last of them is decoded. If that differs, or if
anything was damaged, the stream begins anew after a pass that only decodes and thus knows for sure.
What was given before the last `Begin` is void, and so is everything once there is a `Broken`.
"""

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ttvcli.core.video.ahead import ahead
from ttvcli.core.video.decode import Video, VideoInfo, open_video, scan
from ttvcli.core.video.errors import UnreadableVideo
from ttvcli.core.video.picture import PictureReader
from ttvcli.core.video.resample import ClipPlan, ClipReader, output_frames, plan_clips, resample

if TYPE_CHECKING:
    import av
    import numpy as np

    from ttvcli.core.video.timeline import TimedFrame

_AHEAD = 4  # decoded frames that wait to be converted


@dataclass(frozen=True)
class Begin:
    """The source gives the clips of `cut`; nothing of it was given yet."""

    info: VideoInfo
    cut: ClipPlan


@dataclass(frozen=True)
class Frames:
    """The next chunk of a clip: uint8 RGB `[T, H, W, 3]`, T = 9, 8, 8, ...; channels as planes."""

    clip: int
    pictures: "np.ndarray"


@dataclass(frozen=True)
class End:
    """All clips were given, and the source is sound to its end."""


@dataclass(frozen=True)
class Broken:
    """The source cannot be used; see `UnreadableVideo`."""

    reason_code: str
    detail: str


Event = Begin | Frames | End | Broken


@dataclass(frozen=True)
class ClipTask:
    """A source, and the clips that are wanted of it."""

    path: Path
    size: tuple[int, int]  # width, height
    fps: Fraction
    frames: int  # of a clip, 8k + 1
    skip: frozenset[int] = frozenset()  # clips that nobody needs again
    suspect: bool = False  # known to be damaged: no clip before all of it was decoded
    threads: int = 1  # above 1, one decodes while others convert; the events are the same

    def events(self) -> Iterator[Event]:
        """Yield `Begin`, the frames of each clip in order, then `End` or `Broken`."""
        skip = self.skip
        try:
            if not self.suspect:
                foretold = yield from self._foretold_clips()
                if foretold == "sound":
                    yield End()
                    return
                skip = frozenset() if foretold == "wrong" else skip
            seen = scan(self.path, self.alive)
            if not self._cut(seen.duration).clips:
                need = self.frames / float(self.fps)
                raise UnreadableVideo("too_short", f"{float(seen.duration):.2f} s of {need:.2f} s")
            with open_video(self.path) as video:
                if not (yield from self._clips(video, seen.duration, skip)):
                    raise UnreadableVideo("changed")
            yield End()
        except UnreadableVideo as error:
            yield Broken(error.reason_code, error.detail)

    def _foretold_clips(self) -> Generator[Event, None, Literal["sound", "wrong", "unknown"]]:
        """Give the clips that the packets foretell, and tell whether they are what there is."""
        try:
            with open_video(self.path, foretell=True) as video:
                if video.foretold is None:
                    return "unknown"
                if not self._cut(video.foretold).clips:
                    return "wrong"
                sound = yield from self._clips(video, video.foretold, self.skip)
                return "sound" if sound else "wrong"
        except UnreadableVideo:  # a scan tells what is wrong
            return "wrong"

    def alive(self) -> None:
        """Called for every frame decoded, as many may be between two events."""

    def _cut(self, duration: Fraction) -> ClipPlan:
        return plan_clips(output_frames(duration, self.fps), self.frames)

    def _decoded(self, video: Video) -> "Generator[TimedFrame[av.VideoFrame], None, None]":
        frames = video.frames()
        return ahead(frames, _AHEAD) if self.threads > 1 else frames

    def _clips(
        self, video: Video, duration: Fraction, skip: frozenset[int]
    ) -> Generator[Event, None, bool]:
        """Give the clips of a video that lasts `duration` seconds; False if it does not.

        Raises:
            UnreadableVideo: it is damaged; clips before that have been given.
        """
        cut, last = self._cut(duration), None
        with closing(self._decoded(video)) as decoded:
            yield Begin(video.info, cut)

            def timed() -> "Iterator[tuple[Fraction, av.VideoFrame]]":
                nonlocal last
                for last in decoded:
                    self.alive()
                    yield last.time, last.picture

            frames = timed()
            picture = PictureReader(video.info.sample_aspect, self.size, threads=self.threads)
            shown = resample(frames, self.fps, duration)
            reader = ClipReader(shown, picture.into, self.frames, self.size)
            for number in range(cut.clips):
                if number in skip:
                    reader.skip()
                    continue
                for pictures in reader.chunks():
                    yield Frames(number, pictures)
            for _ in frames:  # the part that makes no clip may be damaged too
                pass
        end = last.end if last is not None else Fraction(0)
        return output_frames(end, self.fps) == output_frames(duration, self.fps)
