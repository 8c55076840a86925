"""Streaming H.264 writer whose bytes depend on the frames and the settings only."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation

PRESETS = (
    *("ultrafast", "superfast", "veryfast", "faster", "fast"),
    *("medium", "slow", "slower", "veryslow", "placebo"),
)
_BT709 = 1  # ITU-T H.273, for matrix, primaries and transfer alike
_EXACT = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT


def write_video(
    path: str | Path,
    frames: Iterable[np.ndarray],
    fps: float | Fraction,
    *,
    crf: int = 17,
    preset: str = "medium",
) -> int:
    """Encode frames to an `.mp4` as they come (H.264, yuv420p, BT.709, index first).

    One thread and no dates: equal frames give equal bytes on one machine. A key frame every second
    keeps seeking cheap. On an error the partial file is removed.

    Args:
        path: file to write; the folder must exist.
        frames: uint8 RGB `[H, W, 3]`, all of one even size.
        fps: frames per second.
        crf: quality; 0 is lossless, 17 looks the same as the source, 51 is worst.
        preset: effort of the encoder, one of PRESETS.

    Returns:
        The number of frames written.

    Raises:
        ValueError: no frames, or frames of another type, an odd size, or changing sizes.
        OSError: the file cannot be written.
    """
    path = Path(path)
    rate = Fraction(fps).limit_denominator(1001)
    if rate <= 0:
        raise ValueError(f"fps must be positive, got {fps}")
    if not 0 <= crf <= 51:
        raise ValueError(f"crf must be 0 to 51, got {crf}")
    if preset not in PRESETS:
        raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {preset!r}")
    iterator = iter(frames)
    first = next(iterator, None)
    if first is None:
        raise ValueError("a video needs at least one frame, got none")
    _check_frame(first, first.shape)
    options = {"movflags": "+faststart", "fflags": "+bitexact"}
    try:
        with av.open(str(path), "w", format="mp4", options=options) as container:
            stream = _add_stream(container, rate, first.shape, crf, preset)
            count = 0
            for frame in _chain(first, iterator):
                _check_frame(frame, first.shape)
                container.mux(stream.encode(_to_yuv(frame, count, rate)))
                count += 1
            container.mux(stream.encode(None))
    except BaseException:
        if path.is_file():  # never a device such as /dev/full
            path.unlink()
        raise
    return count


def _add_stream(
    container: Any, rate: Fraction, shape: tuple[int, ...], crf: int, preset: str
) -> Any:
    stream = container.add_stream("libx264", rate=rate)
    stream.height, stream.width = shape[:2]
    stream.pix_fmt = "yuv420p"
    stream.time_base = 1 / rate
    # x264's macroblock tree gives other bytes each time for some films (it seems to read memory it
    # never wrote), even with one thread; without it files are larger by half, and the same.
    stream.options = {"crf": str(crf), "preset": preset, "x264-params": "mbtree=0"}
    context = stream.codec_context
    context.gop_size = max(round(rate), 1)
    context.thread_count = 1
    context.colorspace = context.color_primaries = context.color_trc = _BT709
    context.color_range = ColorRange.MPEG
    return stream


def _to_yuv(frame: np.ndarray, index: int, rate: Fraction) -> av.VideoFrame:
    rgb = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
    yuv = rgb.reformat(
        format="yuv420p",
        dst_colorspace=Colorspace.ITU709,
        dst_color_range=ColorRange.MPEG,
        interpolation=_EXACT,
        threads=1,
    )
    yuv.pts = index
    yuv.time_base = 1 / rate
    return yuv


def _chain(first: np.ndarray, rest: Iterable[np.ndarray]) -> Iterable[np.ndarray]:
    yield first
    yield from rest


def _check_frame(frame: np.ndarray, shape: tuple[int, ...]) -> None:
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise ValueError(f"frames must be uint8 [H, W, 3], got {frame.dtype} {list(frame.shape)}")
    if frame.shape != shape:
        raise ValueError(f"frames must be of one size, got {list(frame.shape)} after {list(shape)}")
    height, width = frame.shape[:2]
    if height % 2 or width % 2:
        raise ValueError(f"yuv420p needs an even width and height, got {width}x{height}")
