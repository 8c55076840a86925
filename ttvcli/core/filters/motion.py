"""How much moves, and how steadily: optical flow between frames a quarter of a second apart.

The flow is Lucas and Kanade's least squares on blocks of 8 x 8 pixels over a pyramid of small
pictures, coarse to fine. Speeds are in per cent of the picture's height a second, so that they mean
the same for every size and frame rate.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from ttvcli.core.filters.cuts import is_jump
from ttvcli.core.filters.filter import Clip, Filter, Metrics, Rule, Spread, rounded
from ttvcli.core.filters.frame_view import FrameView

_SPAN = 0.25  # seconds between the two frames of a pair
_EVERY, _EVERY_LATER, _LATER = (
    1.0,
    2.0,
    8.0,
)  # seconds from one look to the next, at first and later
_TOGETHER = 8  # looks whose flows are computed together
_LEVELS = 3
_STEPS = (2, 2, 1)  # on each level, coarsest first
_BLOCK = 8
_TEXTURE = 8.0  # mean squared gradient in the weaker direction that a block needs to be followed
_FARTHEST = 4.0  # pixels that one step may move a block


@dataclass(frozen=True, kw_only=True)
class MotionLimits:
    """Thresholds in per cent of the picture's height a second."""

    min: float | None = field(default=0.3, metadata={"help": "% of the height a second, at least"})
    low: float | None = field(default=1.0, metadata={"help": "flagged below"})
    max: float | None = field(default=60.0, metadata={"help": "% of the height a second, at most"})
    shake: float | None = field(
        default=40.0, metadata={"help": "change of the camera's speed every 0.25 s, at most"}
    )


Pyramid = list[np.ndarray]  # float32 pictures, each half as large as the one before


class MotionMeter:
    """Takes three frames 0.25 s apart now and then: two flows, and how they differ."""

    def __init__(self) -> None:
        self._next = 0.0
        self._pictures: list[Pyramid] = []
        self._times: list[float] = []
        self._looks: list[tuple[list[Pyramid], list[float]]] = []  # that wait for their flows
        self._change = 0.0
        self._speeds = Spread()
        self._shakes = Spread()

    def see(self, view: FrameView) -> None:
        """Take the frame if one is due."""
        change, before = view.change or 0.0, self._change
        self._change = change
        if self._times and is_jump(before, change):
            self._pictures, self._times = [], []  # a cut is no motion
            self._next = view.time
        if view.time < self._next:
            return
        self._pictures.append(pyramid(view.small))
        self._times.append(view.time)
        if len(self._times) < 3:
            self._next = self._times[0] + _SPAN * len(self._times)
            return
        self._looks.append((self._pictures, self._times))
        if len(self._looks) == _TOGETHER:
            self._follow_looks()
        every = _EVERY if view.time < _LATER else _EVERY_LATER
        self._next = self._times[0] + every
        self._pictures, self._times = [], []

    def finish(self, clip: Clip) -> Metrics:
        """Return the mean speed, the fastest of ten looks, and the shake of the camera."""
        if len(self._times) == 2:
            self._looks.append((self._pictures, self._times))
        self._follow_looks()
        return {
            "speed": rounded(self._speeds.mean()),
            "fastest": rounded(self._speeds.quantile(0.9)),
            "shake": rounded(self._shakes.median()),
        }

    def _follow_looks(self) -> None:
        looks, self._looks = self._looks, []
        flows = iter(block_flows([pair for pictures, _ in looks for pair in pairwise(pictures)]))
        for pictures, times in looks:
            cameras = []
            for (before, after), picture in zip(pairwise(times), pictures, strict=False):
                flow = next(flows)
                flow *= 100 / (picture[0].shape[0] * (after - before))
                self._speeds.add(float(np.hypot(*flow).mean()) if flow.size else 0.0)
                cameras.append(np.median(flow, axis=1) if flow.size else np.zeros(2))
            if len(cameras) == 2:
                self._shakes.add(float(np.hypot(*(cameras[1] - cameras[0]))))


