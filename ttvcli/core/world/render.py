"""Draw scenes: anti-aliased shapes from signed distances, at any frame size, as a stream.

Each object is drawn in a window that just holds it, for all frames of a segment at once, and then
blended into the frames. Memory stays at one segment whatever the length of the clip.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from ttvcli.core.world.scene import FPS, Floats, Scene, segment_moments
from ttvcli.core.world.vocabulary import BACKGROUNDS, COLOURS

Frames = NDArray[np.uint8]

TEXTURE_CELLS = 8  # stripes and squares per frame: one period is a quarter of the frame
_OVERSAMPLING = 4
_PENTAGRAM_INNER = 0.46


def render_frame(scene: Scene, frame: int, size: int) -> Frames:
    """Draw one frame as uint8 [size, size, 3]."""
    index, u = scene.locate(frame)
    return _render(scene, index, np.array([u]), size)[0]


def render_frames(scene: Scene, size: int, fps: int = FPS) -> Iterator[Frames]:
    """Yield every frame in order, uint8 [size, size, 3]; 3 fps n + 1 frames for n segments."""
    for index in range(len(scene.segments)):
        yield from _render(scene, index, segment_moments(scene, index, fps), size)


def render_clip(scene: Scene, size: int) -> Frames:
    """Draw the whole clip as uint8 [frames, size, size, 3]."""
    return np.stack(list(render_frames(scene, size)))


def render_background(name: str, size: int) -> Floats:
    """Draw an empty background as float [size, size, 3] in 0..255."""
    if size < 8:
        raise ValueError(f"frame size {size} is below 8 pixels")
    first, second = (np.array(colour, dtype=np.float64) for colour in BACKGROUNDS[name])
    fine = (np.arange(size * _OVERSAMPLING) + 0.5) / (size * _OVERSAMPLING)
    across, down = fine[None, :], fine[:, None]
    if name == "vertical gradient":
        mix = down + 0 * across
    elif name == "horizontal gradient":
        mix = across + 0 * down
    elif name == "stripes":
        mix = np.floor(across * TEXTURE_CELLS) % 2 + 0 * down
    elif name == "checkerboard":
        mix = (np.floor(across * TEXTURE_CELLS) + np.floor(down * TEXTURE_CELLS)) % 2
    else:
        mix = 0 * across + 0 * down
    mix = mix.reshape(size, _OVERSAMPLING, size, _OVERSAMPLING).mean(axis=(1, 3))
    drawn: Floats = first + (second - first) * mix[..., None]
    return drawn


def coverage(shape: str, x: Floats, y: Floats, pixel: Floats | float) -> Floats:
    """Return the share of each pixel that a shape of radius 1 around the origin covers.

    `x` and `y` are pixel centres and `pixel` the width of a pixel, all in radii.
    """
    share: Floats = np.clip(0.5 - _DISTANCES[shape](x, y) / pixel, 0, 1)
    return share


def _render(scene: Scene, index: int, moments: Floats, size: int) -> Frames:
    segment = scene.segments[index]
    background = render_background(segment.background, size).astype(np.float32)
    frames = np.repeat(background[None], len(moments), axis=0)
    for item in segment.objects:
        x, y, radius = (size * value for value in item.at(moments))
        window = int(2 * np.ceil(radius.max()) + 3)
        left = np.floor(x - window / 2).astype(int)
        top = np.floor(y - window / 2).astype(int)
        grid = np.arange(window) + 0.5
        across = ((left - x)[:, None] + grid) / radius[:, None]
        down = ((top - y)[:, None] + grid) / radius[:, None]
        alpha = coverage(
            item.shape, across[:, None, :], down[:, :, None], 1 / radius[:, None, None]
        ).astype(np.float32)
        colour = np.array(COLOURS[item.colour], dtype=np.float32)
        for picture, mask, x0, y0 in zip(frames, alpha, left, top, strict=True):
            _blend(picture, mask, colour, int(x0), int(y0))
    return np.rint(frames).astype(np.uint8)


def _blend(
    picture: NDArray[np.float32],
    mask: NDArray[np.float32],
    colour: NDArray[np.float32],
    left: int,
    top: int,
) -> None:
    """Lay a colour over a picture through a mask whose corner may lie outside of the picture."""
    size, window = len(picture), len(mask)
    x0, x1 = max(left, 0), min(left + window, size)
    y0, y1 = max(top, 0), min(top + window, size)
    if x0 >= x1 or y0 >= y1:
        return
    part = mask[y0 - top : y1 - top, x0 - left : x1 - left, None]
    view = picture[y0:y1, x0:x1]
    view += part * (colour - view)


def _circle(x: Floats, y: Floats) -> Floats:
    return np.hypot(x, y) - 1


def _ring(x: Floats, y: Floats) -> Floats:
    return np.abs(np.hypot(x, y) - 0.77) - 0.23


def _box(x: Floats, y: Floats, half_width: float, half_height: float) -> Floats:
    across, down = np.abs(x) - half_width, np.abs(y) - half_height
    outside = np.hypot(np.maximum(across, 0), np.maximum(down, 0))
    return outside + np.minimum(np.maximum(across, down), 0)


def _square(x: Floats, y: Floats) -> Floats:
    return _box(x, y, 0.86, 0.86)


def _cross(x: Floats, y: Floats) -> Floats:
    return np.minimum(_box(x, y, 1.0, 0.34), _box(x, y, 0.34, 1.0))


def _triangle(x: Floats, y: Floats) -> Floats:
    # Upright, with its base at y = 0.8 and its tip at y = -1: three half-planes.
    slope = np.hypot(1.8, 1.0)
    side = (1.8 * np.abs(x) - (y + 1.0)) / slope
    return np.maximum(side, y - 0.8)


def _star(x: Floats, y: Floats) -> Floats:
    # One arm folded onto a half-plane: the edge from the tip to the inner corner.
    sector = np.pi / 5
    angle = np.arctan2(x, -y)
    folded = np.abs(np.mod(angle + sector, 2 * sector) - sector)
    distance = np.hypot(x, y)
    along, aside = distance * np.cos(folded), distance * np.sin(folded)
    edge_along = _PENTAGRAM_INNER * np.cos(sector) - 1.0
    edge_aside = _PENTAGRAM_INNER * np.sin(sector)
    length = np.hypot(edge_along, edge_aside)
    signed: Floats = ((along - 1.0) * edge_aside - aside * edge_along) / length
    return signed


_DISTANCES: dict[str, Callable[[Floats, Floats], Floats]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
    "ring": _ring,
}
