"""Convolutions of the causal VAE on a CPU, without gradients: the same sums with fewer products.

Arrays are `[B, T, H, W, C]`, contiguous. What a causal convolution reads has room in front for the
`PAST` frames before it (`with_room`), so that nothing has to be joined. Work goes in blocks of rows
that stay in the processor's cache: memory allocated anew costs as much as several passes over it.

- Two frames at a time take four convolutions of a frame in place of six: Winograd's F(2, 3)
  (https://arxiv.org/abs/1509.09308) over time.
- The first frame of a clip, whose past is copies of itself, takes one in place of three.
- A 3x3 convolution of an enlarged picture is four 2x2 convolutions of the small one.

Sums are taken in another order than in the layers as they are written; values differ by rounding.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ttvcli.core.models.vae.cpu_blocks import PAST, WORTH_BLOCKS, blocks
from ttvcli.core.models.vae.layers import CausalConv3d, ConvCache, Downsample, Upsample

# Rows of frames with those above and below, `[PAST + T, 1 + H + 1, W, C]`, to `[T, H, W, C]`.
Kernel = Callable[[Tensor], Tensor]
Write = Callable[[Tensor, Tensor], Tensor]


def with_room(frames_BTHWC: Tensor, channels: int) -> Tensor:
    """An empty array for as many frames and the past before them, of so many channels."""
    batch, count, height, width = frames_BTHWC.shape[:4]
    return frames_BTHWC.new_empty(batch, PAST + count, height, width, channels)


def causal(
    module: CausalConv3d, x_BTHWC: Tensor, cache: ConvCache, add_to: Tensor | None = None
) -> Tensor:
    """Convolve frames that have room for their past, which is filled in.

    Args:
        add_to: frames to which the result is added, in place; None makes an array with room.

    Returns:
        `add_to`, or the new array.
    """
    x, still = x_BTHWC, module not in cache
    # Without a name for the past: it would live on beside the next one.
    x[:, :PAST] = x[:, PAST : PAST + 1] if still else cache[module].permute(0, 2, 3, 4, 1)
    cache[module] = x[:, -PAST:].clone().permute(0, 4, 1, 2, 3)
    out = with_room(x[:, PAST:], module.conv.out_channels) if add_to is None else add_to
    into = out[:, PAST:] if add_to is None else out
    write = Tensor.copy_ if add_to is None else Tensor.add_
    if into[0, ..., 0].numel() < WORTH_BLOCKS:
        made = module.conv(x.permute(0, 4, 1, 2, 3).contiguous())
        write(into, made.permute(0, 2, 3, 4, 1))
    else:
        _large(module.conv, x, into, write, still=still)
    return out


def _large(conv: nn.Conv3d, x: Tensor, into: Tensor, write: Write, *, still: bool) -> None:
    """An odd frame, then pairs; `still`: the past is copies of the first frame."""
    odd = into.shape[1] % 2
    if odd:
        kernel = _still(conv) if still else _alone(conv)
        _in_blocks(kernel, x[:, : PAST + 1], into[:, :1], write)
    if into.shape[1] > odd:
        _in_blocks(_pairs(conv), x[:, odd:], into[:, odd:], write)


def _in_blocks(kernel: Kernel, x_BTHWC: Tensor, into: Tensor, write: Write) -> None:
    _, frames, height, width, channels = into.shape
    row = width * max(channels, x_BTHWC.shape[-1])
    for x, result in zip(x_BTHWC, into, strict=True):
        for part, rows in blocks(frames, height, row):
            # Without a name for what is made: it would live on beside the next block.
            seen = slice(part.start, part.stop + PAST)
            write(result[part, rows], kernel(_with_borders(x[seen], rows)))


def _with_borders(x_THWC: Tensor, rows: slice) -> Tensor:
    """These rows and one above and below; beyond the picture there are zeros."""
    height = x_THWC.shape[1]
    part = x_THWC[:, max(rows.start - 1, 0) : rows.stop + 1]
    return F.pad(part, (0, 0, 0, 0, int(rows.start == 0), int(rows.stop == height)))


def _convolve(x_THWC: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """2D convolution of every frame; only the columns are padded."""
    made = F.conv2d(x_THWC.permute(0, 3, 1, 2), weight, bias, padding=(0, 1))
    return made.permute(0, 2, 3, 1)


def _by_time(weight_OITHW: Tensor) -> list[Tensor]:
    """The kernel's three moments of time, `[O, I, H, W]` each, in the dtype for sums."""
    # Channels last before all else: cutting and summing are several times quicker then.
    last = weight_OITHW.contiguous(memory_format=torch.channels_last_3d)
    return [moment.to(exact(last.dtype)) for moment in last.unbind(2)]


def _rounded(weight: Tensor, dtype: torch.dtype) -> Tensor:
    return weight.to(dtype).contiguous(memory_format=torch.channels_last)