def pyramid(picture: np.ndarray) -> Pyramid:
    """Return float32 pictures, each half as large as the one before, the first half of `[h, w]`."""
    levels: list[np.ndarray] = [picture.astype(np.float32)]
    for _ in range(_LEVELS):
        last = levels[-1]
        last = last[: len(last) // 2 * 2, : last.shape[1] // 2 * 2]
        halved = last[::2, ::2] + last[1::2, ::2] + last[::2, 1::2] + last[1::2, 1::2]
        levels.append(halved / 4)
    return levels[1:]


def block_flows(pairs: Sequence[tuple[Pyramid, Pyramid]]) -> list[np.ndarray]:
    """Return how far each textured block moves from one picture to the other, for each pair.

    Pairs of one size go through the arithmetic together: at this size its calls cost more than its
    numbers. The results are those of each pair alone.

    Returns:
        float32 `[2, blocks]` in pixels of the largest level, down and right, for each pair; no
        blocks where there is no texture to follow.
    """
    if len({picture[0].shape for pair in pairs for picture in pair}) == 1:
        firsts, seconds = zip(*pairs, strict=True)
        return _flows(_stacked(firsts), _stacked(seconds))
    return [flow for a, b in pairs for flow in _flows(_stacked([a]), _stacked([b]))]


def _stacked(pictures: Sequence[Pyramid]) -> list[np.ndarray]:
    """Levels `[N, h, w]` of N pyramids."""
    return [np.stack(level) for level in zip(*pictures, strict=True)]


def _flows(first: list[np.ndarray], second: list[np.ndarray]) -> list[np.ndarray]:
    """Flows of N pairs, from levels `[N, h, w]`."""
    count = len(first[0])
    flow: np.ndarray | None = None  # [2, N, rows, columns]
    kept = np.zeros((count, 0, 0), bool)
    for a, b, steps in zip(reversed(first), reversed(second), _STEPS, strict=True):
        rows, columns = a.shape[1] // _BLOCK, a.shape[2] // _BLOCK
        if rows < 1 or columns < 1:
            continue
        flow = (
            np.zeros((2, count, rows, columns), np.float32)
            if flow is None
            else _finer(flow, rows, columns)
        )
        flow, kept = _follow(a, b, flow, steps)
    if flow is None:
        return [np.zeros((2, 0), np.float32)] * count
    return [flow[:, pair, kept[pair]] for pair in range(count)]


def _follow(
    a: np.ndarray, b: np.ndarray, flow: np.ndarray, steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Steps of least squares from where the blocks are now; also which blocks have texture."""
    high, wide = flow.shape[2] * _BLOCK, flow.shape[3] * _BLOCK
    a = a[:, :high, :wide]
    slopes = np.stack(np.gradient(a, axis=(1, 2)))  # down, right
    dy, dx = slopes
    yy, xx = _sums(slopes * slopes)
    xy = _sums(dx * dy)
    determinant = yy * xx - xy * xy
    weaker = (yy + xx) / 2 - np.sqrt(((yy - xx) / 2) ** 2 + xy * xy)
    kept = weaker > _TEXTURE * _BLOCK * _BLOCK
    safe = np.where(kept, determinant, 1.0)
    for _ in range(steps):
        moved = _sample(b, flow.repeat(_BLOCK, axis=2).repeat(_BLOCK, axis=3), a)
        yt, xt = _sums(slopes * (moved - a))
        move = np.stack([xy * xt - xx * yt, xy * yt - yy * xt]) / safe
        flow = flow + np.clip(move, -_FARTHEST, _FARTHEST) * kept
    for pair, own in enumerate(kept):
        if own.any() and not own.all():  # blocks without texture of their own go with the others
            middle = np.median(flow[:, pair, own], axis=1)[:, None, None]
            flow[:, pair] = np.where(own, flow[:, pair], middle)
    return flow.astype(np.float32), kept


def _sample(pictures: np.ndarray, flow: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """N pictures at the places that `flow` `[2, N, h, w]` leads to; beyond edges, `outside`."""
    count, height, width = pictures.shape
    high, wide = flow.shape[2:]
    y = np.arange(high, dtype=np.float32)[:, None] + flow[0]
    x = np.arange(wide, dtype=np.float32)[None, :] + flow[1]
    inside = (y >= 0) & (y <= height - 1) & (x >= 0) & (x <= width - 1)
    y, x = np.clip(y, 0, height - 1.001), np.clip(x, 0, width - 1.001)
    top, left = y.astype(np.int32), x.astype(np.int32)
    down, right = y - top, x - left
    at = top * width + left
    at += np.arange(0, count * height * width, height * width, dtype=np.int32)[:, None, None]
    flat = pictures.ravel()
    upper = flat.take(at)
    upper += (flat.take(at + 1) - upper) * right
    lower = flat.take(at + width)
    lower += (flat.take(at + width + 1) - lower) * right
    return np.where(inside, upper + (lower - upper) * down, outside)


def _sums(values: np.ndarray) -> np.ndarray:
    """Sums over blocks: `[..., rows * 8, columns * 8]` to `[..., rows, columns]`.

    In the order in which NumPy's `sum` over both axes adds, at a quarter of its time.
    """
    *others, high, wide = values.shape
    for _ in range(3):  # pairs, pairs of pairs, and those of an eight
        values = values[..., ::2] + values[..., 1::2]
    lines = values.reshape(*others, high // _BLOCK, _BLOCK, wide // _BLOCK)
    total = lines[..., 0, :] + lines[..., 1, :]
    for line in range(2, _BLOCK):
        total += lines[..., line, :]
    return total


def _finer(flow: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """The flow of a level on the blocks of the next, which is twice as large."""
    below = np.minimum(np.arange(rows) // 2, flow.shape[2] - 1)
    beside = np.minimum(np.arange(columns) // 2, flow.shape[3] - 1)
    return 2 * flow[:, :, below[:, None], beside]


FILTER = Filter(
    name="motion",
    about="still, too fast or shaking",
    limits=MotionLimits,
    version=2,
    meter=MotionMeter,
    rules=(
        Rule("speed", "below", "min", "still", " % of the height a second"),
        Rule("speed", "above", "max", "too_fast", " % of the height a second"),
        Rule("shake", "above", "shake", "shaking", " % of the height a second"),
        Rule("speed", "below", "low", "little_motion", " % of the height a second", drop=False),
    ),
)
