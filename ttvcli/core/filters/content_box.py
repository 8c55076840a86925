"""Where the picture is inside black bars, from luma planes as they come."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

BLACK = 16  # mean luma of a line that is still black, with 0 for black; encoders leave some noise
MOST = 0.25  # of a side: more is a dark picture, not a bar
UNEVEN = 0.02  # bars of opposite sides differ by less, else a dark edge was taken for one

Box = tuple[slice, slice]


class ContentBox:
    """The smallest symmetric box that holds everything bright seen so far; it only grows.

    Dark scenes and objects on black look like bars, so only bars on opposite sides of about the
    same width count, up to a quarter of the frame each.
    """

    def __init__(self) -> None:
        self._rows: NDArray[np.float64] | None = None
        self._columns: NDArray[np.float64] | None = None

    def add(self, luma: NDArray[Any]) -> None:
        """Take in a plane `[H, W]` of values 0 to 255; all have one size (ValueError)."""
        rows, columns = luma.mean(axis=1), luma.mean(axis=0)
        if self._rows is None or self._columns is None:
            self._rows, self._columns = rows, columns
            return
        if rows.shape != self._rows.shape or columns.shape != self._columns.shape:
            seen = (len(self._rows), len(self._columns))
            raise ValueError(f"the planes of a video have one size: {seen}, then {luma.shape}")
        self._rows = np.maximum(self._rows, rows)
        self._columns = np.maximum(self._columns, columns)

    def box(self) -> Box:
        """Rows and columns of the picture; the whole plane if there are no bars."""
        if self._rows is None or self._columns is None:
            raise ValueError("a content box needs at least one frame, got none")
        return _span(self._rows), _span(self._columns)


def _span(brightest: NDArray[np.float64]) -> slice:
    size = len(brightest)
    lit = np.flatnonzero(brightest > BLACK)
    if not len(lit):
        return slice(0, size)
    first, last = int(lit[0]), size - 1 - int(lit[-1])
    even = abs(first - last) <= max(UNEVEN * size, 1)
    if not even or max(first, last) > MOST * size:
        return slice(0, size)
    return slice(first, size - last)
