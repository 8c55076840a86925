"""Black bars that can be cut off a video without losing any of its picture.

Stricter than the measurement of the filter `bars`, because what is cut is gone: the same black
lines at the edges of every frame, seen to their very end in several of them, about as wide on
opposite sides, and the picture begins along a good part of its line. Dark scenes, and the Earth on
black, have no such line; what is doubtful stays.
"""

from collections import Counter
from fractions import Fraction

import numpy as np

from ttvcli.core.filters.frame_view import FrameView, Views
from ttvcli.core.video.crop import Edges
from ttvcli.core.video.timeline import TimedFrame

_EVERY = Fraction(1, 2)  # seconds between frames looked at: five in the shortest scene
_SKIP = 4  # of a line, every fourth point is looked at
_BLACK = 32  # levels; encoders leave some noise
_LIT = 44  # above it a point is part of the picture
_FRAMES = 5  # that have to show the bars to their end
_STABLE = 0.02  # of the side: frames differ by less
_UNLIKE = 0.02  # and opposite bars
_LARGEST = 0.25  # of the side, for one bar: more is a dark picture
_EDGE, _DIM_EDGE = 0.5, 0.2  # of the line next to one bar and to the other, lit in some frame
_SMALLEST = 2  # lines


class BlackBars:
    """Sees the frames of one video in order and keeps the smallest bars; a bounded amount."""

    def __init__(self) -> None:
        self._views = Views(Fraction(1))
        self._next = Fraction(0)
        self._shape: tuple[int, int] | None = None
        self._one_size = True
        self._sides = [_Side() for _ in range(4)]  # top, bottom, left, right

    def see(self, frame: TimedFrame) -> None:
        """Look at two frames a second; `frame` is not kept."""
        shape = (frame.picture.height, frame.picture.width)
        self._shape = self._shape or shape
        self._one_size &= shape == self._shape
        if frame.time < self._next or not self._one_size:
            return
        self._next = frame.time + _EVERY
        view = FrameView(self._views, 0, float(frame.time), frame.picture)
        rows, columns = view.part(np.s_[:, ::_SKIP]), view.part(np.s_[::_SKIP, :]).T
        if min(rows.max(), columns.max()) <= _BLACK:  # a black frame says nothing
            return
        edges = (rows, rows[::-1], columns, columns[::-1])
        bars = [int((lines.max(axis=1) > _BLACK).argmax()) for lines in edges]
        top, bottom, left, right = bars
        insides = [_inside(left, right, shape[1])] * 2 + [_inside(top, bottom, shape[0])] * 2
        for side, count, lines, inside in zip(self._sides, bars, edges, insides, strict=True):
            side.see(count, lines[:, inside])

    def edges(self) -> Edges:
        """What to cut off: bars and the line where they blend into the picture, or nothing."""
        if self._shape is None or not self._one_size:
            return Edges()
        height, width = self._shape
        top, bottom, left, right = self._sides
        found = (*_alike(top, bottom, height), *_alike(left, right, width))
        return Edges(*(n and n + 2 - n % 2 for n in found))


class _Side:
    """The bar at one edge: its lines in the frames that show just it, and what speaks for it.

    Strong compression lets the picture flicker into the bar by a few lines, and dark scenes hide
    where it ends. So the frames within `_STABLE` of the least bar count, and their median.
    """

    def __init__(self) -> None:
        self._least: int | None = None
        self._frames: Counter[int] = Counter()  # that had so many lines
        self._lit: dict[int, float] = {}  # by lines: largest share of what is next to it

    def see(self, bar: int, lines: np.ndarray) -> None:
        """Take in a frame with so many black lines at this edge, and its `lines` from there on."""
        side = len(lines)
        self._least = bar if self._least is None else min(bar, self._least)
        most = self._least + _STABLE * side
        for count in [count for count in self._frames if count > most]:
            del self._frames[count], self._lit[count]
        if bar > most:
            return
        self._frames[bar] += 1
        beside = lines[bar + 1 : bar + 2 + side // 100]  # the line before it may be half bar
        lit = float((beside > _LIT).mean(axis=1).max()) if beside.size else 0.0
        self._lit[bar] = max(self._lit.get(bar, 0.0), lit)

    @property
    def bar(self) -> int | None:
        """Lines of the bar, 0 if there is none; None if too few frames tell."""
        if not self._least or self._least < _SMALLEST:
            return 0
        if self._frames.total() < _FRAMES:
            return None
        return sorted(self._frames.elements())[self._frames.total() // 2]

    @property
    def lit(self) -> float:
        """Largest share of a line next to the bar that was picture."""
        return max(self._lit.values(), default=0.0)


def _inside(before: int, after: int, side: int) -> slice:
    """The points of a line that lie between the bars of the other two sides."""
    return slice(-(-before // _SKIP), (side - after) // _SKIP)


def _alike(first: _Side, second: _Side, side: int) -> tuple[int, int]:
    one, other = first.bar, second.bar
    if one is None or other is None:
        return 0, 0
    lit = [found.lit for found in (first, second) if found.bar]
    if lit and (min(lit) < _DIM_EDGE or max(lit) < _EDGE):
        return 0, 0
    alike = abs(one - other) <= _UNLIKE * side and max(one, other) <= _LARGEST * side
    return (one, other) if alike else (0, 0)