def exact(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which sums are taken."""
    return torch.promote_types(dtype, torch.float32)


def _pairs(conv: nn.Conv3d) -> Kernel:
    """Winograd's F(2, 3) over time: of four frames, the two that see three frames each."""
    first, second, third = _by_time(conv.weight)
    outer, dtype, bias = first + third, conv.weight.dtype, conv.bias
    plus = _rounded((outer + second).div_(2), dtype)
    minus = _rounded(outer.sub_(second).div_(2), dtype)
    first, third = _rounded(first, dtype), _rounded(third, dtype)

    def kernel(x: Tensor) -> Tensor:
        a, b, c, d = x[:-2:2], x[1:-1:2], x[2::2], x[3::2]
        total, rest = _convolve(b + c, plus, bias), _convolve(c - b, minus, None)
        out = total.new_empty(x.shape[0] - PAST, *total.shape[1:])
        torch.add(total, rest, out=out[::2]).add_(_convolve(a - c, first, None))
        torch.sub(total, rest, out=out[1::2]).sub_(_convolve(b - d, third, None))
        return out

    return kernel


def _still(conv: nn.Conv3d) -> Kernel:
    """Of three equal frames: the kernel's sum over time."""
    first, second, third = _by_time(conv.weight)
    weight = _rounded((first + second).add_(third), conv.weight.dtype)
    return lambda x: _convolve(x[PAST:], weight, conv.bias)


def _alone(conv: nn.Conv3d) -> Kernel:
    """Of three frames: the kernel as it is, moment by moment."""
    dtype, bias = conv.weight.dtype, conv.bias
    first, second, third = (_rounded(moment, dtype) for moment in _by_time(conv.weight))

    def kernel(x: Tensor) -> Tensor:
        made = _convolve(x[:1], first, bias).to(exact(dtype))
        return made + _convolve(x[1:PAST], second, None) + _convolve(x[PAST:], third, None)

    return kernel


def enlarge(module: Upsample, x_BTHWC: Tensor) -> Tensor:
    """Double height and width, and time where it was halved; frames that repeat are done once."""
    batch, frames, height, width, _ = x_BTHWC.shape
    if frames * height * width < WORTH_BLOCKS:
        made = module(x_BTHWC.permute(0, 4, 1, 2, 3).contiguous())
        return made.permute(0, 2, 3, 4, 1).contiguous()
    at = _places(frames, twice=module.compress_time and frames > 1)
    size = (at[-1].stop, 2 * height, 2 * width, module.conv.out_channels)
    out = x_BTHWC.new_empty(batch, *size)
    kernel = _doubling(module.conv)
    for sample, result in zip(x_BTHWC, out, strict=True):
        for part, rows in blocks(frames, height, 2 * sample[0, 0].numel()):
            large = slice(2 * rows.start, 2 * rows.stop)
            made = iter(kernel(_with_borders(sample[part], rows)))
            for number in range(part.start, part.stop):
                result[at[number], large] = next(made)
            del made
    return out


def _places(frames: int, *, twice: bool) -> list[slice]:
    """Where each frame goes; of an odd number, the first stands alone."""
    if not twice:
        return [slice(i, i + 1) for i in range(frames)]
    odd = frames % 2
    return [slice(max(0, 2 * i - odd), 2 * i - odd + 2) for i in range(frames)]


def _doubling(conv: nn.Conv2d) -> Kernel:
    """3x3 convolution of a picture whose rows and columns are repeated, from the small picture.

    An even row of the result sees the row above and, twice, its own; an odd one its own, twice,
    and the one below. Columns likewise.
    """
    square = conv.weight.permute(2, 3, 0, 1).to(exact(conv.weight.dtype)).contiguous()
    weights = {
        (i, j): _rounded(both.permute(2, 3, 0, 1), conv.weight.dtype)
        for i, rows in enumerate(_halves(square, 0))
        for j, both in enumerate(_halves(rows, 1))
    }

    def kernel(x: Tensor) -> Tensor:
        count, height, width = x.shape[0], x.shape[1] - 2, x.shape[2]
        out = x.new_empty(count, 2 * height, 2 * width, conv.out_channels)
        for (i, j), weight in weights.items():
            seen = x[:, i : i + height + 1]
            out[:, i::2, j::2] = _convolve(seen, weight, conv.bias)[:, :, j : j + width]
        return out

    return kernel


def _halves(weight: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """What two places of the small picture add to an even place of the large one, and to an odd."""
    before, at, after = weight.unbind(dim)
    return torch.stack([before, at + after], dim), torch.stack([before + at, after], dim)


def shrink(module: Downsample, x_BTHWC: Tensor) -> Tensor:
    """Halve height and width, and time where it is halved, as `Downsample`."""
    x = x_BTHWC
    if module.compress_time and x.shape[1] > 1:
        odd = x.shape[1] % 2
        x = torch.cat([x[:, :odd], x[:, odd:].unflatten(1, (-1, 2)).mean(dim=2)], dim=1)
    frames = F.pad(x.flatten(0, 1), (0, 0, 0, 1, 0, 1)).permute(0, 3, 1, 2)
    made = module.conv(frames).permute(0, 2, 3, 1).contiguous()
    return made.unflatten(0, x.shape[:2])
