"""Name the shape and the motion of a found object."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ttvcli.core.world.detect import Blob
from ttvcli.core.world.render import coverage
from ttvcli.core.world.scene import Floats
from ttvcli.core.world.vocabulary import SHAPES

SHAPE_FRAMES = 12  # the largest views vote
EDGE_PIXELS = 1.8  # width of an edge after subsampled chroma and a mild blur
_SCALES = (0.94, 1.0, 1.06)

# All distances are fractions of the frame width. The world's own motions are well beyond: it
# travels 0.35 and more, bounces 0.25, orbits at 0.15 and changes its radius by 2.2 times.
MIN_TRAVEL = 0.2
MIN_SWING = 0.12
STILL_SPREAD = 0.09
SIZE_CHANGE = 1.4
MIN_TURN = 0.75
MIN_FOUND = 6
MIN_ABSENT = 3  # frames without the object that make it one that left or came
MIN_PASSAGE = 0.08  # travel of the visible part of such an object


def classify_shape(blob: Blob) -> tuple[str | None, float]:
    """Return the best fitting shape and its mean overlap (soft intersection over union)."""
    usable = np.flatnonzero(blob.found_T & ~border_cuts(blob))
    if not len(usable):
        usable = np.flatnonzero(blob.found_T)
    if not len(usable):
        return None, 0.0
    views = usable[np.argsort(-blob.area_T[usable], kind="stable")[:SHAPE_FRAMES]]
    scores = {
        shape: float(np.mean([_overlap(blob, int(view), shape) for view in views]))
        for shape in SHAPES
    }
    best = max(SHAPES, key=lambda shape: scores[shape])
    return best, scores[best]


def centre_and_radius(blob: Blob, shape: str) -> tuple[Floats, Floats, Floats]:
    """Return the track x, y, radius of an object of known shape, each [T], in pixels."""
    area, down = _moments(shape)
    radius = np.sqrt(blob.area_T / area)
    return blob.x_T, blob.y_T - down * radius, radius


def classify_motion(
    x: Floats,
    y: Floats,
    radius: Floats,
    found: NDArray[np.bool_],
    cut: NDArray[np.bool_] | None = None,
) -> str | None:
    """Name the motion of a track in frame widths, each [T]; None when it is none of the world's.

    `cut` marks the frames in which the border cuts the object: one that leaves or returns looks
    smaller there and travels less than its centre does.
    """
    if found.sum() < MIN_FOUND:
        return None
    passes = cut is not None and classify_event(found, cut) != ""
    x, y, radius = (_smooth(values[found]) for values in (x, y, radius))
    if passes:
        return _direction(x, y, MIN_PASSAGE, 1.25)  # the border bends the path of its middle
    spread_x, spread_y = np.ptp(x), np.ptp(y)
    start, end = np.median(radius[:4]), np.median(radius[-4:])
    steady = max(spread_x, spread_y) < MIN_TRAVEL
    if steady and max(end / start, start / end) > SIZE_CHANGE:
        return "grow" if end > start else "shrink"
    if max(spread_x, spread_y) < STILL_SPREAD:
        return "still"
    if min(spread_x, spread_y) > MIN_SWING and abs(_turns(x, y)) > MIN_TURN:
        return "circle"
    if spread_y > MIN_SWING and spread_y > 2 * spread_x and _reversals(y) >= 2:
        return "bounce"
    return _direction(x, y, MIN_TRAVEL)


def classify_event(found: NDArray[np.bool_], cut: NDArray[np.bool_]) -> str:
    """Return "leave" or "return" if the object is away at the end or the start, else "".

    Next to the time that it is away it has to be at the border.
    """
    if not found.any():
        return ""
    first, last = np.flatnonzero(found)[[0, -1]]
    if last < len(found) - MIN_ABSENT and cut[last]:
        return "leave"
    return "return" if first >= MIN_ABSENT and cut[first] else ""


def border_cuts(blob: Blob) -> NDArray[np.bool_]:
    """Return in which frames the object reaches the border, [T]."""
    solid = blob.alpha_THW > 0.5
    sides = solid[:, 0], solid[:, -1], solid[:, :, 0], solid[:, :, -1]
    touched: NDArray[np.bool_] = np.any([side.any(axis=1) for side in sides], axis=0)
    return touched


def _direction(x: Floats, y: Floats, least: float, straight: float = 2.0) -> str | None:
    travel_x, travel_y = x[-1] - x[0], y[-1] - y[0]
    along, aside = max(abs(travel_x), abs(travel_y)), min(np.ptp(x), np.ptp(y))
    if along < least or along < straight * aside:
        return None
    if abs(travel_x) > abs(travel_y):
        return "right" if travel_x > 0 else "left"
    return "down" if travel_y > 0 else "up"


def _overlap(blob: Blob, view: int, shape: str) -> float:
    """Fit a shape by area and centre of mass and return the best soft intersection over union."""
    alpha = blob.alpha_THW[view]
    area, down = _moments(shape)
    rows, columns = np.flatnonzero(alpha.any(axis=1)), np.flatnonzero(alpha.any(axis=0))
    top, left = max(rows[0] - 3, 0), max(columns[0] - 3, 0)
    cut = alpha[top : rows[-1] + 4, left : columns[-1] + 4]
    best = 0.0
    for scale in _SCALES:
        radius = scale * np.sqrt(blob.area_T[view] / area)
        x = (np.arange(cut.shape[1]) + left + 0.5 - blob.x_T[view]) / radius
        y = (np.arange(cut.shape[0]) + top + 0.5 - blob.y_T[view]) / radius + down
        template = coverage(shape, x[None, :], y[:, None], EDGE_PIXELS / radius)
        both = float(np.minimum(template, cut).sum() / np.maximum(template, cut).sum())
        best = max(best, both)
    return best


@lru_cache(maxsize=len(SHAPES))
def _moments(shape: str) -> tuple[float, float]:
    """Return a unit shape's area and how far its centre of mass lies below its origin."""
    steps = 400
    grid = (np.arange(steps) + 0.5) / steps * 2.4 - 1.2
    inside = coverage(shape, grid[None, :], grid[:, None], 2.4 / steps)
    down = float((inside.sum(axis=1) * grid).sum() / inside.sum())
    return float(inside.sum()) * (2.4 / steps) ** 2, down


def _smooth(values: Floats) -> Floats:
    """Median of three, so that one bad frame does not count."""
    padded = np.pad(values, 1, mode="edge")
    smooth: Floats = np.median(np.stack([padded[:-2], padded[1:-1], padded[2:]]), axis=0)
    return smooth


def _turns(x: Floats, y: Floats) -> float:
    """Return how many times a track winds around the middle of its own extent."""
    across, down = x - (x.max() + x.min()) / 2, y - (y.max() + y.min()) / 2
    angle = np.unwrap(np.arctan2(down, across))
    return float(angle[-1] - angle[0]) / (2 * np.pi)


def _reversals(values: Floats) -> int:
    """Count changes of direction that undo at least a third of the whole range."""
    least = np.ptp(values) / 3
    count, heading, extreme = 0, 0, float(values[0])
    for value in values:
        if heading == 0:
            if abs(value - extreme) >= least:
                heading, extreme = int(np.sign(value - extreme)), float(value)
        elif heading * (value - extreme) >= 0:
            extreme = float(value)
        elif abs(value - extreme) >= least:
            count, heading, extreme = count + 1, -heading, float(value)
    return count
