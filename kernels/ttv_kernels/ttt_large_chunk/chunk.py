"""TTT with large chunks in plain PyTorch: all sequences at once, linear in length both ways.

Shape legend: B batch, H heads, G = B*H independent sequences, L tokens, S tokens of one chunk,
K head width, F inner width.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.utils.checkpoint import checkpoint

from ttv_kernels.inner_step import per_sequence

MUON = (3.4445, -4.7750, 2.0315)
NORM_EPS = 1e-14

State = tuple[Tensor, Tensor, Tensor]
Chunk = tuple[Tensor, ...]  # q, k, v and the three rates of its tokens


def read_chunks(
    q_BHLK: Tensor,
    k_BHLK: Tensor,
    v_BHLK: Tensor,
    eta_3BHL: Tensor,
    state: State,
    *,
    chunk: int,
    muon_steps: int,
    checkpoint_group: int | None,
    reverse: bool,
) -> tuple[Tensor, State]:
    """Return the output `[B, H, L, K]` and the final state, each part `[B, H, ...]`."""
    batch, heads, length = q_BHLK.shape[:3]
    tokens = (x.flatten(0, 1) for x in (q_BHLK, k_BHLK, v_BHLK))
    rates = eta_3BHL.flatten(1, 2).unsqueeze(-1)
    sizes = [chunk] * (length // chunk) + [length % chunk] * (length % chunk > 0)
    step = -1 if reverse else 1  # in reverse the partial chunk is the first of the sequence
    # Each input is split once, so that backward joins the pieces in one operation.
    chunks = list(zip(*(x.split(sizes[::step], dim=1) for x in (*tokens, *rates)), strict=True))

    w1, w2, w3 = (per_sequence(part, batch, heads) for part in state)
    final, outputs = _walk((w1, w2, w3), chunks[::step], muon_steps, checkpoint_group)
    output = torch.cat(outputs[::step], dim=1) if len(outputs) > 1 else outputs[0]
    w1, w2, w3 = (part.unflatten(0, (batch, heads)) for part in final)
    return output.unflatten(0, (batch, heads)), (w1, w2, w3)


def _walk(
    state: State, chunks: Sequence[Chunk], muon_steps: int, checkpoint_group: int | None
) -> tuple[State, list[Tensor]]:
    """Read chunks in the order given; what lies inside a group may be computed again."""

    def read_group(state: State, group: Sequence[Chunk]) -> tuple[State, list[Tensor]]:
        answers = []
        for q, k, v, *rates in group:
            state = updated(state, k, v, rates, muon_steps)
            answers.append(answer(state, q))
        return state, answers

    if checkpoint_group is None or not torch.is_grad_enabled():
        return read_group(state, chunks)
    outputs: list[Tensor] = []
    for start in range(0, len(chunks), checkpoint_group):
        group = chunks[start : start + checkpoint_group]
        state, answers = checkpoint(
            read_group, state, group, use_reentrant=False, preserve_rng_state=False
        )
        outputs += answers
    return state, outputs


def updated(
    state: State, k_GSK: Tensor, v_GSK: Tensor, rates: Sequence[Tensor], muon_steps: int
) -> State:
    """The state after one step on all tokens of a chunk; `rates` are three of `[G, S, 1]`."""
    w1, w2, w3 = state
    gate, up = torch.bmm(k_GSK, w1), torch.bmm(k_GSK, w3)
    active = F.silu(gate)
    # The rates scale whichever factor is narrower.
    change2 = torch.bmm((active * up).mT, rates[1] * v_GSK)
    back = torch.bmm(v_GSK, w2.mT)
    change3 = torch.bmm((rates[2] * k_GSK).mT, back * active)
    del active
    change1 = torch.bmm((rates[0] * k_GSK).mT, silu_gradient(back * up, gate))
    return (
        turned(w1, orthogonal(change1, muon_steps)),
        turned(w2, orthogonal(change2, muon_steps)),
        turned(w3, orthogonal(change3, muon_steps)),
    )


def answer(state: State, q_GSK: Tensor) -> Tensor:
    """What the network says to the queries of a chunk, `[G, S, K]`."""
    w1, w2, w3 = state
    return torch.bmm(F.silu(torch.bmm(q_GSK, w1)) * torch.bmm(q_GSK, w3), w2)


class SiluGradient(torch.autograd.Function):
    """`upstream * silu'(x)` in one operation, which PyTorch has but cannot differentiate."""

    @staticmethod
    def forward(ctx: FunctionCtx, upstream: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(upstream, x)
        return torch.ops.aten.silu_backward(upstream, x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        upstream, x = ctx.saved_tensors
        s = torch.sigmoid(x)
        curvature = s * (1 - s) * (2 + x * (1 - 2 * s))
        return torch.ops.aten.silu_backward(gradient, x), gradient * upstream * curvature


def silu_gradient(upstream: Tensor, x: Tensor) -> Tensor:
    """`upstream * silu'(x)`; differentiable in both arguments."""
    result: Tensor = SiluGradient.apply(upstream, x)
    return result


def orthogonal(change_GMN: Tensor, steps: int) -> Tensor:
    """Each matrix with its singular values brought near 1; as it is for 0 steps."""
    if steps == 0:
        return change_GMN
    first, third, fifth = MUON
    is_tall = change_GMN.shape[1] > change_GMN.shape[2]
    x = change_GMN.mT if is_tall else change_GMN
    x = x * (x.square().sum((1, 2), keepdim=True) + NORM_EPS).rsqrt()
    for _ in range(steps):
        gram = torch.bmm(x, x.mT)
        x = torch.baddbmm(
            x, torch.baddbmm(gram, gram, gram, beta=third, alpha=fifth), x, beta=first
        )
    return x.mT if is_tall else x


def turned(weight_GMN: Tensor, change_GMN: Tensor) -> Tensor:
    """The sum of both, with the column norms of `weight_GMN`."""
    new = weight_GMN + change_GMN
    wanted = weight_GMN.square().sum(1, keepdim=True) + NORM_EPS
    return new * (wanted / (new.square().sum(1, keepdim=True) + NORM_EPS)).sqrt()
