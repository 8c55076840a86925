"""Pieces of the causal video VAE: cached convolution, norms, residual block, resampling.

Shape legend: B batch, C channels, T frames, H W height and width, Z latent channels.
Every layer works on one chunk of time at a time. A `ConvCache` carries the last frames of each
convolution's input from one chunk to the next, so that chunks join without a seam. GroupNorm
statistics are taken over one chunk: chunk boundaries are part of the model.
"""

from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

ConvCache = dict[nn.Module, Tensor]


class CausalConv3d(nn.Module):
    """Convolution that looks at the present frame and the past ones only.

    Time is padded on the left with the cached frames of the previous chunk, or with copies of the
    first frame at the start of a clip; height and width are padded with zeros.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int) -> None:
        super().__init__()
        self.past = kernel - 1
        space = kernel // 2
        self.conv = nn.Conv3d(in_channels, out_channels, kernel, padding=(0, space, space))

    def forward(self, x_BCTHW: Tensor, cache: ConvCache) -> Tensor:
        if not self.past:
            return self.conv(x_BCTHW)
        past = cache.get(self)
        if self.training and past is None and x_BCTHW.shape[2] == 1:
            return self._image(x_BCTHW)
        if past is None:
            past = x_BCTHW[:, :, :1].expand(-1, -1, self.past, -1, -1)
        x_BCTHW = torch.cat([past.to(x_BCTHW.dtype), x_BCTHW], dim=2)
        # A copy, so that the two kept frames do not keep the whole chunk alive.
        cache[self] = x_BCTHW[:, :, -self.past :].clone()
        return self.conv(x_BCTHW)

    def _image(self, x_BC1HW: Tensor) -> Tensor:
        """The same for a lone frame, whose past is copies of itself: a third of the work.

        For training on images only: sums in another order, so not bit-equal.
        """
        weight, bias = self.conv.weight.sum(dim=2), self.conv.bias
        return F.conv2d(x_BC1HW[:, :, 0], weight, bias, padding=self.past // 2).unsqueeze(2)


class PlainNorm(nn.GroupNorm):
    """GroupNorm with the call signature of `SpatialNorm`; the encoder's norm."""

    def forward(self, x: Tensor, z: Tensor | None = None, cache: ConvCache | None = None) -> Tensor:
        return super().forward(x)


class SpatialNorm(nn.Module):
    """GroupNorm whose scale and shift are read from the latents; the decoder's norm.

    Movq (https://arxiv.org/abs/2209.09002), as CogVideoX uses it: `norm(x) * y(z) + b(z)`.
    """

    def __init__(self, channels: int, latent_channels: int, groups: int, eps: float) -> None:
        super().__init__()
        self.norm_layer = nn.GroupNorm(groups, channels, eps=eps)
        self.conv_y = CausalConv3d(latent_channels, channels, kernel=1)
        self.conv_b = CausalConv3d(latent_channels, channels, kernel=1)

    def forward(self, x: Tensor, z: Tensor, cache: ConvCache) -> Tensor:
        # A 1x1x1 convolution commutes with a nearest resize: convolve the small tensor.
        if torch.is_grad_enabled():
            scale = _resize_like(self.conv_y(z, cache), x)
            shift = _resize_like(self.conv_b(z, cache), x)
            return self.norm_layer(x) * scale + shift
        # The same with two arrays less: decoding peaks here and at the convolution that follows.
        normed = self.norm_layer(x)
        normed *= _resize_like(self.conv_y(z, cache), x)
        normed += _resize_like(self.conv_b(z, cache), x)
        return normed


def _resize_like(z_BCTHW: Tensor, x_BCTHW: Tensor) -> Tensor:
    """Resize by nearest neighbour to the frames, height and width of `x_BCTHW`."""
    size = x_BCTHW.shape[2:]
    if z_BCTHW.shape[2:] == size:
        return z_BCTHW
    if size[0] > 1 and size[0] % 2 == 1:  # the first frame stands alone, as in `Upsample`
        first = F.interpolate(z_BCTHW[:, :, :1], size=(1, *size[1:]))
        rest = F.interpolate(z_BCTHW[:, :, 1:], size=(size[0] - 1, *size[1:]))
        return torch.cat([first, rest], dim=2)
    return F.interpolate(z_BCTHW, size=size)


