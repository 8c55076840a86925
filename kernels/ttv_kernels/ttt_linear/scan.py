"""TTT-Linear in plain PyTorch: all sequences at once, linear in length forwards and backwards."""

from functools import partial

import torch
from torch import Tensor

from ttv_kernels.inner_step import (
    State,
    head_norm,
    loss_gradient,
    scan_sequences,
)


def linear_step(
    state: State,
    q: Tensor,
    k: Tensor,
    target: Tensor,
    eta: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    eps: float,
) -> tuple[State, Tensor]:
    """Update with one mini-batch, then answer its queries: next state and output `[G, S, K]`."""
    w1, b1 = state
    g1 = loss_gradient(torch.baddbmm(b1, k, w1), target, weight, bias, eps) * eta

    w1 = torch.baddbmm(w1, k.mT, g1, alpha=-1)
    b1 = b1 - g1.sum(1, keepdim=True)

    output = q + head_norm(torch.baddbmm(b1, q, w1), weight, bias, eps)
    return (w1, b1), output


scan_linear = partial(scan_sequences, step=linear_step)
