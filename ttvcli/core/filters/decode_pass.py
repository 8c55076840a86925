"""The one decode of a video: every frame goes through all meters, and nothing is held."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np

from ttvcli.core.filters.filter import Clip, Filter, Meter, Metrics
from ttvcli.core.filters.frame_view import FrameView, Views
from ttvcli.core.video.decode import VideoInfo, open_video
from ttvcli.core.video.timeline import TimedFrame

THUMBNAILS = 4
_THUMBNAIL_WIDTH = 128
_BUNCH, _BUNCH_BYTES = 15, 2 << 20  # frames that are decoded ahead at most, and their size
_UNSTATED = 8.0  # seconds that thumbnails are spread over if the file does not state its length


@dataclass(frozen=True)
class Measured:
    """What one pass found out about a video."""

    clip: Clip
    metrics: dict[str, Metrics]
    records: dict[str, Any] = field(default_factory=dict)
    thumbnails: list[np.ndarray] = field(default_factory=list)  # uint8 RGB, all of one size


def measure(
    path: str | Path,
    filters: Sequence[Filter],
    *,
    thumbnails: bool = False,
    beat: Callable[[int], None] | None = None,
) -> Measured:
    """Decode a video once and measure it with all filters.

    Args:
        path: the video.
        filters: what to measure.
        thumbnails: keep a few small pictures, evenly spaced.
        beat: called with the number of frames so far, every frame.

    Raises:
        UnreadableVideo: it cannot be decoded to its end.
    """
    meters = {entry.name: entry.meter() for entry in filters if entry.meter is not None}
    with open_video(path) as video:
        views = Views(video.info.sample_aspect)
        album = _Album(video.info) if thumbnails else None
        gaps = _Gaps()
        count = 0
        for bunch in _bunches(video.frames()):
            for view in views.views(count, ((timed.seconds, timed.picture) for timed in bunch)):
                for meter in meters.values():
                    meter.see(view)
                if album is not None:
                    album.see(view)
                count += 1
                if beat is not None:
                    beat(count)
            for timed in bunch:
                gaps.see(timed)
        clip = Clip(
            info=video.info,
            frames=count,
            duration=gaps.end,
            video_bytes=video.video_bytes,
            shortest=gaps.shortest,
            longest=gaps.longest,
            capture_fps=video.capture_fps,
        )
    return Measured(
        clip,
        {entry.name: _metrics(entry, meters.get(entry.name), clip) for entry in filters},
        {name: meter.record() for name, meter in meters.items() if hasattr(meter, "record")},
        album.pictures if album is not None else [],
    )


def _bunches(
    frames: Iterator[TimedFrame[av.VideoFrame]],
) -> Iterator[list[TimedFrame[av.VideoFrame]]]:
    """Decode a few small frames before any is looked at: the decoder and the filters take turns in
    the caches of the processor less often."""
    for first in frames:
        picture = first.picture
        size = picture.width * picture.height * 3 // 2
        yield [first, *islice(frames, min(_BUNCH_BYTES // size, _BUNCH))]


def _metrics(entry: Filter, meter: Meter | None, clip: Clip) -> Metrics:
    found = entry.facts(clip) if entry.facts is not None else {}
    return found | (meter.finish(clip) if meter is not None else {})


class _Gaps:
    """The shortest and the longest time between two frames, and when the last one is over."""

    def __init__(self) -> None:
        self._shortest = self._longest = 0  # ticks
        self._before: TimedFrame[Any] | None = None

    def see(self, frame: TimedFrame[Any]) -> None:
        before, self._before = self._before, frame
        if before is None:
            return
        finer = frame.rate // before.rate
        gap = frame.start - finer * before.start
        if finer != 1:
            self._shortest, self._longest = finer * self._shortest, finer * self._longest
        if gap > self._longest:
            self._longest = gap
        if gap < self._shortest or not self._shortest:
            self._shortest = gap

    @property
    def shortest(self) -> Fraction:
        return self._seconds(self._shortest)

    @property
    def longest(self) -> Fraction:
        return self._seconds(self._longest)

    @property
    def end(self) -> Fraction:
        return self._before.end if self._before is not None else Fraction(0)

    def _seconds(self, ticks: int) -> Fraction:
        return Fraction(ticks, self._before.rate) if self._before is not None else Fraction(0)


class _Album:
    """A few small pictures of a video, at even distances over its stated length."""

    def __init__(self, info: VideoInfo) -> None:
        width = min(_THUMBNAIL_WIDTH, max(info.width, 2))
        height = min(max(round(width * info.height / info.width), 2), 2 * width)
        self.size = (width, height)
        length = info.duration or _UNSTATED
        self.times = [length * (2 * number + 1) / (2 * THUMBNAILS) for number in range(THUMBNAILS)]
        self.pictures: list[np.ndarray] = []
        self._taken = 0

    def see(self, view: FrameView) -> None:
        due = self._taken < THUMBNAILS and view.time >= self.times[self._taken]
        if due or view.index == 0:
            picture = view.rgb(self.size)
            if self._taken:
                self.pictures.append(picture)
            else:  # the first frame stands in until a better one comes
                self.pictures = [picture]
            self._taken += due
