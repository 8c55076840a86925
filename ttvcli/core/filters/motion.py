"""How much moves, and how steadily: optical flow between frames a quarter of a second apart.

The flow is Lucas and Kanade's least squares on blocks of 8 x 8 pixels over a pyramid of small
pictures, coarse to fine. Speeds are in per cent of the picture's height a second, so that they mean
the same for every size and frame rate.
"""

from dataclasses import dataclass, field

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


class MotionMeter:
    """Takes three frames 0.25 s apart now and then: two flows, and how they differ."""

    def __init__(self) -> None:
        self._next = 0.0
        self._pictures: list[list[np.ndarray]] = []  # pyramids
        self._times: list[float] = []
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
        self._look()
        every = _EVERY if view.time < _LATER else _EVERY_LATER
        self._next = self._times[0] + every
        self._pictures, self._times = [], []

    def finish(self, clip: Clip) -> Metrics:
        """Return the mean speed, the fastest of ten looks, and the shake of the camera."""
        if len(self._times) == 2:
            self._look()
        return {
            "speed": rounded(self._speeds.mean()),
            "fastest": rounded(self._speeds.quantile(0.9)),
            "shake": rounded(self._shakes.median()),
        }

    def _look(self) -> None:
        cameras = []
        for first in range(len(self._times) - 1):
            seconds = self._times[first + 1] - self._times[first]
            flow = block_flow(self._pictures[first], self._pictures[first + 1])
            flow *= 100 / (self._pictures[first][0].shape[0] * seconds)
            self._speeds.add(float(np.hypot(*flow).mean()) if flow.size else 0.0)
            cameras.append(np.median(flow, axis=1) if flow.size else np.zeros(2))
        if len(cameras) == 2:
            self._shakes.add(float(np.hypot(*(cameras[1] - cameras[0]))))


def pyramid(picture: np.ndarray) -> list[np.ndarray]:
    """Return float32 pictures, each half as large as the one before, the first half of `[h, w]`."""
    levels: list[np.ndarray] = [picture.astype(np.float32)]
    for _ in range(_LEVELS):
        last = levels[-1]
        last = last[: len(last) // 2 * 2, : last.shape[1] // 2 * 2]
        halved = last[::2, ::2] + last[1::2, ::2] + last[::2, 1::2] + last[1::2, 1::2]
        levels.append(halved / 4)
    return levels[1:]


def block_flow(first: list[np.ndarray], second: list[np.ndarray]) -> np.ndarray:
    """Return how far each textured block moves, in pixels of the largest level.

    Args:
        first, second: pyramids of two pictures of one size.

    Returns:
        float32 `[2, blocks]`, down and right; no blocks where there is no texture to follow.
    """
    flow: np.ndarray | None = None
    kept = np.zeros((0, 0), bool)
    for a, b, steps in zip(reversed(first), reversed(second), _STEPS, strict=True):
        rows, columns = a.shape[0] // _BLOCK, a.shape[1] // _BLOCK
        if rows < 1 or columns < 1:
            continue
        flow = (
            np.zeros((2, rows, columns), np.float32)
            if flow is None
            else _finer(flow, rows, columns)
        )
        flow, kept = _follow(a, b, flow, steps)
    return flow[:, kept] if flow is not None else np.zeros((2, 0), np.float32)


def _follow(
    a: np.ndarray, b: np.ndarray, flow: np.ndarray, steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Steps of least squares from where the blocks are now; also which blocks have texture."""
    high, wide = flow.shape[1] * _BLOCK, flow.shape[2] * _BLOCK
    a = a[:high, :wide]
    dy, dx = np.gradient(a)
    yy, xx, xy = _sums(dy * dy), _sums(dx * dx), _sums(dx * dy)
    determinant = yy * xx - xy * xy
    weaker = (yy + xx) / 2 - np.sqrt(((yy - xx) / 2) ** 2 + xy * xy)
    kept = weaker > _TEXTURE * _BLOCK * _BLOCK
    safe = np.where(kept, determinant, 1.0)
    for _ in range(steps):
        moved = _sample(b, flow.repeat(_BLOCK, axis=1).repeat(_BLOCK, axis=2), a)
        dt = moved - a
        yt, xt = _sums(dy * dt), _sums(dx * dt)
        move = np.stack([xy * xt - xx * yt, xy * yt - yy * xt]) / safe
        flow = flow + np.clip(move, -_FARTHEST, _FARTHEST) * kept
    if kept.any() and not kept.all():  # blocks without texture of their own go with the others
        flow = np.where(kept, flow, np.median(flow[:, kept], axis=1)[:, None, None])
    return flow.astype(np.float32), kept


def _sample(picture: np.ndarray, flow: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """The picture at the places that `flow` `[2, h, w]` leads to; beyond its edge, `outside`."""
    height, width = picture.shape
    high, wide = flow.shape[1:]
    y = np.arange(high, dtype=np.float32)[:, None] + flow[0]
    x = np.arange(wide, dtype=np.float32)[None, :] + flow[1]
    inside = (y >= 0) & (y <= height - 1) & (x >= 0) & (x <= width - 1)
    y, x = np.clip(y, 0, height - 1.001), np.clip(x, 0, width - 1.001)
    top, left = y.astype(np.int32), x.astype(np.int32)
    down, right = y - top, x - left
    at = top * width + left
    flat = picture.ravel()
    upper = flat.take(at)
    upper += (flat.take(at + 1) - upper) * right
    lower = flat.take(at + width)
    lower += (flat.take(at + width + 1) - lower) * right
    return np.where(inside, upper + (lower - upper) * down, outside)


def _sums(values: np.ndarray) -> np.ndarray:
    """Sums over blocks: `[rows * 8, columns * 8]` to `[rows, columns]`."""
    rows, columns = values.shape[0] // _BLOCK, values.shape[1] // _BLOCK
    return values.reshape(rows, _BLOCK, columns, _BLOCK).sum(axis=(1, 3))


def _finer(flow: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """The flow of a level on the blocks of the next, which is twice as large."""
    below = np.minimum(np.arange(rows) // 2, flow.shape[1] - 1)
    beside = np.minimum(np.arange(columns) // 2, flow.shape[2] - 1)
    return 2 * flow[:, below][:, :, beside]


FILTER = Filter(
    name="motion",
    about="still, too fast or shaking",
    limits=MotionLimits,
    meter=MotionMeter,
    rules=(
        Rule("speed", "below", "min", "still", " % of the height a second"),
        Rule("speed", "above", "max", "too_fast", " % of the height a second"),
        Rule("shake", "above", "shake", "shaking", " % of the height a second"),
        Rule("speed", "below", "low", "little_motion", " % of the height a second", drop=False),
    ),
)
