"""Caption a clip of the tiny world from its frames alone: what a captioning model does for film."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ttvcli.core.world.checker import check_background, reduce_frames
from ttvcli.core.world.classify import (
    border_cuts,
    centre_and_radius,
    classify_event,
    classify_motion,
    classify_shape,
)
from ttvcli.core.world.detect import Blob, detect
from ttvcli.core.world.grammar import describe
from ttvcli.core.world.scene import WorldObject

MOST_OBJECTS = 2
# 157 rendered segments, 64 and 128 pixels, crf 10 and 23: at most 0.4, at least 0.84.
LARGEST_BACKGROUND_ERROR = 10.0  # levels of 0..255
LEAST_SHAPE_FIT = 0.6
_DIRECTIONS = ("left", "right", "up", "down")


@dataclass(frozen=True)
class Observation:
    """What is seen in a segment of the tiny world."""

    background: str
    objects: tuple[WorldObject, ...]

    def caption(self, rng: np.random.Generator) -> str:
        """Tell it in English; the wording is drawn, and the background is often left out."""
        return describe(self.background, self.objects, rng)


def observe(frames_THWC: NDArray[np.uint8]) -> Observation | None:
    """Name the objects, their motions and the background of one segment, 48 or 49 frames at 16 fps.

    Returns None when the frames do not show the tiny world.
    """
    if frames_THWC.ndim != 4 or frames_THWC.shape[-1] != 3 or frames_THWC.dtype != np.uint8:
        raise ValueError(
            f"expected uint8 frames [T, H, W, 3], got {frames_THWC.dtype} {frames_THWC.shape}"
        )
    frames = reduce_frames(frames_THWC)
    background, error, _ = check_background(frames)
    blobs = detect(frames)
    if background is None or error > LARGEST_BACKGROUND_ERROR or len(blobs) > MOST_OBJECTS:
        return None
    named = [_name(number, blob, frames.shape[2]) for number, blob in enumerate(blobs)]
    objects = tuple(item for item in named if item is not None)
    return Observation(background, objects) if len(objects) == len(blobs) else None


def _name(number: int, blob: Blob, width: int) -> WorldObject | None:
    shape, fit = classify_shape(blob)
    if shape is None or fit < LEAST_SHAPE_FIT:
        return None
    x, y, radius = (values / width for values in centre_and_radius(blob, shape))
    cut = border_cuts(blob)
    motion = classify_motion(x, y, radius, blob.found_T, cut)
    if motion is None:
        return None
    event = classify_event(blob.found_T, cut) if motion in _DIRECTIONS else ""
    first = int(np.flatnonzero(blob.found_T)[0])
    place = float(x[first]), float(y[first]), float(radius[first])
    return WorldObject(number, shape, blob.colour, motion, *place, event=event)
