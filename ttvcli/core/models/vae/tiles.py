"""Sizes of the tiles in which a VAE encodes and decodes. Importing this does not import torch."""

from dataclasses import dataclass
from typing import NamedTuple


class Axis(NamedTuple):
    """One side of the tiles, in pixels or in latents: tiles start `stride` apart."""

    tile: int
    stride: int
    blend: int


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """Size of a tile in pixels, and the share of it that lies under its neighbour.

    The defaults are the published ones: 240x360 pixels, overlaps of 1/6 and 1/5.
    """

    height: int = 240
    width: int = 360
    overlap_height: float = 1 / 6
    overlap_width: float = 1 / 5

    def pixels(self, ratio: int) -> tuple[Axis, Axis]:
        """Rows and columns of the tiles in pixels, for `ratio` pixels a latent.

        Raises:
            ValueError: pixels and latents of neighbouring tiles would not lie over each other.
        """
        self._check(ratio)
        return (
            make_axis(self.height, self.overlap_height),
            make_axis(self.width, self.overlap_width),
        )

    def latents(self, ratio: int) -> tuple[Axis, Axis]:
        """Rows and columns of the tiles in latents; raises as `pixels`."""
        self._check(ratio)
        return (
            make_axis(self.height // ratio, self.overlap_height),
            make_axis(self.width // ratio, self.overlap_width),
        )

    def _check(self, ratio: int) -> None:
        for name in ("height", "width"):
            size, overlap = getattr(self, name), getattr(self, f"overlap_{name}")
            if not 0 < overlap < 1:
                raise ValueError(f"overlap_{name} must lie between 0 and 1, got {overlap}")
            pixels, latents = make_axis(size, overlap), make_axis(size // ratio, overlap)
            # The public code takes any size; the clip then comes back larger or smaller.
            fits = (
                size % ratio == 0
                and latents.stride > 0
                and pixels.stride == ratio * latents.stride
                and pixels.tile - pixels.blend == pixels.stride
                and latents.tile - latents.blend == latents.stride
            )
            if not fits:
                raise ValueError(
                    f"a tile {name} of {size} with an overlap of {overlap:g} puts tiles "
                    f"{pixels.stride} pixels and {latents.stride} latents apart; with {ratio} "
                    f"pixels a latent these must be {ratio} to 1"
                )


def make_axis(size: int, overlap: float) -> Axis:
    """The side of a tile of `size`, of which the share `overlap` lies under the next."""
    return Axis(size, int(size * (1 - overlap)), int(size * overlap))


def tile_lengths(length: int, axis: Axis) -> list[int]:
    """Lengths of the tiles along a side of the picture; those at the end are smaller."""
    return [min(axis.tile, length - start) for start in range(0, length, axis.stride)]
