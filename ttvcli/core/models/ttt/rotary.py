"""Rotary positions: the table and the rotation, shared by attention and TTT.

Shape legend: L tokens, K head width, K/2 pairs.

A table is complex64 `[L, K/2]`: turning the pair (a, b) by an angle is the product of a + ib and
the unit number at that angle, one operation forwards and one backwards.
"""

import torch
from torch import Tensor


def table(angles: Tensor) -> Tensor:
    """Angles in fp32 `[L, K/2]` to unit numbers."""
    return torch.complex(angles.cos(), angles.sin())


def identity(tokens: int, like: Tensor) -> Tensor:
    """Rows that turn by nothing, for text tokens."""
    return like.new_ones(tokens, like.shape[-1])


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Turn the pairs (0, 1), (2, 3), ... of the last axis of `[..., L, K]`.

    Computed in fp32 at least, returned in the dtype of x.
    """
    pairs = x.to(torch.promote_types(x.dtype, torch.float32)).unflatten(-1, (-1, 2))
    turned = torch.view_as_complex(pairs) * table
    return torch.view_as_real(turned).flatten(-2).to(x.dtype)
