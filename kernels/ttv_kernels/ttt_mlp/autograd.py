"""TTT-MLP on Triton: allocation, launches and the autograd function around the kernels.

Shape legend: B batch, H heads, L tokens, S tokens of one mini-batch, K head width, F hidden width,
M mini-batches. For the kernels a state is two fp32 tensors: weights `[B, H, 2, K, F]` (W1 and the
transpose of W2) and biases `[B, H, F + K]` (b1 and b2).
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ttv_kernels.inner_step import TTT_NORM_EPS
from ttv_kernels.launch import (
    Inputs,
    Launch,
    Walk,
    block,
    check_kernel_takes,
    gradient_arguments,
    in_layout_of,
    kernel_inputs,
    named,
    needs_gradients,
    planned,
    planned_inputs,
    walk_arguments,
)
from ttv_kernels.ttt_mlp.backward import ttt_mlp_bwd_keys_kernel, ttt_mlp_bwd_queries_kernel
from ttv_kernels.ttt_mlp.forward import ttt_mlp_fwd_kernel

CHECKPOINT_GROUP = 16
LARGEST_MINI_BATCH = 64
SLICES = (64, 32, 16)  # hidden columns of one slice
BLOCK_ROWS = 16  # tokens at a time where nothing is a matrix product
WIDE_HEAD = 64  # wider ones share a tile of more than 16 tokens among 8 warps

State = tuple[Tensor, Tensor]
InnerState = tuple[Tensor, Tensor, Tensor, Tensor]


def triton_mlp(
    q_BHLK: Tensor,
    k_BHLK: Tensor,
    target_BHLK: Tensor,
    eta_BHL: Tensor,
    norm_weight_HK: Tensor,
    norm_bias_HK: Tensor,
    W1: Tensor,
    b1: Tensor,
    W2: Tensor,
    b2: Tensor,
    *,
    mini_batch: int,
    checkpoint_group: int = CHECKPOINT_GROUP,
    eps: float = TTT_NORM_EPS,
    reverse: bool = False,
) -> tuple[Tensor, InnerState]:
    """TTT-MLP by Triton kernels; arguments and results are those of `ttt_mlp`, which checks.

    Products have operands of the dtype of q (bf16, fp16 or fp32); state, LayerNorm and sums are
    fp32. K is at most 128, F a multiple of 16. The output has the dtype and the strides of q, the
    final state is fp32 with a batch axis.

    Args:
        mini_batch: tokens of one update, at most 64.
        checkpoint_group: mini-batches between the states kept for the backward pass (README.md has
            the memory it costs).
        reverse: walk from the last token to the first, as if everything were flipped along L and
            the output flipped back.

    Raises:
        ValueError: a dtype or size that the kernels do not take, or tensors on a CPU outside of
            Triton's interpreter.
    """
    hidden = W1.shape[-1]
    check_kernel_takes(ttt_mlp_fwd_kernel, q_BHLK)
    if mini_batch > LARGEST_MINI_BATCH:
        raise ValueError(f"mini_batch must be at most {LARGEST_MINI_BATCH}, got {mini_batch}")
    if hidden % SLICES[-1]:
        raise ValueError(f"hidden width must be a multiple of {SLICES[-1]}, got {hidden}")

    walk = Walk(mini_batch, checkpoint_group, eps, reverse)
    inputs = kernel_inputs(q_BHLK, k_BHLK, target_BHLK, eta_BHL, norm_weight_HK, norm_bias_HK)
    initial = packed((W1, b1, W2, b2), q_BHLK.shape[0])
    if needs_gradients(*inputs, *initial):
        output, *final = TritonMLP.apply(*inputs, *initial, walk)
    else:
        launch = forward_launch(inputs, initial, walk, keep=False)
        launch.run()
        output, final = launch.arguments["output"], initial
    return output, unpacked((final[0], final[1]))


def packed(state: InnerState, batch: int) -> State:
    """The state as the kernels have it, always a copy; differentiable."""
    W1, b1, W2, b2 = (x.expand(batch, *x.shape[-3:]).float() for x in state)
    return torch.stack((W1, W2.mT), dim=2), torch.cat((b1, b2), dim=-1).squeeze(2)


def unpacked(state: State) -> InnerState:
    """The counterpart of `packed`."""
    weights, biases = state
    hidden = weights.shape[-1]
    b1, b2 = biases.unsqueeze(2).tensor_split([hidden], dim=-1)
    W1, W2 = weights[:, :, 0], weights[:, :, 1].mT
    return W1.contiguous(), b1.contiguous(), W2.contiguous(), b2.contiguous()


class TritonMLP(torch.autograd.Function):
    """The kernels as one operation with gradients; every tensor is in the kernels' layout."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
        *tensors, walk = arguments
        inputs = tuple(tensors[:6])
        final = (tensors[6].clone(), tensors[7].clone())
        launch = forward_launch(inputs, final, walk, keep=True)
        launch.run()
        kept = (launch.arguments["kept_weights"], launch.arguments["kept_biases"])
        ctx.save_for_backward(*inputs, *kept)
        ctx.walk = walk
        return launch.arguments["output"], *final

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, kept_weights, kept_biases = ctx.saved_tensors
        d_output, *d_final = gradients
        plan = plan_backward(
            tuple(inputs),
            in_layout_of(inputs[0], d_output),
            (d_final[0].clone(), d_final[1].clone()),
            ctx.walk,
        )
        d_norm = torch.zeros_like(plan.norm_parts[0, :, 0])
        for group in reversed(range(kept_weights.shape[2])):
            d_norm += plan.run(group, (kept_weights[:, :, group], kept_biases[:, :, group]))
        made = plan.keys.arguments
        return (
            plan.queries.arguments["dq"],
            made["dk"],
            made["d_target"],
            made["d_eta"],
            d_norm[:, 0] + d_norm[:, 2],
            d_norm[:, 1] + d_norm[:, 3],
            *plan.d_state,
            None,
        )


