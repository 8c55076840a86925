"""The frames that stand for the segments of a video, in one pass over the file.

T frames, H and W pixels. Only the frames of the segments that are open are held.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ttvcli.core.video.decode import Video, open_video
from ttvcli.core.video.picture import PictureReader
from ttvcli.core.video.timeline import TimedFrame

_TOLERANCE = 1e-4  # seconds; times in manifests are rounded
_BEYOND = 0.5  # seconds after the last frame for which it still stands


@dataclass(frozen=True)
class FrameChoice:
    """Which frames of a segment: so many, evenly spaced, or so many a second from its start."""

    count: int = 0
    fps: float = 0.0
    longest: int = 0  # pixels of the longer side, larger pictures are scaled down; 0 keeps the size

    def __post_init__(self) -> None:
        if (self.count < 1) == (self.fps <= 0):
            raise ValueError(f"give either a count or fps, got {self.count} and {self.fps}")

    def moments(self, start: float, end: float) -> list[float]:
        """Return the seconds at which a segment is looked at, at least one."""
        if self.count:
            step = (end - start) / self.count
            return [start + (place + 0.5) * step for place in range(self.count)]
        return [start + i / self.fps for i in range(max(round((end - start) * self.fps), 1))]


@dataclass(frozen=True)
class SegmentFrames:
    """The pictures of one segment: uint8 RGB `[T, H, W, 3]`, and when each is shown, in seconds."""

    number: int  # of its span in the list that was asked for
    frames: np.ndarray
    times: list[float]


def read_segments(
    path: str | Path,
    spans: list[tuple[float, float]],
    choice: FrameChoice,
    advance: Callable[[], None] = lambda: None,
) -> Iterator[SegmentFrames]:
    """Yield the chosen frames of each span (start, end in seconds) as soon as they are decoded.

    A frame is shown until the next one. Spans that begin after the video has ended are left out.
    `advance` is called for every frame decoded.

    Raises:
        UnreadableVideo: at once, or where damage is found; spans before it have been yielded.
    """
    wanted = sorted(
        (moment, number)
        for number, (start, end) in enumerate(spans)
        for moment in choice.moments(start, end)
    )
    if wanted:
        with open_video(path) as video:
            yield from _gather(video, wanted, choice, advance)


def _gather(
    video: Video,
    wanted: list[tuple[float, int]],
    choice: FrameChoice,
    advance: Callable[[], None],
) -> Iterator[SegmentFrames]:
    read = PictureReader(video.info.sample_aspect, _size(video, choice.longest))
    left = [0] * (1 + max(number for _, number in wanted))
    for _, number in wanted:
        left[number] += 1
    open_spans: dict[int, tuple[list[np.ndarray], list[float]]] = {}
    for moment, number, picture in _shown(video, wanted, read, advance):
        pictures, times = open_spans.setdefault(number, ([], []))
        pictures.append(picture)
        times.append(moment)
        if len(pictures) == left[number]:
            del open_spans[number]
            yield SegmentFrames(number, np.stack(pictures), times)


def _shown(
    video: Video, wanted: list[tuple[float, int]], read: Any, advance: Callable[[], None]
) -> Iterator[tuple[float, int, np.ndarray]]:
    """Yield (moment, span, picture) for every moment that lies within the video."""
    at, before, picture = 0, None, None
    for frame in video.frames():
        advance()
        while before is not None and wanted[at][0] < frame.seconds - _TOLERANCE:
            picture = read(before.picture) if picture is None else picture
            yield *wanted[at], picture
            at += 1
            if at == len(wanted):
                return
        before, picture = frame, None
    if before is None:
        return
    end = _end(before)
    while at < len(wanted) and wanted[at][0] < end:
        picture = read(before.picture) if picture is None else picture
        yield *wanted[at], picture
        at += 1


def _end(frame: TimedFrame[Any]) -> float:
    return float(frame.end) + _BEYOND


def _size(video: Video, longest: int) -> tuple[int, int]:
    """One size for all frames, also of a joined recording that changes its size."""
    width, height = video.info.width, video.info.height
    if not longest or max(width, height) <= longest:
        return width, height
    scale = longest / max(width, height)
    return max(round(width * scale), 1), max(round(height * scale), 1)