Norm = PlainNorm | SpatialNorm


class ResBlock(nn.Module):
    """norm, SiLU, convolution, twice, plus the input (through a 1x1x1 when the width changes).

    Args:
        latent_channels: the width of the latents for `SpatialNorm`; None makes it `PlainNorm`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        groups: int,
        eps: float,
        latent_channels: int | None,
    ) -> None:
        super().__init__()
        self.norm1 = make_norm(in_channels, groups, eps, latent_channels)
        self.conv1 = CausalConv3d(in_channels, out_channels, kernel=3)
        self.norm2 = make_norm(out_channels, groups, eps, latent_channels)
        self.conv2 = CausalConv3d(out_channels, out_channels, kernel=3)
        if in_channels != out_channels:
            self.conv_shortcut = nn.Conv3d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, z: Tensor | None, cache: ConvCache) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x, z, cache)), cache)
        h = self.conv2(F.silu(self.norm2(h, z, cache)), cache)
        if hasattr(self, "conv_shortcut"):
            x = self.conv_shortcut(x)
        return x + h


def make_norm(channels: int, groups: int, eps: float, latent_channels: int | None) -> Norm:
    """The norm of the encoder (no latents) or of the decoder."""
    if latent_channels is None:
        return PlainNorm(groups, channels, eps=eps)
    return SpatialNorm(channels, latent_channels, groups, eps)


class Downsample(nn.Module):
    """Halve height and width with a strided convolution per frame, and time by averaging pairs.

    An odd number of frames keeps its first frame and averages the rest.
    """

    def __init__(self, channels: int, compress_time: bool) -> None:
        super().__init__()
        self.compress_time = compress_time
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        if self.compress_time and x_BCTHW.shape[2] > 1:
            first, rest = _split_odd(x_BCTHW)
            rest = rearrange(rest, "b c (t two) h w -> b c t two h w", two=2).mean(dim=3)
            x_BCTHW = torch.cat([first, rest], dim=2)
        batch = x_BCTHW.shape[0]
        frames = rearrange(x_BCTHW, "b c t h w -> (b t) c h w")
        frames = self.conv(F.pad(frames, (0, 1, 0, 1)))
        return rearrange(frames, "(b t) c h w -> b c t h w", b=batch)


class Upsample(nn.Module):
    """Double height and width, and time where it was halved, then convolve each frame.

    An odd number of frames repeats all but its first; a single frame stays single.
    """

    def __init__(self, channels: int, compress_time: bool) -> None:
        super().__init__()
        self.compress_time = compress_time
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        if self.compress_time and x_BCTHW.shape[2] > 1:
            first, rest = _split_odd(x_BCTHW)
            x_BCTHW = torch.cat([first, rest.repeat_interleave(2, dim=2)], dim=2)
        batch = x_BCTHW.shape[0]
        frames = rearrange(x_BCTHW, "b c t h w -> (b t) c h w")
        frames = self.conv(F.interpolate(frames, scale_factor=2.0))
        return rearrange(frames, "(b t) c h w -> b c t h w", b=batch)


class Stage(nn.Module):
    """Residual blocks of one resolution, then a change of resolution (except the last stage)."""

    def __init__(self, blocks: list[ResBlock], resample: Downsample | Upsample | None) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(blocks)
        if isinstance(resample, Downsample):
            self.downsamplers = nn.ModuleList([resample])
        elif isinstance(resample, Upsample):
            self.upsamplers = nn.ModuleList([resample])

    @property
    def blocks(self) -> list[ResBlock]:
        """The residual blocks."""
        return cast(list[ResBlock], list(self.resnets))

    @property
    def resample(self) -> Downsample | Upsample | None:
        """What changes the resolution."""
        found = getattr(self, "downsamplers", getattr(self, "upsamplers", [None]))
        return found[0]

    def forward(self, x: Tensor, z: Tensor | None, cache: ConvCache) -> Tensor:
        for block in self.resnets:
            x = block(x, z, cache)
        return x if self.resample is None else self.resample(x)


def _split_odd(x_BCTHW: Tensor) -> tuple[Tensor, Tensor]:
    """Split off the first frame when the number of frames is odd (else an empty first part)."""
    odd = x_BCTHW.shape[2] % 2
    return x_BCTHW[:, :, :odd], x_BCTHW[:, :, odd:]
