"""Shots of a video: runs of frames between cuts, fades and dissolves.

A detector is fed every frame and tells where one shot ends and the next begins. `find_shots` feeds
it in the one pass that also learns the true length of a file and that it is sound. What is kept of
a frame is its time: 8 bytes.
"""

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import av

from ttvcli.core.video.decode import VideoInfo, open_video
from ttvcli.core.video.timeline import TimedFrame

MICRO = 1_000_000  # units of a second in a Clock


@dataclass(frozen=True, order=True)
class Transition:
    """Where one shot becomes the next: frames `first` to `end - 1` belong to neither.

    A hard cut has none of them: `first == end`, the first frame of the new shot.
    """

    first: int
    end: int


@dataclass(frozen=True)
class Shot:
    """Frames `first` to `end - 1` of one shot."""

    first: int
    end: int


class ShotDetector(Protocol):
    """Sees every frame of one video in order."""

    def push(self, picture: av.VideoFrame) -> None:
        """Take the next decoded frame."""

    def finish(self) -> list[Transition]:
        """Return what was found, in any order; called once, after the last frame."""


class NoDetector:
    """Finds nothing: the video is one shot."""

    def __init__(self, threshold: float = 0.0) -> None:
        pass

    def push(self, picture: av.VideoFrame) -> None:
        """Drop it."""

    def finish(self) -> list[Transition]:
        """Return nothing."""
        return []


class Clock:
    """When each frame of a video is shown, in whole microseconds from its first frame.

    Args:
        times: of every frame, strictly increasing from 0.
        end: when the last frame ends.
    """

    # Times were rounded: what differs by less is equal.
    _SAME = 2

    def __init__(self, times: Sequence[int], end: int) -> None:
        if not times or end <= times[-1]:
            raise ValueError(f"{len(times)} frames cannot end at {end}")
        self.times = times
        self.end = end

    def __len__(self) -> int:
        return len(self.times)

    def start_of(self, frame: int) -> int:
        """When a frame begins; the number after the last one gives the end of the video."""
        return self.end if frame == len(self.times) else self.times[frame]

    def nearest(self, time: Fraction, shot: Shot) -> int:
        """Return the frame of `shot` that begins nearest to `time`, the earlier one on a tie."""
        later = bisect_left(self.times, time, shot.first, shot.end)
        if later == shot.end:
            return shot.end - 1
        if later == shot.first:
            return later
        before, after = time - self.times[later - 1], self.times[later] - time
        return later - 1 if before <= after + self._SAME else later


@dataclass(frozen=True)
class FoundShots:
    """What one pass over a video showed."""

    info: VideoInfo
    clock: Clock
    shots: list[Shot]


def find_shots(
    path: str | Path, detector: ShotDetector, advance: Callable[[TimedFrame], None] | None = None
) -> FoundShots:
    """Decode a whole file once and find its shots; `advance` is called with every frame.

    Raises:
        UnreadableVideo: corrupt or truncated.
    """
    times = array("q")
    end = Fraction(0)
    with open_video(path) as video:
        for frame in video.frames():
            time = round(frame.time * MICRO)
            times.append(max(time, times[-1] + 1) if times else time)
            end = frame.end
            detector.push(frame.picture)
            if advance is not None:
                advance(frame)
        clock = Clock(times, max(round(end * MICRO), times[-1] + 1))
        return FoundShots(video.info, clock, split_at(len(times), detector.finish()))


def split_at(frames: int, transitions: Iterable[Transition]) -> list[Shot]:
    """Return the shots that transitions leave of a video of `frames` frames."""
    shots = []
    first = 0
    for transition in sorted(transitions):
        if not 0 <= transition.first <= transition.end <= frames:
            raise ValueError(f"{transition} is outside a video of {frames} frames")
        if transition.first > first:
            shots.append(Shot(first, transition.first))
        first = max(first, transition.end)
    if first < frames:
        shots.append(Shot(first, frames))
    return shots
