"""Small videos for tests: drawn ones of many kinds, and real ones out of installed packages."""

from collections.abc import Sequence
from fractions import Fraction
from importlib import metadata
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

COLOURS = {"top-left": (20, 200, 40), "left": (200, 40, 30), "right": (30, 60, 210)}


def drawn_frame(width: int = 64, height: int = 48, index: int = 0) -> np.ndarray:
    """Red left half, blue right half, a green block at the top left, a white line that moves."""
    frame = np.zeros((height, width, 3), np.uint8)
    frame[:, : width // 2] = COLOURS["left"]
    frame[:, width // 2 :] = COLOURS["right"]
    frame[: height // 2, : width // 4] = COLOURS["top-left"]
    frame[max(height - 4, 0), : index % width] = 255
    return frame


def make_video(
    path: Path,
    *,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    size: tuple[int, int] = (64, 48),
    frames: int = 12,
    fps: int = 12,
    times: Sequence[int] | None = None,
    values: Sequence[int] | None = None,
    rotation: int = 0,
    aspect: Fraction | None = None,
    matrix: int | None = None,
    transfer: int | None = None,
    color_range: int | None = None,
    sound: bool = False,
    options: dict[str, str] | None = None,
) -> Path:
    """Write a video; `times` are in milliseconds (a variable frame rate), `values` plain greys."""
    path.parent.mkdir(parents=True, exist_ok=True)
    base = Fraction(1, 1000) if times is not None else Fraction(1, fps)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=fps)
        stream.width, stream.height = size
        stream.pix_fmt = pixels
        stream.time_base = base
        if codec == "libx264":
            stream.options = {"crf": "4", "preset": "ultrafast"}
        stream.options = {**stream.options, **(options or {})}
        context = stream.codec_context
        context.thread_count = 1
        context.time_base = base
        if aspect is not None:
            context.sample_aspect_ratio = aspect
        if matrix is not None:
            context.colorspace = matrix
        if transfer is not None:
            context.color_trc = transfer
        if color_range is not None:
            context.color_range = color_range
        if rotation:
            stream.set_display_rotation(rotation)
        audio: Any = container.add_stream("aac", rate=8000, layout="mono") if sound else None
        count = len(times) if times is not None else len(values) if values is not None else frames
        for index in range(count):
            picture = drawn_frame(*size, index)
            if values is not None:
                picture[:] = values[index]
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(
                format=pixels, dst_colorspace=matrix, dst_color_range=color_range, threads=1
            )
            frame.pts = times[index] if times is not None else index
            frame.time_base = base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if audio is not None:
            _add_silence(container, audio, seconds=1)
    return path


def make_audio(path: Path) -> Path:
    """Write a file with a sound track only."""
    with av.open(str(path), "w") as container:
        audio: Any = container.add_stream("aac", rate=8000, layout="mono")
        _add_silence(container, audio, seconds=1)
    return path


def _add_silence(container: Any, stream: Any, seconds: int) -> None:
    for index in range(seconds * 8):
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
        )
        frame.sample_rate, frame.pts = 8000, index * 1024
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def cut_short(source: Path, target: Path, share: float) -> Path:
    """Write the first part of a file, as a broken download leaves it."""
    data = source.read_bytes()
    target.write_bytes(data[: int(len(data) * share)])
    return target


def real_video(package: str, name: str) -> Path:
    """Find a video inside an installed package, without importing it; skip the test if absent."""
    try:
        files = metadata.files(package) or []
    except metadata.PackageNotFoundError:
        pytest.skip(f"{package} is not installed (it is in the dev extra): no {name} to test on")
    for file in files:
        if file.name == name:
            return Path(str(file.locate())).resolve()
    pytest.skip(f"{package} has no {name} in this version")
