"""Preparation of a TTT layer's inputs in plain PyTorch, on any device.

Shape legend: B batch, H heads, L tokens, K head width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ttv_kernels.ttt_prepare.reference import L2_EPS, TARGET_EPS


def plain_prepare(
    q_BHLK: Tensor,
    k_BHLK: Tensor,
    v_BHLK: Tensor,
    rotary: Tensor,
    norm_weight_HK: Tensor,
    norm_bias_HK: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """q, k and target, in fp32 at least."""
    q, k, v = (at_least_fp32(x) for x in (q_BHLK, k_BHLK, v_BHLK))
    q, k = (rotate(F.normalize(x, dim=-1, eps=L2_EPS), rotary) for x in (q, k))
    width = q.shape[-1]
    # LayerNorm divides by K and not by K - 1: the ratio of the two moves into the weight.
    residual = F.layer_norm(v - k, (width,), eps=TARGET_EPS**2)
    weight = at_least_fp32(norm_weight_HK).unsqueeze(1) * ((width - 1) / width) ** 0.5
    return q, k, torch.addcmul(at_least_fp32(norm_bias_HK).unsqueeze(1), residual, weight)


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Turn the pairs (0, 1), (2, 3), ... of the last axis of `[..., L, K]`.

    `table` is complex, `[L, K/2]`. Computed in fp32 at least, returned in the dtype of x.
    """
    pairs = at_least_fp32(x).unflatten(-1, (-1, 2))
    turned = torch.view_as_complex(pairs) * table
    return torch.view_as_real(turned).flatten(-2).to(x.dtype)


def at_least_fp32(x: Tensor) -> Tensor:
    """Half precision to fp32; fp32 and fp64 as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
