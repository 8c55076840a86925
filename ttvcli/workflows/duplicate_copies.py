"""Altered copies of videos, as they come back from the web: what a duplicate filter has to find.

Used by the benchmark and by tests. A copy is made from the decoded frames of a part of a source.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from math import inf
from pathlib import Path
from typing import Any

import av
import numpy as np

from ttvcli.core.video.decode import open_video
from ttvcli.core.video.picture import PictureReader
from ttvcli.core.video.resample import resample

_DEFAULT_FPS = Fraction(25)


@dataclass(frozen=True)
class Alteration:
    """How a copy differs from its source; shares are of the frame's width or height."""

    group: str  # row of the table of results
    codec: str = "libx264"
    crf: int = 23
    scale: float = 1.0
    crop: float = 0.0  # share cut from each of the four sides
    bars: float = 0.0  # share of the height that is black, above and below
    start: float = 0.0  # trimmed seconds
    end: float = 0.0
    fps: int | None = None


SOURCE = Alteration("source", crf=16)  # the excerpt itself, as a file
ALTERATIONS: dict[str, Alteration] = {
    "crf 35": Alteration("re-encoded", crf=35),
    "crf 40": Alteration("re-encoded", crf=40),
    "crf 45": Alteration("re-encoded", crf=45),
    "MPEG-4": Alteration("re-encoded", codec="mpeg4"),
    "VP9": Alteration("re-encoded", codec="libvpx-vp9", crf=40),
    "15 fps": Alteration("re-encoded", fps=15),
    "1/2 size": Alteration("scaled", scale=0.5),
    "1/4 size": Alteration("scaled", scale=0.25),
    "3/2 size": Alteration("scaled", scale=1.5),
    "crop 1 %": Alteration("cropped", crop=0.01),
    "crop 2 %": Alteration("cropped", crop=0.02),
    "crop 3 %": Alteration("cropped", crop=0.03),
    "crop 5 %": Alteration("cropped", crop=0.05),
    "bars 12 %": Alteration("letterboxed", bars=0.12),
    "trim start": Alteration("trimmed", start=0.57),
    "trim both": Alteration("trimmed", start=0.33, end=0.41),
    "all": Alteration("all at once", crf=32, scale=0.5, crop=0.02, start=0.3, end=0.2, fps=24),
}


@dataclass(frozen=True)
class Excerpt:
    """A decoded part of a video: uint8 RGB `[H, W, 3]` with seconds from its start."""

    frames: list[tuple[Fraction, np.ndarray]]
    fps: Fraction


def read_excerpt(
    source: Path, first: float = 0.0, last: float = inf, *, width: int = 320
) -> Excerpt:
    """Decode seconds `first` to `last` at `width` pixels; ValueError if nothing is there."""
    with open_video(source) as video:
        info = video.info
        height = round(width * info.height / info.width / 2) * 2
        convert = PictureReader(info.sample_aspect, (width, height))
        kept = []
        for frame in video.frames():
            if frame.time >= last:
                break
            if frame.time >= first:
                kept.append((frame.time, convert(frame.picture)))
    if not kept:
        raise ValueError(f"{source.name} has no frame between {first} and {last} s")
    zero = kept[0][0]
    return Excerpt([(time - zero, picture) for time, picture in kept], info.fps or _DEFAULT_FPS)


def write_copy(excerpt: Excerpt, target: Path, change: Alteration) -> Path:
    """Write the altered copy of an excerpt."""
    rate = Fraction(change.fps) if change.fps else excerpt.fps
    end = excerpt.frames[-1][0] + 1 / excerpt.fps - Fraction(change.end)
    kept = [item for item in excerpt.frames if change.start <= item[0] < end]
    if not kept:
        raise ValueError(f"nothing is left of {float(end):.2f} s trimmed by {change.start} s")
    zero = kept[0][0]
    pictures = resample(((time - zero, shown) for time, shown in kept), rate, end - zero)
    _encode(target, (_changed(picture, change) for picture in pictures), rate, change)
    return target


def _changed(picture: np.ndarray, change: Alteration) -> np.ndarray:
    height, width = picture.shape[:2]
    top, left = round(height * change.crop), round(width * change.crop)
    picture = picture[top : height - top, left : width - left]
    black = round(height * change.bars)
    return np.pad(picture, ((black, black), (0, 0), (0, 0))) if black else picture


def _encode(
    target: Path, pictures: Iterator[np.ndarray], rate: Fraction, change: Alteration
) -> None:
    with av.open(str(target), "w") as container:
        stream: Any = container.add_stream(change.codec, rate=rate)
        stream.codec_context.thread_count = 1
        stream.pix_fmt = "yuv420p"
        if change.codec == "mpeg4":
            stream.bit_rate = 600_000
        else:
            fast = "preset" if change.codec == "libx264" else "cpu-used"
            stream.options = {"crf": str(change.crf), fast: "veryfast" if fast == "preset" else "8"}
        for index, picture in enumerate(pictures):
            height, width = (max(round(n * change.scale / 2) * 2, 16) for n in picture.shape[:2])
            if index == 0:
                stream.height, stream.width = height, width
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame = frame.reformat(width=width, height=height, format="yuv420p")
            frame.pts, frame.time_base = index, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
