"""Find coloured objects in frames by their colour against a nearly gray background.

Works in the chroma plane, where mixing an object's colour with gray only shortens the vector: the
angle names the colour even at soft edges, and the length along the object's own colour is the
share of the pixel that it covers.

Shapes: T frames, H and W height and width in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ttvcli.core.world.scene import Floats
from ttvcli.core.world.vocabulary import COLOURS

Mask = NDArray[np.bool_]

GRAY_CHROMA = 45.0  # backgrounds stay below 30, the palest object colour reaches 125
OBJECT_CHROMA = 60.0
MIN_AREA = 0.004  # of the frame; the smallest star of the world covers 0.007
MIN_PRESENCE = 0.3  # of the frames, for a colour to count as an object
_COLOUR_NAMES = tuple(COLOURS)


@dataclass(frozen=True)
class Blob:
    """One object followed through the clip."""

    colour: str
    rgb: tuple[float, float, float]
    alpha_THW: NDArray[np.float32]  # soft mask of the largest connected part of each frame
    area_T: Floats  # pixels
    x_T: Floats  # centre of mass, pixels
    y_T: Floats
    found_T: Mask


def detect(frames_THWC: NDArray[np.uint8]) -> list[Blob]:
    """Return the objects of a clip, the largest first, without knowing what was asked for."""
    pixels = frames_THWC.astype(np.float32)
    chroma = _chroma(pixels)
    gray = np.hypot(chroma[..., 0], chroma[..., 1]) < GRAY_CHROMA
    if gray.any():
        chroma -= np.median(chroma[gray], axis=0)
    strength = np.hypot(chroma[..., 0], chroma[..., 1])
    strong = strength > OBJECT_CHROMA
    labels = _nearest_hue(chroma, range(len(_COLOUR_NAMES)))
    present = [
        colour for colour in range(len(_COLOUR_NAMES)) if _is_present(strong & (labels == colour))
    ]
    if not present:
        return []
    labels = _nearest_hue(chroma, present)
    blobs = [
        _follow(pixels, chroma, strength, strong & (labels == colour), labels == colour)
        for colour in present
    ]
    return _merge(sorted(blobs, key=lambda blob: -float(blob.area_T.sum())))


def object_pixels(frames_THWC: NDArray[np.uint8]) -> Mask:
    """Return where anything coloured is, with a rim of two pixels, [T, H, W]."""
    chroma = _chroma(frames_THWC.astype(np.float32))
    return grow_mask(np.hypot(chroma[..., 0], chroma[..., 1]) > GRAY_CHROMA, 2)


def largest_components(mask_THW: Mask) -> Mask:
    """Keep the largest 8-connected component of each frame."""
    count, height, width = mask_THW.shape
    index = np.arange(mask_THW.size, dtype=np.int64).reshape(mask_THW.shape)
    labels = np.where(mask_THW, index, -1)
    while True:
        spread = np.where(mask_THW, _neighbour_maximum(labels), -1)
        # A label is the index of a pixel of its component: jump to that pixel's own label.
        jumped = np.where(mask_THW, spread.ravel()[np.maximum(spread, 0)], -1)
        if np.array_equal(jumped, labels):
            break
        labels = jumped
    sizes = np.bincount(labels[mask_THW], minlength=mask_THW.size)
    best = sizes.reshape(count, height * width).argmax(axis=1) + np.arange(count) * height * width
    return mask_THW & (labels == best[:, None, None])


def grow_mask(mask_THW: Mask, pixels: int) -> Mask:
    """Widen a mask by some pixels in all eight directions."""
    wide = mask_THW.astype(np.int64)
    for _ in range(pixels):
        wide = _neighbour_maximum(wide)
    return wide.astype(bool)


def nearest_colour(rgb: tuple[float, float, float]) -> str:
    """Return the name of the palette colour nearest to an RGB value."""
    palette = np.array(list(COLOURS.values()), dtype=np.float64)
    return _COLOUR_NAMES[int(np.square(palette - np.array(rgb)).sum(axis=1).argmin())]


def _follow(
    pixels: NDArray[np.float32],
    chroma: NDArray[np.float32],
    strength: NDArray[np.float32],
    strong: Mask,
    own: Mask,
) -> Blob:
    # The more saturated half of the pixels is the inside: edges are mixed with the background.
    inside = strong & (strength >= np.median(strength[strong]))
    direction = np.median(chroma[inside], axis=0)
    rgb = np.median(pixels[inside], axis=0)
    alpha = np.clip(chroma @ direction / np.square(direction).sum(), 0, 1)
    alpha = np.where(own, alpha, 0)
    core = largest_components(alpha > 0.5)
    alpha = np.where(grow_mask(core, 2), alpha, 0).astype(np.float32)
    alpha[alpha < 0.1] = 0
    area = alpha.sum(axis=(1, 2), dtype=np.float64)
    height, width = alpha.shape[1:]
    found = area >= MIN_AREA * height * width
    weight = np.maximum(area, 1e-6)
    return Blob(
        colour=nearest_colour(tuple(rgb)),
        rgb=(float(rgb[0]), float(rgb[1]), float(rgb[2])),
        alpha_THW=alpha,
        area_T=np.where(found, area, 0.0),
        x_T=(alpha.sum(axis=1) @ (np.arange(width) + 0.5)) / weight,
        y_T=(alpha.sum(axis=2) @ (np.arange(height) + 0.5)) / weight,
        found_T=found,
    )


def _merge(blobs: list[Blob]) -> list[Blob]:
    """Drop blobs that are the rim or a patch of a larger one: two hues of one object, not two."""
    kept: list[Blob] = []
    for blob in blobs:
        seldom = blob.found_T.mean() < MIN_PRESENCE
        if not seldom and not any(_belongs(blob, larger) for larger in kept):
            kept.append(blob)
    return kept


def _belongs(blob: Blob, larger: Blob) -> bool:
    both = blob.found_T & larger.found_T
    if not both.any():
        return False
    distance = np.hypot(blob.x_T - larger.x_T, blob.y_T - larger.y_T)
    within = np.median((distance - 0.7 * np.sqrt(larger.area_T / np.pi))[both]) < 0
    own = blob.alpha_THW[both] > 0.5
    near = own & grow_mask(larger.alpha_THW[both] > 0.5, 2)
    return bool(within or near.sum() > 0.8 * own.sum())


def _is_present(mask: Mask) -> bool:
    area = mask.mean(axis=(1, 2))
    return bool((area >= MIN_AREA).mean() >= MIN_PRESENCE)


def _chroma(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    return np.stack([red - (green + blue) / 2, (green - blue) * 0.8660254], axis=-1)


def _nearest_hue(chroma: NDArray[np.float32], colours: range | list[int]) -> NDArray[np.int64]:
    palette = _chroma(np.array(list(COLOURS.values()), dtype=np.float32))[list(colours)]
    palette /= np.hypot(palette[:, :1], palette[:, 1:])
    nearest: NDArray[np.int64] = np.array(list(colours))[(chroma @ palette.T).argmax(axis=-1)]
    return nearest


def _neighbour_maximum(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Take the maximum over the 3x3 neighbourhood in each frame, rows and then columns."""
    rows = values.copy()
    np.maximum(rows[:, 1:], values[:, :-1], out=rows[:, 1:])
    np.maximum(rows[:, :-1], values[:, 1:], out=rows[:, :-1])
    both = rows.copy()
    np.maximum(both[:, :, 1:], rows[:, :, :-1], out=both[:, :, 1:])
    np.maximum(both[:, :, :-1], rows[:, :, 1:], out=both[:, :, :-1])
    return both
