"""Missing fine detail: blurred pictures, and small ones that were enlarged.

The energy of fine detail (0.25 to 0.5 cycles a pixel) over that of all detail, in decibel. Unlike
the variance of a Laplacian it does not depend on how much there is to see: soft focus behind a
sharp subject passes, enlarged footage does not.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from ttvcli.core.filters.filter import Clip, Filter, Metrics, Rule, Spread, rounded
from ttvcli.core.filters.frame_view import FrameView

_EVERY = 3.0  # seconds between frames looked at: one for each segment that may be cut
_TILE = 128  # pixels, at most
# Where tiles lie, in shares of the frame: away from bars, subtitles and watermarks.
_CENTRES = ((0.5, 0.5), (0.35, 0.3), (0.65, 0.7), (0.35, 0.7), (0.65, 0.3))
_FINE, _COARSE = 0.25, 0.02  # cycles a pixel
_LEAST = 4.0  # variance of a tile below which there is nothing to be sharp


@dataclass(frozen=True, kw_only=True)
class BlurLimits:
    """Thresholds in decibel."""

    min: float | None = field(
        default=-25.0, metadata={"help": "dB of fine detail, at least; enlarged video is below"}
    )


class BlurMeter:
    """Takes the spectrum of a few tiles of a frame now and then."""

    def __init__(self) -> None:
        self._next = 0.0
        self._values = Spread()

    def see(self, view: FrameView) -> None:
        """Look at one frame every three seconds."""
        if view.time < self._next:
            return
        value = fine_detail(view.shape, view.part)
        if value is not None:  # else a plain frame, and the next one is tried
            self._next = view.time + _EVERY
            self._values.add(value)

    def finish(self, clip: Clip) -> Metrics:
        """Return the median over the frames in decibel; null if nothing was to be seen."""
        return {"detail": rounded(self._values.median(), 2)}


def fine_detail(shape: tuple[int, int], part: Callable[[Any], np.ndarray]) -> float | None:
    """Return the share of fine detail of a frame in dB; None if there is nothing to see.

    Args:
        shape: (H, W) of the frame.
        part: gives the luma uint8 of an index of two slices; only a few tiles are asked for.
    """
    side = _side(shape)
    window, fine, coarse = _masks(side)
    energy = np.zeros((side, side // 2 + 1), np.float32)
    for y, x in _CENTRES:
        top, left = round(y * shape[0]) - side // 2, round(x * shape[1]) - side // 2
        tile = part(np.s_[top : top + side, left : left + side]).astype(np.float32)
        tile -= tile.mean()
        if tile.shape == (side, side) and np.vdot(tile, tile) >= _LEAST * tile.size:
            tile *= window
            spectrum = np.fft.rfft2(tile)  # one by one: together they leave the caches
            energy += np.square(spectrum.real) + np.square(spectrum.imag)
    # Summed over the tiles: a plain one, which holds nothing but rounding, does not count.
    total_fine, total = float(np.vdot(energy, fine)), float(np.vdot(energy, coarse))
    return 10 * float(np.log10(total_fine / total)) if total_fine > 0 else None


def _side(shape: tuple[int, ...]) -> int:
    side = _TILE
    while side > min(shape) // 2 and side > 16:
        side //= 2
    return side


@cache
def _masks(side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The window, and 1 for the frequencies that are fine detail, or any detail."""
    line = np.hanning(side).astype(np.float32)
    radius = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None, :])
    fine, coarse = (radius > _FINE) & (radius <= 0.5), radius > _COARSE
    return line[:, None] * line[None, :], fine.astype(np.float32), coarse.astype(np.float32)


FILTER = Filter(
    name="blur",
    about="blurred, or enlarged from a small picture",
    limits=BlurLimits,
    version=2,
    meter=BlurMeter,
    rules=(Rule("detail", "below", "min", "blurred", " dB"),),
)
