"""Rotary positions: the table and the rotation, shared by attention and TTT.

Shape legend: L tokens, K head width, K/2 pairs.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Rotary(NamedTuple):
    """Cosine and sine of the angle of each token and adjacent pair, fp32 `[L, K/2]`."""

    cos: Tensor
    sin: Tensor


def identity(tokens: int, like: Rotary) -> Rotary:
    """Rows that rotate by nothing, for text tokens."""
    shape = (tokens, like.cos.shape[-1])
    return Rotary(like.cos.new_ones(shape), like.cos.new_zeros(shape))


def concatenate(parts: list[Rotary]) -> Rotary:
    """Join tables along the tokens."""
    return Rotary(torch.cat([p.cos for p in parts]), torch.cat([p.sin for p in parts]))


def rotate(x: Tensor, rotary: Rotary) -> Tensor:
    """Rotate the pairs (0, 1), (2, 3), ... of the last axis of `[..., L, K]` by their angle.

    Computed in fp32 at least, returned in the dtype of x.
    """
    pairs = x.to(torch.promote_types(x.dtype, torch.float32)).unflatten(-1, (-1, 2))
    a, b = pairs.unbind(-1)
    cos, sin = rotary
    turned = torch.stack((a * cos - b * sin, b * cos + a * sin), dim=-1)
    return turned.flatten(-2).to(x.dtype)
