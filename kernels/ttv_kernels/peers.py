"""The form in which the public PyTorch operations compute TTT: what ours are measured against.

Shape legend: B batch, H heads, L tokens, N mini-batches, S tokens of a mini-batch, K head width.

Three things make the difference, and are kept on purpose:

- the dual form: the output comes from the state *before* the update, corrected through an S x S
  matrix, which takes 11 matrix products for the MLP where update-then-apply takes 7;
- the step sizes as an S x S matrix for each mini-batch, all rows equal;
- full-length inputs indexed once per mini-batch: in the backward pass each index makes a gradient
  of full length, so that its cost is quadratic in length.

With equal rows the results are those of `ttt_linear` and `ttt_mlp`. Written from the formulas.
"""

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ttv_kernels.inner_step import GELU_CUBIC, GELU_SLOPE, TTT_NORM_EPS, State
from ttv_kernels.reference_step import layer_norm, loss_gradient

# (state, q, k, target, eta [B, H, S, S], weight, bias, eps) -> (next state, output)
DualStep = Callable[..., tuple[State, Tensor]]


def linear_step(
    state: State,
    q: Tensor,
    k: Tensor,
    target: Tensor,
    eta: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
) -> tuple[State, Tensor]:
    """TTT-Linear for one mini-batch `[B, H, S, K]`, dual form."""
    w1, b1 = state
    g1 = loss_gradient(k @ w1 + b1, target, weight, bias, eps)

    z1 = q @ w1 + b1 - (eta * (q @ k.mT + 1)) @ g1

    last = eta[..., -1, :, None]
    w1 = w1 - (last * k).mT @ g1
    b1 = b1 - (last * g1).sum(-2, keepdim=True)
    return (w1, b1), q + layer_norm(z1, weight, bias, eps)


def gelu_slope(x: Tensor) -> Tensor:
    """Derivative of the tanh form of GELU, in separate operations."""
    square = x * x
    h = torch.tanh(GELU_SLOPE * x * (1 + GELU_CUBIC * square))
    curve = GELU_SLOPE + 3 * GELU_SLOPE * GELU_CUBIC * square
    return 0.5 * x * (1 - h * h) * curve + 0.5 * (1 + h)


def mlp_step(
    state: State,
    q: Tensor,
    k: Tensor,
    target: Tensor,
    eta: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
) -> tuple[State, Tensor]:
    """TTT-MLP for one mini-batch `[B, H, S, K]`, dual form."""
    w1, b1, w2, b2 = state
    z1 = k @ w1 + b1
    x2 = F.gelu(z1, approximate="tanh")
    g2 = loss_gradient(x2 @ w2 + b2, target, weight, bias, eps)
    g1 = (g2 @ w2.mT) * gelu_slope(z1)

    z1_new = q @ w1 + b1 - (eta * (q @ k.mT + 1)) @ g1
    x2_new = F.gelu(z1_new, approximate="tanh")
    z2_new = x2_new @ w2 + b2 - (eta * (x2_new @ x2.mT + 1)) @ g2

    last = eta[..., -1, :, None]
    w1 = w1 - (last * k).mT @ g1
    b1 = b1 - (last * g1).sum(-2, keepdim=True)
    w2 = w2 - (last * x2).mT @ g2
    b2 = b2 - (last * g2).sum(-2, keepdim=True)
    return (w1, b1, w2, b2), q + layer_norm(z2_new, weight, bias, eps)


def dual_linear(
    q: Tensor,
    k: Tensor,
    target: Tensor,
    eta: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    W1: Tensor,
    b1: Tensor,
    *,
    mini_batch: int,
    checkpoint_group: int | None = None,
    eps: float = TTT_NORM_EPS,
) -> tuple[Tensor, State]:
    """`ttt_linear` the public way; the arguments are the same, L a multiple of the mini-batch."""
    tokens, norm = (q, k, target, eta), (norm_weight, norm_bias)
    return _run(linear_step, tokens, norm, (W1, b1), mini_batch, checkpoint_group, eps)


def dual_mlp(
    q: Tensor,
    k: Tensor,
    target: Tensor,
    eta: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    W1: Tensor,
    b1: Tensor,
    W2: Tensor,
    b2: Tensor,
    *,
    mini_batch: int,
    checkpoint_group: int | None = None,
    eps: float = TTT_NORM_EPS,
) -> tuple[Tensor, State]:
    """`ttt_mlp` the public way; the arguments are the same, L a multiple of the mini-batch."""
    tokens, norm = (q, k, target, eta), (norm_weight, norm_bias)
    return _run(mlp_step, tokens, norm, (W1, b1, W2, b2), mini_batch, checkpoint_group, eps)


def _run(
    step: DualStep,
    tokens: tuple[Tensor, Tensor, Tensor, Tensor],
    norm: tuple[Tensor, Tensor],
    initial: State,
    mini_batch: int,
    checkpoint_group: int | None,
    eps: float,
) -> tuple[Tensor, State]:
    """Walk over the mini-batches, recomputing groups of them in the backward pass."""
    batch, _, length, _ = tokens[0].shape
    if length % mini_batch:
        raise ValueError(f"{length} tokens do not divide into mini-batches of {mini_batch}")
    count = length // mini_batch
    weight, bias = (part.unsqueeze(1) for part in norm)
    q, k, target = (x.unflatten(2, (count, mini_batch)).movedim(2, 0) for x in tokens[:3])
    row = tokens[3].unflatten(2, (count, 1, mini_batch)).movedim(2, 0)
    eta = row.expand(*row.shape[:-2], mini_batch, mini_batch).contiguous()

    def run_group(members: Iterable[int], *state: Tensor) -> tuple[Tensor, ...]:
        outputs = []
        for i in members:
            state, output = step(state, q[i], k[i], target[i], eta[i], weight, bias, eps)
            outputs.append(output)
        return (*state, torch.stack(outputs))

    state: State = tuple(part.expand(batch, *part.shape[-3:]) for part in initial)
    size = checkpoint_group or count
    outputs = []
    for first in range(0, count, size):
        members = range(first, min(first + size, count))
        if checkpoint_group is None or not torch.is_grad_enabled():
            *following, output = run_group(members, *state)
        else:
            *following, output = checkpoint(run_group, members, *state, use_reentrant=False)
        state = tuple(following)
        outputs.append(output)
    return torch.cat(outputs).movedim(0, 2).flatten(2, 3), state
