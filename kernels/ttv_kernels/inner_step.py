"""What TTT-Linear and TTT-MLP share: the inner loss, its gradient, and the walk over mini-batches.

Shape legend: B batch, H heads, G = B*H independent sequences, L tokens, S tokens of one mini-batch,
K head width.

The inner loss of a token is `0.5 * ||LN(z) - target||^2` with one affine LayerNorm per head.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

TTT_NORM_EPS = 1e-8
GELU_SLOPE = math.sqrt(2 / math.pi)
GELU_CUBIC = 0.044715

State = tuple[Tensor, ...]
# (state, q, k, target, eta of one mini-batch, norm weight, norm bias) -> (next state, output)
Step = Callable[..., tuple[State, Tensor]]


def head_norm(z_GSK: Tensor, weight_G1K: Tensor, bias_G1K: Tensor, eps: float) -> Tensor:
    """LayerNorm over the head width with the affine parameters of each head."""
    return torch.addcmul(bias_G1K, F.layer_norm(z_GSK, z_GSK.shape[-1:], eps=eps), weight_G1K)


def loss_gradient(
    z_GSK: Tensor, target_GSK: Tensor, weight_G1K: Tensor, bias_G1K: Tensor, eps: float
) -> Tensor:
    """Gradient of `0.5 * ||LN(z) - target||^2` with respect to z, through the LayerNorm.

    Equal to `(u - mean(u) - n * mean(u * n)) / sqrt(var + eps)` with `n` the normalised z and
    `u = (LN(z) - target) * weight`: the backward formula of LayerNorm, so PyTorch's fused kernel
    for it does the work (and knows its own derivative).
    """
    width = z_GSK.shape[-1:]
    normed, mean, rstd = torch.native_layer_norm(z_GSK, width, None, None, eps)
    error = torch.addcmul(bias_G1K - target_GSK, normed, weight_G1K) * weight_G1K
    gradient, _, _ = torch.ops.aten.native_layer_norm_backward(
        error, z_GSK, width, mean, rstd, None, None, [True, False, False]
    )
    return gradient


class _GeluGradient(torch.autograd.Function):
    """Its own derivative in closed form: PyTorch's takes twice as many passes over the hidden."""

    @staticmethod
    def forward(ctx: Any, upstream: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(upstream, x)
        return torch.ops.aten.gelu_backward(upstream, x, approximate="tanh")

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        upstream, x = ctx.saved_tensors
        d_upstream = torch.ops.aten.gelu_backward(gradient, x, approximate="tanh")
        return d_upstream, gelu_second_derivative(x).mul_(gradient).mul_(upstream)


def gelu_second_derivative(x: Tensor) -> Tensor:
    """Of the tanh form, with h the tanh and p the slope of its argument:

    `gelu'' = (1 - h^2) (p + x p' / 2 - x h p^2)`.
    """
    square = x * x
    slope = square * (3 * GELU_SLOPE * GELU_CUBIC) + GELU_SLOPE
    h = (square * (GELU_SLOPE * GELU_CUBIC)).add_(GELU_SLOPE).mul_(x).tanh_()
    curve = square.mul_(6 * GELU_SLOPE * GELU_CUBIC).add_(GELU_SLOPE)
    curve.addcmul_(slope.square_().mul_(h), x, value=-1)
    return curve.mul_(h.square_().neg_().add_(1))


def gelu_gradient(upstream: Tensor, x: Tensor) -> Tensor:
    """`upstream * gelu'(x)` for the tanh form of GELU; once differentiable in both arguments."""
    return _GeluGradient.apply(upstream, x)


def scan_sequences(
    q_BHLK: Tensor,
    k_BHLK: Tensor,
    target_BHLK: Tensor,
    eta_BHL: Tensor,
    norm_HK: tuple[Tensor, Tensor],
    state: State,
    *,
    step: Callable[..., tuple[State, Tensor]],
    mini_batch: int,
    checkpoint_group: int | None,
    eps: float,
    reverse: bool = False,
) -> tuple[Tensor, State]:
    """Run `step`, which may be compiled, over all heads of all sequences at once; see `scan`.

    Returns:
        The output `[B, H, L, K]` and the final state, each part `[B, H, ...]`.
    """
    batch, heads = q_BHLK.shape[:2]
    inputs = (
        q_BHLK.flatten(0, 1),
        k_BHLK.flatten(0, 1),
        target_BHLK.flatten(0, 1),
        eta_BHL.flatten(0, 1).unsqueeze(-1),
    )
    initial = tuple(per_sequence(part, batch, heads) for part in state)
    norm = (per_head_row(norm_HK[0], batch), per_head_row(norm_HK[1], batch))
    with_eps: Step = partial(step, eps=eps)
    final, output = scan(with_eps, initial, inputs, norm, mini_batch, checkpoint_group, reverse)
    parts = tuple(part.unflatten(0, (batch, heads)) for part in final)
    return output.unflatten(0, (batch, heads)), parts


def scan(
    step: Step,
    state: State,
    inputs: tuple[Tensor, Tensor, Tensor, Tensor],
    norm: tuple[Tensor, Tensor],
    mini_batch: int,
    checkpoint_group: int | None,
    reverse: bool = False,
) -> tuple[State, Tensor]:
    """Run `step` over the mini-batches of `inputs` (each `[G, L, ...]`), carrying the state.

    `norm`, weight and bias `[G, 1, K]`, is given to every step.

    Each input is split once, so that the backward pass joins the pieces in one operation and its
    cost stays linear in length (indexing one piece at a time would add a full-size gradient per
    piece). A last mini-batch may be shorter: it acts as if padded with tokens of learning rate 0.

    Mini-batches are brought to the dtype of the state; outputs have that of q.

    With `checkpoint_group` = n only the states at every n-th mini-batch are kept for the backward
    pass; what lies between is computed again, group by group.

    With `reverse` the last tokens come first. Nothing is flipped for that: within a mini-batch the
    order of tokens does not matter, so that only the pieces are taken from the other end.
    """
    if checkpoint_group is None or not torch.is_grad_enabled():
        return _walk(step, state, inputs, norm, mini_batch, reverse)

    def run_group(*flat: Tensor) -> tuple[Tensor, ...]:
        state, inputs, norm = flat[:-6], flat[-6:-2], flat[-2:]
        state, output = _walk(step, state, inputs, norm, mini_batch, reverse)
        return (*state, output)

    outputs = []
    for group in _pieces(inputs, mini_batch * checkpoint_group, reverse):
        *state, output = Recomputed.apply(run_group, *state, *group, *norm)
        outputs.append(output)
    return tuple(state), _joined(outputs, reverse)


class Recomputed(torch.autograd.Function):
    """`run(*tensors)` that keeps nothing but the tensors, and runs again in backward.

    The forward pass builds no graph at all, which for small tensors costs more than the sums;
    `torch.utils.checkpoint` would build it and throw it away. All that needs a gradient has to be
    among the tensors.
    """

    @staticmethod
    def forward(
        ctx: Any, run: Callable[..., tuple[Tensor, ...]], *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.run, ctx.autocast = run, _autocast_now(tensors[0].device.type)
        ctx.save_for_backward(*tensors)
        return run(*tensors)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        tensors = [
            x.detach().requires_grad_(needed)
            for x, needed in zip(ctx.saved_tensors, ctx.needs_input_grad[1:], strict=True)
        ]
        with torch.enable_grad(), ctx.autocast():
            results = ctx.run(*tensors)
        pairs = [(x, g) for x, g in zip(results, gradients, strict=True) if x.requires_grad]
        outputs, given = [x for x, _ in pairs], [g for _, g in pairs]
        wanted = [x for x in tensors if x.requires_grad]
        found = iter(torch.autograd.grad(outputs, wanted, given, allow_unused=True))
        return None, *(next(found) if x.requires_grad else None for x in tensors)


def _autocast_now(device: str) -> Callable[[], AbstractContextManager[Any]]:
    """The autocast of this place, to be entered at another; some devices have none."""
    if not torch.amp.is_autocast_available(device):
        return nullcontext
    precision = torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)
    return partial(torch.autocast, device, *precision)


def _no_autocast(device: str) -> AbstractContextManager[Any]:
    if not torch.amp.is_autocast_available(device):
        return nullcontext()
    return torch.autocast(device, enabled=False)


def _walk(
    step: Step,
    state: State,
    inputs: Sequence[Tensor],
    norm: Sequence[Tensor],
    mini_batch: int,
    reverse: bool,
) -> tuple[State, Tensor]:
    outputs = []
    with _no_autocast(inputs[0].device.type):  # the state stays what it is
        for q, k, target, eta in _pieces(inputs, mini_batch, reverse):
            tokens = (x.to(state[0].dtype) for x in (q, k, target, eta))
            state, output = step(state, *tokens, *norm)
            outputs.append(output.to(q.dtype))
    return state, _joined(outputs, reverse)


def _pieces(
    inputs: Sequence[Tensor], size: int, reverse: bool
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Pieces of `size` tokens in the order they are read; the last one read may be shorter."""
    sizes = piece_sizes(inputs[0].shape[1], size, reverse)
    pieces = list(zip(*(x.split(sizes, 1) for x in inputs), strict=True))
    yield from reversed(pieces) if reverse else pieces


def piece_sizes(length: int, size: int, reverse: bool) -> list[int]:
    """Lengths of pieces as they lie in memory; the one read last takes what is left."""
    sizes = [size] * (length // size) + [length % size] * (length % size > 0)
    return sizes[::-1] if reverse else sizes


def _joined(outputs: list[Tensor], reverse: bool) -> Tensor:
    """Undo `_pieces`."""
    if len(outputs) == 1:
        return outputs[0]
    return torch.cat(outputs[::-1] if reverse else outputs, dim=1)


def check_shapes(
    q: Tensor,
    k: Tensor,
    target: Tensor,
    eta: Tensor,
    norm: tuple[Tensor, Tensor],
    *,
    state: Mapping[str, tuple[Tensor, tuple[int, ...]]],
    mini_batch: int,
    checkpoint_group: int | None,
) -> None:
    """Check every argument of a TTT op; `state` maps a name to (tensor, its shape without B, H).

    Raises:
        ValueError: a rank, a size or a count is wrong; the message has both numbers.
    """
    if q.ndim != 4:
        raise ValueError(f"q must be [B, H, L, K], got {q.ndim} dimensions: {tuple(q.shape)}")
    batch, heads, length, width = q.shape
    if length == 0:
        raise ValueError("q holds no tokens: L is 0")
    for name, tensor, shape in (
        ("k", k, q.shape),
        ("target", target, q.shape),
        ("eta", eta, (batch, heads, length)),
        ("norm_weight", norm[0], (heads, width)),
        ("norm_bias", norm[1], (heads, width)),
    ):
        if tensor.shape != shape:
            raise ValueError(f"{name} must be {tuple(shape)}, got {tuple(tensor.shape)}")
    for name, (tensor, tail) in state.items():
        if tensor.shape not in ((heads, *tail), (batch, heads, *tail)):
            raise ValueError(
                f"{name} must be {(heads, *tail)} or {(batch, heads, *tail)}, "
                f"got {tuple(tensor.shape)}"
            )
    if mini_batch < 1:
        raise ValueError(f"mini_batch must be at least 1, got {mini_batch}")
    if checkpoint_group is not None and checkpoint_group < 1:
        raise ValueError(f"checkpoint_group must be at least 1, got {checkpoint_group}")


def per_sequence(state: Tensor, batch: int, heads: int) -> Tensor:
    """`[H, ...]` (one initial state) or `[B, H, ...]` (one per sequence) to `[G, ...]`."""
    tail = state.shape[-2:]
    return state.expand(batch, heads, *tail).reshape(batch * heads, *tail)


def per_head_row(parameter_HK: Tensor, batch: int) -> Tensor:
    """`[H, K]` to `[G, 1, K]`, to be broadcast over the tokens of a mini-batch."""
    heads, width = parameter_HK.shape
    return parameter_HK.expand(batch, heads, width).reshape(batch * heads, 1, width)
