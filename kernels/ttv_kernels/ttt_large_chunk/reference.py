"""TTT with large chunks, the specification: one sequence, one head, one chunk after another.

Written to be read next to README.md, not to be fast. Any dtype; use float64 to check others.
"""

import torch
from torch import Tensor

# Coefficients of Muon's polynomial, and what keeps norms of zero from dividing by zero.
MUON = (3.4445, -4.7750, 2.0315)
NORM_EPS = 1e-14


def reference(
    q_BHLK: Tensor,
    k_BHLK: Tensor,
    v_BHLK: Tensor,
    eta_3BHL: Tensor,
    state: tuple[Tensor, Tensor, Tensor],
    chunk: int,
    muon_steps: int,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return the output `[B, H, L, K]` and the final (W1, W2, W3), each `[B, H, ...]`."""
    batch, heads, length, _ = q_BHLK.shape
    rows, finals = [], []
    for b in range(batch):
        for h in range(heads):
            w1, w2, w3 = (s[h] if s.ndim == 3 else s[b, h] for s in state)
            tokens = []
            for start in range(0, length, chunk):
                part = (b, h, slice(start, start + chunk))
                q, k, v = q_BHLK[part], k_BHLK[part], v_BHLK[part]
                e1, e2, e3 = (eta[part][:, None] for eta in eta_3BHL)

                a, c, d = k @ w1, k @ w3, v @ w2.T
                delta1 = (e1 * k).T @ (d * c * silu_derivative(a))
                delta2 = (silu(a) * c).T @ (e2 * v)
                delta3 = (e3 * k).T @ (d * silu(a))

                w1 = restore(w1 + muon(delta1, muon_steps), w1)
                w2 = restore(w2 + muon(delta2, muon_steps), w2)
                w3 = restore(w3 + muon(delta3, muon_steps), w3)

                tokens.append((silu(q @ w1) * (q @ w3)) @ w2)
            rows.append(torch.cat(tokens))
            finals.append((w1, w2, w3))
    output = torch.stack(rows).unflatten(0, (batch, heads))
    final = tuple(
        torch.stack(part).unflatten(0, (batch, heads)) for part in zip(*finals, strict=True)
    )
    return output, final


def silu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def silu_derivative(x: Tensor) -> Tensor:
    s = torch.sigmoid(x)
    return s * (1 + x * (1 - s))


def muon(delta: Tensor, steps: int) -> Tensor:
    """A matrix `[M, N]` with its singular values brought near 1, or as it is for 0 steps."""
    if steps == 0:
        return delta
    first, third, fifth = MUON
    x = delta if delta.shape[0] <= delta.shape[1] else delta.T
    x = x / (x.square().sum() + NORM_EPS).sqrt()
    for _ in range(steps):
        gram = x @ x.T
        x = first * x + (third * gram + fifth * gram @ gram) @ x
    return x if delta.shape[0] <= delta.shape[1] else x.T


def restore(new: Tensor, old: Tensor) -> Tensor:
    """`new` with the column norms of `old`."""
    wanted = (old.square().sum(0) + NORM_EPS).sqrt()
    return new * (wanted / (new.square().sum(0) + NORM_EPS).sqrt())