@dataclass(frozen=True)
class BackwardPlan:
    """The launches that go backward through one checkpoint group, and what they share.

    Attributes:
        trace, queries, keys: launches for a whole group at the start of the sequence.
        walk: of the forward pass.
        state: scratch for the state while `trace` walks it.
        slots: the states before and after each mini-batch of the group.
        d_state: gradient at the state, after the groups that were run.
        norm_parts: `[B, H, group, 4, K]`, gradients at the norm's weight and bias, twice.
    """

    trace: Launch
    queries: Launch
    keys: Launch
    walk: Walk
    state: State
    slots: State
    d_state: State
    norm_parts: Tensor

    def run(self, group: int, kept: State) -> Tensor:
        """Go through this group; later ones were before. Returns norm gradients `[H, 4, K]`."""
        batch, heads, length, _ = self.queries.arguments["q"].shape
        size = self.walk.group(length)
        first = group * size
        count = min(size, self.walk.mini_batches(length) - first)
        part = {"first": first, "count": count}

        for live, start in zip(self.state, kept, strict=True):
            live.copy_(start)
        _of(self.trace, part).run()
        for slots, end in zip(self.slots, self.state, strict=True):
            slots[:, :, count].copy_(end)
        queries = _of(self.queries, {"first": first})
        replace(queries, grid=(batch * heads, count)).run()
        d_weights, d_biases = self.d_state
        d_weights += self.queries.arguments["d_weights"][:, :, count - 1]
        d_biases += self.queries.arguments["d_biases"][:, :, count - 1]
        self.keys.arguments["d_operands"].copy_(d_weights)
        _of(self.keys, part).run()
        return self.norm_parts[:, :, :count].sum((0, 2))


def _of(launch: Launch, arguments: dict[str, Any]) -> Launch:
    return replace(launch, arguments={**launch.arguments, **arguments})


def forward_launch(inputs: Inputs, state: State, walk: Walk, *, keep: bool) -> Launch:
    """The forward kernel, which updates `state`; `keep` the state at the start of each group."""
    q = inputs[0]
    groups = walk.groups(q.shape[2]) if keep else 0
    kept = _states(groups, *state)
    arguments = {
        **named(inputs),
        "weights": state[0],
        "biases": state[1],
        "kept_weights": kept[0],
        "kept_biases": kept[1],
        "output": torch.empty_like(q),
        "first": 0,
        "count": walk.mini_batches(q.shape[2]),
        "slots": groups,
        "KEEP": keep,
        "TRACE": False,
        **_sizes(inputs, state, walk),
    }
    return _launch(ttt_mlp_fwd_kernel, inputs, arguments)


