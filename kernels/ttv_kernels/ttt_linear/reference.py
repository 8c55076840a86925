"""TTT-Linear, the specification: one sequence, one head, one mini-batch after another.

Written to be read next to README.md, not to be fast. Any dtype; use float64 to check others.
"""

import torch
from torch import Tensor

from ttv_kernels.inner_step import TTT_NORM_EPS
from ttv_kernels.reference_step import layer_norm, loss_gradient


def reference(
    q_BHLK: Tensor,
    k_BHLK: Tensor,
    target_BHLK: Tensor,
    eta_BHL: Tensor,
    norm_weight_HK: Tensor,
    norm_bias_HK: Tensor,
    state: tuple[Tensor, Tensor],
    mini_batch: int,
    eps: float = TTT_NORM_EPS,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return the output `[B, H, L, K]` and the final (W1, b1), each `[B, H, ...]`."""
    batch, heads, length, _ = q_BHLK.shape
    rows, finals = [], []
    for b in range(batch):
        for h in range(heads):
            w1, b1 = (s[h] if s.ndim == 3 else s[b, h] for s in state)
            weight, bias = norm_weight_HK[h], norm_bias_HK[h]
            tokens = []
            for start in range(0, length, mini_batch):
                part = (b, h, slice(start, start + mini_batch))
                q, k, target, eta = q_BHLK[part], k_BHLK[part], target_BHLK[part], eta_BHL[part]
                eta = eta[:, None]

                g1 = loss_gradient(k @ w1 + b1, target, weight, bias, eps)

                w1 = w1 - (eta * k).T @ g1
                b1 = b1 - (eta * g1).sum(0, keepdim=True)

                tokens.append(q + layer_norm(q @ w1 + b1, weight, bias, eps))
            rows.append(torch.cat(tokens))
            finals.append((w1, b1))
    output = torch.stack(rows).unflatten(0, (batch, heads))
    final = tuple(
        torch.stack(part).unflatten(0, (batch, heads)) for part in zip(*finals, strict=True)
    )
    return output, final
