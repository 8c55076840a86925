"""Encode and decode a clip in overlapping tiles of the picture, to bound memory by the tile.

Each tile is a clip of its own, with its own convolution caches and GroupNorm statistics, so tiling
changes values: latents made with and without it are different data. Seams are blended linearly
over the overlap, from the tile above first, then from the left. Sizes and blending are those of
diffusers' `AutoencoderKLCogVideoX.enable_tiling`.

Shape legend: B batch, C channels, T frames, H W height and width, Z latent channels.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from ttvcli.core.models.vae.causal3d import PIXEL_FRAMES_PER_CHUNK, CausalVAE, chunk_lengths
from ttvcli.core.models.vae.layers import ConvCache
from ttvcli.core.models.vae.tiles import Axis, Tiling


def tiled_encode(vae: CausalVAE, pixels: Tensor, tiling: Tiling) -> tuple[Tensor, Tensor]:
    """Posterior mean and log-variance, as `CausalVAE.encode`, tile by tile.

    A clip no larger than a tile is encoded whole, with the values of `CausalVAE.encode`.
    """
    ratio = vae.config.spatial_compression_ratio
    rows, columns = tiling.pixels(ratio)
    if not _exceeds(pixels, rows, columns):
        return vae.encode(pixels)
    moments = [[_moments(vae, tile) for tile in row] for row in _cut(pixels, rows, columns)]
    mean, logvar = _join(moments, *tiling.latents(ratio)).chunk(2, dim=1)
    return mean, logvar.clamp(-30.0, 20.0)


def tiled_decode(vae: CausalVAE, latents: Tensor, tiling: Tiling) -> Tensor:
    """Pixels, as `CausalVAE.decode`, tile by tile: holds the caches of one tile, and all pixels."""
    ratio = vae.config.spatial_compression_ratio
    rows, columns = tiling.latents(ratio)
    if not _exceeds(latents, rows, columns):
        return vae.decode(latents)
    tiles = [[vae.decode(tile) for tile in row] for row in _cut(latents, rows, columns)]
    return _join(tiles, *tiling.pixels(ratio))


def tiled_decode_chunks(vae: CausalVAE, latents: Tensor, tiling: Tiling) -> Iterator[Tensor]:
    """The same pixels a few frames at a time: holds the caches of all tiles, whatever the length.

    Blending stays within a frame, so the two orders give the same values.
    """
    ratio = vae.config.spatial_compression_ratio
    rows, columns = tiling.latents(ratio)
    if not _exceeds(latents, rows, columns):
        yield from vae.decode_chunks(latents)
        return
    cut = _cut(latents, rows, columns)
    streams = [vae.decode_chunks(tile) for row in cut for tile in row]
    across = len(cut[0])
    for parts in zip(*streams, strict=True):
        tiles = [list(parts[start : start + across]) for start in range(0, len(parts), across)]
        yield _join(tiles, *tiling.pixels(ratio))


def _exceeds(clip: Tensor, rows: Axis, columns: Axis) -> bool:
    return clip.shape[3] > rows.tile or clip.shape[4] > columns.tile


def _cut(clip_BCTHW: Tensor, rows: Axis, columns: Axis) -> list[list[Tensor]]:
    """Tiles row by row; those at the right and lower edge are smaller."""
    height, width = clip_BCTHW.shape[3:]
    return [
        [
            clip_BCTHW[:, :, :, top : top + rows.tile, left : left + columns.tile]
            for left in range(0, width, columns.stride)
        ]
        for top in range(0, height, rows.stride)
    ]


def _moments(vae: CausalVAE, pixels: Tensor) -> Tensor:
    """Mean and log-variance of one tile on the channel axis, not clamped: they are blended."""
    cache: ConvCache = {}
    lengths = chunk_lengths(pixels.shape[2], PIXEL_FRAMES_PER_CHUNK)
    parts = [vae.encoder(part, cache) for part in pixels.split(lengths, dim=2)]
    return torch.cat(parts, dim=2)


def _join(tiles: list[list[Tensor]], rows: Axis, columns: Axis) -> Tensor:
    """Blend the tiles into each other, in place, and put what they own side by side."""
    for i, row in enumerate(tiles):
        for j, tile in enumerate(row):
            # The neighbours are blended already where they pass their values on.
            if i > 0:
                _blend(tiles[i - 1][j], tile, rows.blend, dim=3)
            if j > 0:
                _blend(row[j - 1], tile, columns.blend, dim=4)
    kept = [
        torch.cat([tile[:, :, :, : rows.stride, : columns.stride] for tile in row], dim=4)
        for row in tiles
    ]
    return torch.cat(kept, dim=3)


def _blend(before: Tensor, after: Tensor, extent: int, dim: int) -> None:
    """Fade from the last `extent` lines of `before` to `after`, which is changed in place."""
    extent = min(before.shape[dim], after.shape[dim], extent)
    if not extent:
        return
    shape = [1] * after.ndim
    shape[dim] = extent
    steps = torch.arange(extent, dtype=torch.float64).view(shape) / extent
    exact = torch.promote_types(after.dtype, torch.float32)
    coming, going = (weight.to(after.device, exact) for weight in (steps, 1 - steps))
    old = before.narrow(dim, before.shape[dim] - extent, extent)
    new = after.narrow(dim, 0, extent)
    # Two roundings in low precision, as when a tensor is multiplied by a number.
    faded = (old * going).to(after.dtype) + (new * coming).to(after.dtype)
    new.copy_(faded)