def plan_backward(inputs: Inputs, d_output: Tensor, d_state: State, walk: Walk) -> BackwardPlan:
    """Allocate gradients and scratch; `d_state` is updated by running the plan."""
    q, k, target, eta, norm_weight, norm_bias = inputs
    batch, heads, length, width = q.shape
    group = walk.group(length)
    state = (torch.empty_like(d_state[0]), torch.empty_like(d_state[1]))
    slots = _states(group + 1, *state, dtype=q.dtype)
    query_d_state = _states(group, *d_state)
    rows = block(walk.mini_batch)
    answers = state[0].new_empty(batch, heads, group, rows, width)
    norm_parts = state[0].new_empty(batch, heads, group, 4, width)

    forward = forward_launch(inputs, state, walk, keep=False)
    trace = {
        "kept_weights": slots[0],
        "kept_biases": slots[1],
        "output": answers,
        "slots": group + 1,
        "group": 1,
        "KEEP": True,
        "TRACE": True,
    }
    operands = torch.bfloat16 if q.dtype == torch.bfloat16 else torch.float32
    shared = {
        "norm_weight": norm_weight,
        "weights": slots[0],
        "biases": slots[1],
        "norm_parts": norm_parts,
        "first": 0,
        **_sizes(inputs, state, walk),
        **gradient_arguments(q.dtype),
    }
    queries = {
        "q": q,
        "d_output": d_output,
        "dq": torch.empty_like(q),
        "d_weights": query_d_state[0],
        "d_biases": query_d_state[1],
    }
    keys = {
        "k": k,
        "target": target,
        "eta": eta,
        "norm_bias": norm_bias,
        "answers": answers,
        "query_d_weights": query_d_state[0],
        "query_d_biases": query_d_state[1],
        "d_weights": d_state[0],
        "d_biases": d_state[1],
        "d_operands": torch.empty_like(d_state[0], dtype=operands),
        "work": state[0].new_empty(batch, heads, 2, rows, width),
        "dk": torch.empty_like(q),
        "d_target": torch.empty_like(q),
        "d_eta": torch.empty_like(eta),
        "count": group,
        "BLOCK_ROWS": BLOCK_ROWS,
        # as for the largest mini-batches: its slice loop holds the most
        "C": _slice(state[0].shape[-1], q, tokens=LARGEST_MINI_BATCH),
    }
    return BackwardPlan(
        trace=_of(forward, {**trace, "count": group}),
        queries=_launch(ttt_mlp_bwd_queries_kernel, inputs, {**shared, **queries}),
        keys=_launch(ttt_mlp_bwd_keys_kernel, inputs, {**shared, **keys}),
        walk=walk,
        state=state,
        slots=slots,
        d_state=d_state,
        norm_parts=norm_parts,
    )


def planned_launches(
    *,
    head_width: int,
    mini_batch: int,
    hidden: int | None = None,
    dtype: str = "bfloat16",
    batch: int = 1,
    heads: int = 48,
    length: int = 18_048,
    checkpoint_group: int = CHECKPOINT_GROUP,
) -> list[Launch]:
    """The launches of a forward and backward pass of this size, on the meta device.

    For compiling ahead of time and for adding up memory; nothing is allocated. `hidden` is 4 K
    unless given. Those of the backward pass run once for every checkpoint group.
    """

    hidden = hidden or 4 * head_width
    walk = Walk(mini_batch, checkpoint_group, TTT_NORM_EPS, reverse=False)
    inputs = planned_inputs(
        head_width=head_width, dtype=dtype, batch=batch, heads=heads, length=length
    )
    state = (
        planned(batch, heads, 2, head_width, hidden),
        planned(batch, heads, hidden + head_width),
    )
    backward = plan_backward(inputs, inputs[0], state, walk)
    return [
        forward_launch(inputs, state, walk, keep=True),
        backward.trace,
        backward.queries,
        backward.keys,
    ]


def _states(
    count: int, weights: Tensor, biases: Tensor, dtype: torch.dtype = torch.float32
) -> State:
    """Room for `count` states of every sequence; the weights of each in `dtype`."""
    return (
        weights.new_empty(*weights.shape[:2], count, *weights.shape[2:], dtype=dtype),
        biases.new_empty(*biases.shape[:2], count, *biases.shape[2:]),
    )


def _sizes(inputs: Inputs, state: State, walk: Walk) -> dict[str, Any]:
    q, eta = inputs[0], inputs[3]
    hidden = state[0].shape[-1]
    return {
        **walk_arguments(q, eta, walk),
        "hidden": hidden,
        "BLOCK_S": block(walk.mini_batch),
        "C": _slice(hidden, q, tokens=walk.mini_batch),
    }


def _slice(hidden: int, q: Tensor, *, tokens: int) -> int:
    """Hidden columns of a slice: as many as divide F and leave registers enough."""
    most = (32 if tokens > 32 else 64) // max(1, block(q.shape[-1]) // 64)
    if q.dtype == torch.float32:
        most = SLICES[-1]
    return next(size for size in SLICES if size <= most and hidden % size == 0)


def _launch(kernel: Any, inputs: Inputs, arguments: dict[str, Any]) -> Launch:
    """One program for each sequence of each head; drops what the kernel does not take.

    Products of fp32 have no tensor cores and hold whole rows in registers: with slices of 16 and
    twice the warps a thread spills at most 32 bytes in place of 2 to 9 KB. Tiles of wide heads are
    as large: twice the warps spill a third and less of what 4 do.
    """
    q = inputs[0]
    own = {name: arguments[name] for name in kernel.arg_names}
    wide = own["BLOCK_K"] > WIDE_HEAD and own["BLOCK_S"] > BLOCK_ROWS
    num_warps = 8 if wide or q.dtype == torch.float32 else 4
    return Launch(kernel, (q.shape[0] * q.shape[1],), own, num_warps=num_warps, num_stages=1)
