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
_EVERY, _EVERY_LATER = 1.0, 2.0  # seconds from one look to the next, at first and later
_LATER = 4.0  # seconds
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
    shape = flow.shape[1:]  # [N, rows, columns]
    a = a[:, : shape[1] * _BLOCK, : shape[2] * _BLOCK]
    here = _blocked(a, shape)
    slopes = np.stack([_blocked(slope, shape) for slope in np.gradient(a, axis=(1, 2))])
    dy, dx = slopes
    yy, xx, xy = _sums(dy * dy), _sums(dx * dx), _sums(dy * dx)
    determinant = yy * xx - xy * xy
    weaker = (yy + xx) / 2 - np.sqrt(((yy - xx) / 2) ** 2 + xy * xy)
    kept = weaker > _TEXTURE * _BLOCK * _BLOCK
    safe = np.where(kept, determinant, 1.0)
    moves = flow.reshape(2, -1)
    for _ in range(steps):
        change = _moved(b, moves, shape, here) - here
        yt, xt = _sums(dy * change), _sums(dx * change)
        move = np.stack([xy * xt - xx * yt, xy * yt - yy * xt]) / safe
        moves = moves + np.clip(move, -_FARTHEST, _FARTHEST) * kept
    flow, kept = moves.reshape(2, *shape), kept.reshape(shape)
    for pair, own in enumerate(kept):
        if own.any() and not own.all():  # blocks without texture of their own go with the others
            middle = np.median(flow[:, pair, own], axis=1)[:, None, None]
            flow[:, pair] = np.where(own, flow[:, pair], middle)
    return flow.astype(np.float32), kept


def _blocked(pictures: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Pictures `[N, rows * 8, columns * 8]` as `[8, 8, B]`: place in a block, block of any picture.

    A block moves as a whole, so that what is done to one of its points is done to all blocks.
    """
    count, rows, columns = shape
    split = pictures.reshape(count, rows, _BLOCK, columns, _BLOCK).transpose(2, 4, 0, 1, 3)
    return split.reshape(_BLOCK, _BLOCK, -1)


def _moved(
    pictures: np.ndarray, moves: np.ndarray, shape: tuple[int, ...], outside: np.ndarray
) -> np.ndarray:
    """The blocks `[8, 8, B]` of N pictures that `moves` `[2, B]` lead to; beyond edges, `outside`.

    Between the points of a picture, values are those of bilinear interpolation.
    """
    _, height, width = pictures.shape
    number, row, column = np.indices(shape, np.int32).reshape(3, -1)
    whole = np.floor(moves)
    down, right = moves - whole
    top, left = whole.astype(np.int32) + _BLOCK * np.stack([row, column])
    steps = np.arange(_BLOCK + 1, dtype=np.int32)[:, None]
    y, x = top + steps, left + steps  # [9, B]
    lines = (number * height + y.clip(0, height - 1)) * width
    patch = pictures.ravel().take(lines[:, None] + x.clip(0, width - 1))  # [9, 9, B]
    patch = patch[:, :-1] + (patch[:, 1:] - patch[:, :-1]) * right
    found = patch[:-1] + (patch[1:] - patch[:-1]) * down
    inside_y = (y[:-1] >= 0) & (y[:-1] + down <= height - 1)
    inside_x = (x[:-1] >= 0) & (x[:-1] + right <= width - 1)
    return np.where(inside_y[:, None] & inside_x, found, outside)


def _sums(values: np.ndarray) -> np.ndarray:
    """Sums over the points of each block: `[8, 8, B]` to `[B]`."""
    total: np.ndarray = values.reshape(_BLOCK * _BLOCK, -1).sum(axis=0)
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
