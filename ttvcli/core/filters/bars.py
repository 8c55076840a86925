"""Black or plain bars around the picture: letterbox, pillarbox, borders.

A bar is a run of uniform lines of one level from an edge that is there in every frame, opposite
bars are alike, and the picture begins with a straight edge: the Earth on black has no such edge.
"""

from dataclasses import dataclass, field

import numpy as np

from ttvcli.core.filters.filter import Clip, Filter, Metrics, Rule, rounded
from ttvcli.core.filters.frame_view import FrameView

_EVERY = 1.0  # seconds between frames looked at
_SKIP = 8  # of a line, every eighth point is looked at
_UNIFORM = 16  # levels that a line of a bar may vary by
_SAME = 12  # and lines of one bar among each other
_LARGEST = 0.4  # of the side, for one bar
_UNLIKE = 0.02  # of the side, that opposite bars may differ by
_EDGE = 0.25  # of the line next to a bar, that has to differ from the bar
_SMALLEST = 2  # lines
SIDES = ("top", "bottom", "left", "right")


@dataclass(frozen=True, kw_only=True)
class BarsLimits:
    """Thresholds as shares of the picture's area."""

    max: float | None = field(default=0.45, metadata={"help": "share of the area in bars, at most"})
    flag: float | None = field(
        default=0.01, metadata={"help": "share of the area that is worth cropping (a flag)"}
    )


class BarsMeter:
    """Keeps the smallest bars seen."""

    def __init__(self) -> None:
        self._next = 0.0
        self._bars: list[int] | None = None  # lines, in the order of SIDES, as stored
        self._edges = [0.0] * 4
        self._shape = (1, 1)
        self._turns = 0

    def see(self, view: FrameView) -> None:
        """Look at one frame a second."""
        if view.time < self._next:
            return
        self._next = view.time + _EVERY
        self._turns = view.turns
        if self._bars is None or self._shape != view.shape:
            self._shape, self._bars, self._edges = view.shape, None, [0.0] * 4
        elif not any(self._bars):
            return  # a frame without bars was seen, and no other can say more
        # The lines of a frame, thinned out along the line.
        rows, columns = view.part(np.s_[:, ::_SKIP]), view.part(np.s_[::_SKIP, :])
        found = [*_bars(rows, along=1), *_bars(columns, along=0)]
        if None in found:  # a plain frame says nothing about bars
            return
        widths = [n for n in found if n is not None]
        self._bars = widths if self._bars is None else list(map(min, self._bars, widths))
        edges = (rows, rows[::-1], columns.T, columns.T[::-1])
        for side, lines in enumerate(edges):
            self._edges[side] = max(self._edges[side], _edge(lines, self._bars[side]))

    def finish(self, clip: Clip) -> Metrics:
        """Return the share of each side and of the area that bars take, of the upright picture."""
        shares = [0.0] * 4
        if self._bars is not None:
            height, width = self._shape
            sides = (height, height, width, width)
            pairs = list(zip(self._bars, sides, self._edges, strict=True))
            real = [
                n / side if n >= _SMALLEST and edge >= _EDGE else 0.0 for n, side, edge in pairs
            ]
            shares = [*_alike(*real[:2]), *_alike(*real[2:])]
        shares = _turned(shares, self._turns)
        top, bottom, left, right = shares
        area = 1 - (1 - top - bottom) * (1 - left - right)
        found = {name: rounded(value, 4) for name, value in zip(SIDES, shares, strict=True)}
        return {**found, "share": rounded(area, 4)}


def _bars(lines: np.ndarray, along: int) -> tuple[int | None, int | None]:
    """How many lines belong to a bar at either end; None if the whole frame is plain.

    `along` is the axis of the points of a line.
    """
    low = lines.min(axis=along).astype(np.int16)
    high = lines.max(axis=along).astype(np.int16)
    return _bar(low, high), _bar(low[::-1], high[::-1])


def _bar(low: np.ndarray, high: np.ndarray) -> int | None:
    """How many lines from the first on are plain and alike, by their extremes; None if all are."""
    plain = (high - low <= _UNIFORM) & (abs((low + high) // 2 - (low[0] + high[0]) // 2) <= _SAME)
    if plain.all():
        return None
    return int(plain.argmin())


def _edge(lines: np.ndarray, count: int) -> float:
    """Which share of the second line inside a bar differs from the bar."""
    if count < _SMALLEST or count + 1 >= len(lines):
        return 0.0
    level = float(lines[: count - 1].mean())
    return float((abs(lines[count + 1] - level) > _SAME).mean())


def _alike(first: float, second: float) -> tuple[float, float]:
    alike = abs(first - second) <= _UNLIKE and max(first, second) <= _LARGEST
    return (first, second) if alike else (0.0, 0.0)


def _turned(shares: list[float], turns: int) -> list[float]:
    """Shares by side after quarter turns counter-clockwise."""
    top, bottom, left, right = shares
    for _ in range(turns):
        top, bottom, left, right = right, left, top, bottom
    return [top, bottom, left, right]


FILTER = Filter(
    name="bars",
    about="bars and borders around the picture",
    limits=BarsLimits,
    meter=BarsMeter,
    rules=(
        Rule("share", "above", "max", "bars"),
        Rule("share", "above", "flag", "bars", drop=False),
    ),
)
