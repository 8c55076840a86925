"""Preparation of a TTT layer's inputs, the specification: written out, no fused operation.

Written to be read next to README.md, not to be fast. Any dtype; use float64 to check others.
"""

import torch
from torch import Tensor

from ttv_kernels.reference_step import normalise

L2_EPS = 1e-12
TARGET_EPS = 1e-8


def reference(
    q_BHLK: Tensor,
    k_BHLK: Tensor,
    v_BHLK: Tensor,
    rotary_LK: Tensor,
    norm_weight_HK: Tensor,
    norm_bias_HK: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return q, k and target; `rotary` has cosine and sine next to each other, as real numbers."""
    width = q_BHLK.shape[-1]
    q, k = (turned(x / length(x), rotary_LK) for x in (q_BHLK, k_BHLK))
    residual, _ = normalise(v_BHLK - k, TARGET_EPS**2)
    unbiased = ((width - 1) / width) ** 0.5
    return q, k, norm_weight_HK[:, None] * unbiased * residual + norm_bias_HK[:, None]


def length(x: Tensor) -> Tensor:
    """Euclidean length along the last axis, at least L2_EPS."""
    return x.square().sum(-1, keepdim=True).sqrt().clamp_min(L2_EPS)


def turned(x: Tensor, rotary_LK: Tensor) -> Tensor:
    """The pairs (0, 1), (2, 3), ... of the last axis, turned by the angles of the table."""
    a, b = x[..., 0::2], x[..., 1::2]
    cos, sin = rotary_LK[:, 0::2], rotary_LK[:, 1::2]
    return torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1).flatten(-2)
