"""Videos whose frames carry their own number in their pixels, in scenes of clearly other colours.

The lower third of a frame holds twelve blocks, the bits of its number in Gray code: one block
changes from frame to frame, so that counting is no cut. They survive scaling and compression.
"""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

BITS = 12
SIZE = (192, 96)
LEVELS = (40, 200, 90, 250, 10, 150)  # greys of the scenes, in turn


def numbered_frame(number: int, grey: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Draw one frame, uint8 RGB `[H, W, 3]`."""
    width, height = size
    frame = np.full((height, width, 3), grey, np.uint8)
    frame[:, : width // 8, 2] //= 2  # some colour
    code = number ^ (number >> 1)
    block = width // BITS
    for bit in range(BITS):
        value = 235 if code >> bit & 1 else 20
        frame[height * 2 // 3 :, bit * block : (bit + 1) * block] = value
    return frame


def read_number(frame: np.ndarray) -> int:
    """Return the number that a frame carries."""
    height, width = frame.shape[:2]
    row = frame[height * 5 // 6 - 1 : height * 5 // 6 + 1].mean(axis=(0, 2))
    centres = [int((bit + 0.5) * width / BITS) for bit in range(BITS)]
    code = sum(int(row[x] > 128) << bit for bit, x in enumerate(centres))
    number = 0
    while code:
        number, code = number ^ code, code >> 1
    return number


def write_numbered(
    path: Path,
    scenes: Sequence[int],
    fps: int = 16,
    *,
    times: Sequence[int] | None = None,
    size: tuple[int, int] = SIZE,
    gain: Sequence[float] | None = None,
    aspect: Fraction | None = None,
) -> Path:
    """Write a video of scenes of so many frames each.

    Args:
        path: file to write; its suffix names the container.
        scenes: number of frames of each scene.
        fps: frames per second, unless `times` (milliseconds) say otherwise.
        times: when each frame starts.
        size: (width, height) in pixels.
        gain: brightness of each frame, 0 to 1.
        aspect: of a stored pixel.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    greys = [LEVELS[n % len(LEVELS)] for n, count in enumerate(scenes) for _ in range(count)]
    base = Fraction(1, 1000) if times is not None else Fraction(1, fps)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=fps)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.time_base = base
        stream.options = {"crf": "4", "preset": "ultrafast", "bf": "2"}
        stream.codec_context.thread_count = 1
        stream.codec_context.time_base = base
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        for number, grey in enumerate(greys):
            picture = numbered_frame(number, grey, size)
            if gain is not None:
                picture = (picture * gain[number]).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(
                format="yuv420p", threads=1
            )
            frame.pts = times[number] if times is not None else number
            frame.time_base = base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
