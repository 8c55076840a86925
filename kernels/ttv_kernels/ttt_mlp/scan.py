"""TTT-MLP in plain PyTorch: all sequences at once, linear in length forwards and backwards."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ttv_kernels.inner_step import (
    State,
    Step,
    gelu_gradient,
    head_norm,
    loss_gradient,
    per_head_row,
    per_sequence,
    scan,
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


def scan_mlp(
    q_BHLK: Tensor,
    k_BHLK: Tensor,
    target_BHLK: Tensor,
    eta_BHL: Tensor,
    norm_HK: tuple[Tensor, Tensor],
    state: tuple[Tensor, Tensor, Tensor, Tensor],
    *,
    mini_batch: int,
    checkpoint_group: int | None,
    eps: float,
    reverse: bool = False,
    step: Callable[..., tuple[State, Tensor]] = mlp_step,
) -> tuple[Tensor, State]:
    """Return the output `[B, H, L, K]` and the final state, each part `[B, H, ...]`.

    `step` may be a compiled `mlp_step`.
    """
    batch, heads = q_BHLK.shape[:2]
    norm = (per_head_row(norm_HK[0], batch), per_head_row(norm_HK[1], batch))
    with_eps: Step = partial(step, eps=eps)
    inputs = (
        q_BHLK.flatten(0, 1),
        k_BHLK.flatten(0, 1),
        target_BHLK.flatten(0, 1),
        eta_BHL.flatten(0, 1).unsqueeze(-1),
    )
    initial = tuple(per_sequence(part, batch, heads) for part in state)
    final, output = scan(with_eps, initial, inputs, norm, mini_batch, checkpoint_group, reverse)
    unflatten = (batch, heads)
    return output.unflatten(0, unflatten), tuple(part.unflatten(0, unflatten) for part in final)
