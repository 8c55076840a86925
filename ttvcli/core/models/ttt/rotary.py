"""Rotary positions: the table and the rotation, shared by attention and TTT.

Shape legend: L tokens, K head width, K/2 pairs.

A table is complex64 `[L, K/2]`: turning the pair (a, b) by an angle is the product of a + ib and
the unit number at that angle, one operation forwards and one backwards.
"""

import torch
from torch import Tensor
from ttv_kernels.ttt_prepare.plain import rotate as rotate


def table(angles: Tensor) -> Tensor:
    """Angles in fp32 `[L, K/2]` to unit numbers."""
    return torch.complex(angles.cos(), angles.sin())


def identity(tokens: int, like: Tensor) -> Tensor:
    """Rows that turn by nothing, for text tokens."""
    return like.new_ones(tokens, like.shape[-1])
