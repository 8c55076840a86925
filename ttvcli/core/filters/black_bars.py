"""Black bars that can be cut off a video without losing any of its picture.

Stricter than the measurement of the filter `bars`, because what is cut is gone: the same black
lines at the edges of every frame, seen to their very end in several of them, about as wide on
opposite sides, and the picture begins along most of its line. Dark scenes, and the Earth on black,
have no such line; what is doubtful stays.
"""

from fractions import Fraction

import numpy as np

from ttvcli.core.filters.frame_view import FrameView, Views
from ttvcli.core.video.crop import Edges
from ttvcli.core.video.decode import TimedFrame

_EVERY = Fraction(1, 2)  # seconds between frames looked at: five in the shortest scene
_SKIP = 4  # of a line, every fourth point is looked at
_BLACK = 32  # levels; encoders leave some noise
_LIT = 44  # above it a point is part of the picture
_FRAMES = 5  # that have to show the bars to their end
_STABLE = 0.02  # of the side: frames differ by less
_UNLIKE = 0.02  # and opposite bars
_LARGEST = 0.25  # of the side, for one bar: more is a dark picture
_EDGE = 0.5  # of the line next to a bar, that has to be lit in some frame
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
    """The bar at one edge: the least lines it had, and what speaks for it."""

    def __init__(self) -> None:
        self.lines: int | None = None
        self.frames = 0  # that showed just this bar
        self.lit = 0.0  # largest share of the line next to it that was picture in one of them

    def see(self, bar: int, lines: np.ndarray) -> None:
        """Take in a frame with so many black lines at this edge, and its `lines` from there on."""
        before = bar if self.lines is None else self.lines
        self.lines = min(bar, before)
        if self.lines < before - _STABLE * len(lines):
            self.frames, self.lit = 0, 0.0
        if bar > self.lines + _STABLE * len(lines):
            return
        self.frames += 1
        beside = lines[bar + 1 : bar + 2]  # the line before it may be half bar
        if beside.size:
            self.lit = max(self.lit, float((beside > _LIT).mean()))

    @property
    def bar(self) -> int | None:
        """Lines of the bar, 0 if there is none; None if it is doubtful."""
        if not self.lines or self.lines < _SMALLEST:
            return 0
        return self.lines if self.frames >= _FRAMES and self.lit >= _EDGE else None


def _inside(before: int, after: int, side: int) -> slice:
    """The points of a line that lie between the bars of the other two sides."""
    return slice(-(-before // _SKIP), (side - after) // _SKIP)


def _alike(first: _Side, second: _Side, side: int) -> tuple[int, int]:
    one, other = first.bar, second.bar
    if one is None or other is None:
        return 0, 0
    alike = abs(one - other) <= _UNLIKE * side and max(one, other) <= _LARGEST * side
    return (one, other) if alike else (0, 0)
