"""The causal VAE on a CPU, without gradients: what `causal3d` computes, in a better order.

Arrays are `[B, T, H, W, C]`, contiguous: frames lie apart, so that time needs no copies, and
channels together, as convolutions read them. A residual block holds two arrays of its size beside
its input, in place of six; norms are applied in place, and the last sum too.
Rounding differs from the layers as they are written; see `cpu_convolution`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ttvcli.core.models.vae.cpu_blocks import PAST, blocks
from ttvcli.core.models.vae.cpu_convolution import causal, enlarge, exact, shrink, with_room
from ttvcli.core.models.vae.layers import (
    CausalConv3d,
    ConvCache,
    Downsample,
    Norm,
    ResBlock,
    SpatialNorm,
    Stage,
)

PLACES = 4096  # summed at once: longer sums in fp32 round visibly


def suits(x: Tensor) -> bool:
    """Whether this is the way to compute: training and GPUs take the layers as written."""
    if x.device.type != "cpu" or torch.is_grad_enabled():
        return False
    return not torch.is_autocast_enabled("cpu")


def run(
    first: CausalConv3d,
    stages: list[Stage],
    norm: Norm,
    last: CausalConv3d,
    x_BCTHW: Tensor,
    z_BCTHW: Tensor | None,
    cache: ConvCache,
) -> Tensor:
    """An encoder or decoder: convolution, stages, norm, convolution."""
    frames = x_BCTHW.permute(0, 2, 3, 4, 1)
    x = with_room(frames, frames.shape[-1])
    x[:, PAST:] = frames
    x = causal(first, x, cache)[:, PAST:]
    for stage in stages:
        for block in stage.blocks:
            x = residual(block, x, z_BCTHW, cache)
        if isinstance(stage.resample, Downsample):
            x = shrink(stage.resample, x)
        elif stage.resample is not None:
            x = enlarge(stage.resample, x)
    room = with_room(x, x.shape[-1])
    normalise(norm, x, z_BCTHW, room[:, PAST:])
    return causal(last, room, cache)[:, PAST:].permute(0, 4, 1, 2, 3).contiguous()


def residual(block: ResBlock, x: Tensor, z: Tensor | None, cache: ConvCache) -> Tensor:
    """`ResBlock`, which overwrites its input."""
    h = with_room(x, x.shape[-1])
    normalise(block.norm1, x, z, h[:, PAST:])
    h = causal(block.conv1, h, cache)
    normalise(block.norm2, h[:, PAST:], z, h[:, PAST:])
    if hasattr(block, "conv_shortcut"):
        x = _shortcut(block.conv_shortcut, x)
    return causal(block.conv2, h, cache, add_to=x)


def _shortcut(conv: nn.Conv3d, x_BTHWC: Tensor) -> Tensor:
    frames = x_BTHWC.flatten(0, 1).permute(0, 3, 1, 2)
    made = F.conv2d(frames, conv.weight[:, :, 0], conv.bias).permute(0, 2, 3, 1)
    return made.contiguous().unflatten(0, x_BTHWC.shape[:2])


def normalise(norm: Norm, x_BTHWC: Tensor, z_BCTHW: Tensor | None, into: Tensor) -> None:
    """Norm and SiLU of every frame, written to `into`, which may be the frames themselves.

    Scale and shift are made at the size of the latents and read there by all the places they
    are for.
    """
    plain = norm.norm_layer if isinstance(norm, SpatialNorm) else norm
    for number, (sample, result) in enumerate(zip(x_BTHWC, into, strict=True)):
        mean, gain = _statistics(sample, plain)
        dtype = exact(sample.dtype)
        scale = plain.weight.to(dtype) * gain
        shift = plain.bias.to(dtype) - mean * scale
        if isinstance(norm, SpatialNorm):
            assert z_BCTHW is not None
            z = z_BCTHW[number].permute(1, 2, 3, 0).to(dtype)
            y, b = _pointwise(norm.conv_y.conv, z), _pointwise(norm.conv_b.conv, z)
            scale, shift = y * scale, y * shift + b
        else:
            size = (1, sample.shape[1], 1, scale.shape[0])
            scale, shift = scale.expand(size), shift.expand(size)
        _apply(sample, scale, shift, result)


def _pointwise(conv: nn.Conv3d, z_THWC: Tensor) -> Tensor:
    """A 1x1x1 convolution."""
    weight, bias = (parameter.to(z_THWC.dtype) for parameter in conv.parameters())
    return F.linear(z_THWC, weight.flatten(1), bias)


def _statistics(x_THWC: Tensor, norm: nn.GroupNorm) -> tuple[Tensor, Tensor]:
    """Mean and reciprocal deviation of every channel's group, over all places."""
    dtype = exact(x_THWC.dtype)
    parts = x_THWC.flatten(0, 2).split(PLACES)
    found = [torch.batch_norm_update_stats(p.to(dtype), None, None, 0.0) for p in parts]
    means, variances = (torch.stack(values).double() for values in zip(*found, strict=True))
    shares = torch.tensor([len(p) for p in parts], dtype=torch.float64) / x_THWC[..., 0].numel()
    shares = shares[:, None, None] / (norm.num_channels // norm.num_groups)
    means, variances = (v.unflatten(1, (norm.num_groups, -1)) for v in (means, variances))
    mean = (shares * means).sum(dim=(0, 2))[:, None]
    variance = (shares * (variances + (means - mean) ** 2)).sum(dim=(0, 2))[:, None]
    gain = (variance + norm.eps).rsqrt()
    size = means.shape[1:]
    return mean.expand(size).flatten().to(dtype), gain.expand(size).flatten().to(dtype)


def _apply(x_THWC: Tensor, scale_THWC: Tensor, shift_THWC: Tensor, into_THWC: Tensor) -> None:
    """silu(x * scale + shift), where scale and shift are of a smaller picture with fewer frames."""
    frames, height, width, _ = x_THWC.shape
    count, rows, columns, channels = scale_THWC.shape
    cell = (rows, height // rows, columns, width // columns, channels)
    dtype = exact(x_THWC.dtype)
    odd = frames % 2 if frames > 1 and count > 1 else 0  # the first frame stands alone
    for frame in range(frames):
        at = max(0, (frame - odd) * (count - odd) // (frames - odd) + odd)
        x, into = x_THWC[frame].view(cell), into_THWC[frame].view(cell)
        for _, part in blocks(1, rows, x[0].numel()):
            a, b = scale_THWC[at, part, None, :, None], shift_THWC[at, part, None, :, None]
            into[part] = F.silu(torch.addcmul(b, x[part].to(dtype), a), inplace=True)
