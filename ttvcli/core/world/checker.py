"""Measure a clip of the tiny world: which object is seen, how it moves, and how steady all is.

What is found is decided from the frames alone. What was asked for is used afterwards: to pair
found objects with asked ones, and to score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ttvcli.core.world.classify import (
    border_cuts,
    centre_and_radius,
    classify_motion,
    classify_shape,
)
from ttvcli.core.world.detect import Blob, detect, object_pixels
from ttvcli.core.world.render import render_background
from ttvcli.core.world.scene import SEGMENT_FRAMES
from ttvcli.core.world.vocabulary import BACKGROUNDS

WORKING_SIZE = 64  # larger frames are averaged down to about this many pixels
SCORES = ("colour", "shape", "motion")


@dataclass(frozen=True)
class FoundObject:
    """An object seen in a clip; distances in frame widths."""

    shape: str | None
    colour: str
    motion: str | None
    shape_fit: float  # mean overlap with the ideal shape, 0 to 1
    rgb: tuple[float, float, float]
    found_share: float  # of the frames
    track: tuple[tuple[float, float, float, bool], ...]  # x, y, radius, found; one per frame


@dataclass(frozen=True)
class CheckResult:
    """What a clip shows beside what was asked for.

    A score is None when the prompt leaves it open. `found_share` is the share of frames that show
    every asked object, `flicker` the mean change of a background pixel between frames in 0..255
    levels, `background_error` the mean distance of the background, averaged over time, from the
    one that it resembles most.
    """

    found: tuple[FoundObject, ...]
    colour: bool | None
    shape: bool | None
    motion: bool | None
    background: bool | None
    seen_background: str | None
    missing_objects: int
    extra_objects: int
    found_share: float
    flicker: float
    background_error: float

    @property
    def correct(self) -> bool:
        """Whether nothing that was asked for is wrong and nothing is missing or extra."""
        scores = (self.colour, self.shape, self.motion, self.background)
        return False not in scores and not self.missing_objects and not self.extra_objects

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {**asdict(self), "correct": self.correct}


def check_clip(frames_THWC: NDArray[np.uint8], expected: dict[str, Any]) -> CheckResult:
    """Compare a clip of one segment with what was asked for, in the form that `parse` returns."""
    if frames_THWC.ndim != 4 or frames_THWC.shape[-1] != 3 or frames_THWC.dtype != np.uint8:
        raise ValueError(
            f"expected uint8 frames [T, H, W, 3], got {frames_THWC.dtype} {frames_THWC.shape}"
        )
    frames = reduce_frames(frames_THWC)
    found = [_name(blob, frames.shape[2]) for blob in detect(frames)]
    asked = expected["objects"]
    paired = _pair(found, asked)
    scores = {
        key: _score(key, [(seen, want) for seen, want in zip(paired, asked, strict=True)])
        for key in SCORES
    }
    seen_background, error, flicker = check_background(frames)
    wanted = expected.get("background")
    pairs = sum(item is not None for item in paired)
    visible = [
        np.array([item is not None and point[3] for point in item.track])
        for item in paired
        if item is not None
    ]
    return CheckResult(
        found=tuple(found),
        **scores,
        background=None if wanted is None else wanted == seen_background,
        seen_background=seen_background,
        missing_objects=len(asked) - pairs,
        extra_objects=len(found) - pairs,
        found_share=_share(visible, len(asked)),
        flicker=flicker,
        background_error=error,
    )


def check_segments(
    frames_THWC: NDArray[np.uint8], expected: Sequence[dict[str, Any]]
) -> list[CheckResult]:
    """Check a long clip segment by segment: 48 frames each, and the last frame with the last."""
    wanted = SEGMENT_FRAMES * len(expected)
    if len(frames_THWC) not in (wanted, wanted + 1):
        raise ValueError(
            f"{len(expected)} segments need {wanted + 1} frames, got {len(frames_THWC)}"
        )
    # The frame after a segment may belong to another scene: only the last segment has one more.
    ends = [*range(SEGMENT_FRAMES, wanted, SEGMENT_FRAMES), len(frames_THWC)]
    return [
        check_clip(frames_THWC[number * SEGMENT_FRAMES : end], one)
        for number, (end, one) in enumerate(zip(ends, expected, strict=True))
    ]


def summarise(results: Sequence[CheckResult]) -> dict[str, float]:
    """Return the share of clips that are right in each respect, and mean steadiness."""
    if not results:
        raise ValueError("no results to summarise")
    table: dict[str, float] = {"clips": len(results)}
    for key in (*SCORES, "background"):
        judged = [getattr(result, key) for result in results if getattr(result, key) is not None]
        if judged:
            table[key] = float(np.mean(judged))
    table["correct"] = float(np.mean([result.correct for result in results]))
    table["extra_objects"] = float(np.mean([result.extra_objects > 0 for result in results]))
    for key in ("found_share", "flicker", "background_error"):
        table[key] = float(np.mean([getattr(result, key) for result in results]))
    fits = [item.shape_fit for result in results for item in result.found]
    table["shape_fit"] = float(np.mean(fits)) if fits else 0.0
    return table


def _name(blob: Blob, width: int) -> FoundObject:
    shape, fit = classify_shape(blob)
    x, y, radius = (values / width for values in centre_and_radius(blob, shape or "circle"))
    track = zip(x, y, radius, blob.found_T, strict=True)
    return FoundObject(
        shape=shape,
        colour=blob.colour,
        motion=classify_motion(x, y, radius, blob.found_T, border_cuts(blob)),
        shape_fit=fit,
        rgb=blob.rgb,
        found_share=float(blob.found_T.mean()),
        track=tuple((float(a), float(b), float(c), bool(seen)) for a, b, c, seen in track),
    )


def _pair(
    found: Sequence[FoundObject], asked: Sequence[dict[str, Any]]
) -> list[FoundObject | None]:
    """Give each asked object a found one: most colours right first, larger objects on a tie."""
    pool: list[FoundObject | None] = [*found, *([None] * len(asked))]
    best: list[FoundObject | None] = [None] * len(asked)
    best_rank = (-1, -1)
    for choice in permutations(pool, len(asked)):
        named = [(item, want) for item, want in zip(choice, asked, strict=True) if item]
        rank = (sum(item.colour == want["colour"] for item, want in named), len(named))
        if rank > best_rank:
            best, best_rank = list(choice), rank
    return best


def _score(key: str, pairs: Sequence[tuple[FoundObject | None, dict[str, Any]]]) -> bool | None:
    judged = [(seen, want[key]) for seen, want in pairs if want[key] is not None]
    if not judged:
        return None
    return all(seen is not None and getattr(seen, key) == want for seen, want in judged)


def _share(visible: Sequence[NDArray[np.bool_]], asked: int) -> float:
    if len(visible) < asked:
        return 0.0
    return float(np.mean(np.all(visible, axis=0))) if asked else 1.0


def check_background(frames: NDArray[np.uint8]) -> tuple[str | None, float, float]:
    """Return the most similar background, the mean distance from it, and the flicker."""
    empty = ~object_pixels(frames)
    if not empty.any():
        return None, 255.0, 255.0
    pixels = frames.astype(np.float32)
    still = empty[1:] & empty[:-1]
    change = np.abs(np.diff(pixels, axis=0)) @ np.full(3, 1 / 3, np.float32)
    flicker = float(change[still].mean()) if still.any() else 255.0
    # The mean picture over time, each pixel from the frames in which nothing covers it.
    count = empty.sum(axis=0)
    picture = np.einsum("thwc,thw->hwc", pixels, empty) / np.maximum(count, 1)[..., None]
    height, width = frames.shape[1:3]
    errors = {}
    for name in BACKGROUNDS:
        ideal = render_background(name, max(height, width))[:height, :width]
        distance = np.abs(picture - ideal).mean(axis=-1)
        errors[name] = float(np.average(distance, weights=count))
    best = min(errors, key=lambda name: errors[name])
    return best, errors[best], flicker


def reduce_frames(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Average large frames down by a whole factor; checking needs no more than 64 pixels."""
    height, width = frames.shape[1:3]
    factor = min(height, width) // WORKING_SIZE
    if factor < 2:
        return frames
    cut = frames[:, : height // factor * factor, : width // factor * factor]
    parts = cut.reshape(len(cut), height // factor, factor, width // factor, factor, 3)
    return np.rint(parts.mean(axis=(2, 4))).astype(np.uint8)
