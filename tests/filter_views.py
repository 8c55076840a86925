"""Show frames to a meter without a file, and write a clip's facts by hand."""

from collections.abc import Iterable
from fractions import Fraction
from functools import cache
from typing import Any

import av
import numpy as np

from ttvcli.core.filters.filter import Clip
from ttvcli.core.filters.frame_view import Views
from ttvcli.core.video.decode import VideoInfo


def clip(**changes: Any) -> Clip:
    """A clip of 4 s, 1280x720, 24 fps, unless told otherwise; also takes fields of its info."""
    info = {
        "container": "mov",
        "codec": "h264",
        "pixel_format": "yuv420p",
        "width": 1280,
        "height": 720,
        "rotation": 0,
        "sample_aspect": Fraction(1),
        "fps": Fraction(24),
        "duration": 4.0,
    }
    info |= {
        name: changes.pop(name) for name in list(changes) if name in info and name != "duration"
    }
    facts: dict[str, Any] = {"frames": 96, "duration": Fraction(4), "video_bytes": 10**6, **changes}
    return Clip(info=VideoInfo(**info), **facts)  # type: ignore[arg-type]


def metrics_of(meter: Any, pictures: Iterable[np.ndarray], fps: int = 24) -> dict[str, Any]:
    """What a meter measures on pictures: uint8 luma `[H, W]` or RGB `[H, W, 3]`."""
    views = Views(Fraction(1))
    count = 0
    for count, picture in enumerate(pictures, start=1):
        form = "gray" if picture.ndim == 2 else "rgb24"
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format=form)
        meter.see(views.view(count - 1, (count - 1) / fps, frame))
    return meter.finish(clip(frames=count, duration=Fraction(count, fps)))


@cache
def texture(height: int = 180, width: int = 320, seed: int = 0, smooth: float = 60.0) -> np.ndarray:
    """A picture of soft random structure, uint8 `[H, W]`; a larger `smooth` is softer."""
    noise = np.random.default_rng(seed).normal(size=(height, width))
    squared = np.fft.fftfreq(height)[:, None] ** 2 + np.fft.fftfreq(width)[None, :] ** 2
    soft = np.fft.ifft2(np.fft.fft2(noise) * np.exp(-squared * smooth)).real
    return np.clip((soft - soft.mean()) / soft.std() * 45 + 128, 0, 255).astype(np.uint8)
