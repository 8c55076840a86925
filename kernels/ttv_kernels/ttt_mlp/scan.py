"""TTT-MLP in plain PyTorch: all sequences at once, linear in length forwards and backwards."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ttv_kernels.inner_step import (
    State,
    gelu_gradient,
    head_norm,
    loss_gradient,
    scan_sequences,
)


def mlp_step(
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
    w1, b1, w2, b2 = state
    z1 = torch.baddbmm(b1, k, w1)
    x2 = F.gelu(z1, approximate="tanh")
    z2 = torch.baddbmm(b2, x2, w2)
    # The learning rates scale the gradient at z2 and reach the first layer through it.
    g2 = loss_gradient(z2, target, weight, bias, eps) * eta
    g1 = gelu_gradient(torch.bmm(g2, w2.mT), z1)

    w1 = torch.baddbmm(w1, k.mT, g1, alpha=-1)
    b1 = b1 - g1.sum(1, keepdim=True)
    w2 = torch.baddbmm(w2, x2.mT, g2, alpha=-1)
    b2 = b2 - g2.sum(1, keepdim=True)

    hidden = F.gelu(torch.baddbmm(b1, q, w1), approximate="tanh")
    output = q + head_norm(torch.baddbmm(b2, hidden, w2), weight, bias, eps)
    return (w1, b1, w2, b2), output


scan_mlp = partial(scan_sequences, step=mlp_step)
