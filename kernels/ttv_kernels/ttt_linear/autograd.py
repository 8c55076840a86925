"""TTT-Linear on Triton: allocation, launches and the autograd function around the two kernels.

Shape legend: B batch, H heads, L tokens, S tokens of one mini-batch, K head width, M mini-batches.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ttv_kernels.inner_step import TTT_NORM_EPS
from ttv_kernels.launch import (
    Inputs,
    Launch,
    Walk,
    check_kernel_takes,
    gradient_arguments,
    in_layout_of,
    kernel_inputs,
    named,
    needs_gradients,
    planned,
    planned_inputs,
    walk_arguments,
    warps,
)
from ttv_kernels.ttt_linear.backward import ttt_linear_bwd_kernel
from ttv_kernels.ttt_linear.forward import ttt_linear_fwd_kernel

# Computing states again costs the same for any group; with this one the scratch stays in L2.
CHECKPOINT_GROUP = 64

State = tuple[Tensor, Tensor]


def triton_linear(
    q_BHLK: Tensor,
    k_BHLK: Tensor,
    target_BHLK: Tensor,
    eta_BHL: Tensor,
    norm_weight_HK: Tensor,
    norm_bias_HK: Tensor,
    W1: Tensor,
    b1: Tensor,
    *,
    mini_batch: int,
    checkpoint_group: int = CHECKPOINT_GROUP,
    eps: float = TTT_NORM_EPS,
    reverse: bool = False,
) -> tuple[Tensor, State]:
    """TTT-Linear by Triton kernels; arguments and results are those of `ttt_linear`, which checks.

    Products have operands of the dtype of q (bf16, fp16 or fp32); state, LayerNorm and sums are
    fp32. K is at most 128. The output has the dtype and the strides of q, the final state is fp32
    with a batch axis.

    Args:
        checkpoint_group: mini-batches between the states kept for the backward pass (README.md has
            the memory it costs).
        reverse: walk from the last token to the first, as if everything were flipped along L and
            the output flipped back.

    Raises:
        ValueError: a dtype or width that the kernels do not take, or tensors on a CPU outside of
            Triton's interpreter.
    """
    check_kernel_takes(ttt_linear_fwd_kernel, q_BHLK)
    walk = Walk(mini_batch, checkpoint_group, eps, reverse)
    inputs = kernel_inputs(q_BHLK, k_BHLK, target_BHLK, eta_BHL, norm_weight_HK, norm_bias_HK)
    per_batch = W1.ndim == 4 or b1.ndim == 4
    batch = q_BHLK.shape[0]
    W1, b1 = (x.expand(batch, *x.shape[-3:]) if per_batch else x for x in (W1, b1))
    initial = (W1.float().contiguous(), b1.float().contiguous())
    if needs_gradients(*inputs, *initial):
        output, W_final, b_final = TritonLinear.apply(*inputs, *initial, walk)
        return output, (W_final, b_final)
    launch = forward_launch(inputs, initial, walk, keep=False)
    launch.run()
    return launch.arguments["output"], final_state(launch)


class TritonLinear(torch.autograd.Function):
    """The two kernels as one operation with gradients; every tensor is in the kernels' layout."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
        q, k, target, eta, norm_weight, norm_bias, W1, b1, walk = arguments
        inputs, initial = (q, k, target, eta, norm_weight, norm_bias), (W1, b1)
        launch = forward_launch(inputs, initial, walk, keep=True)
        launch.run()
        output, final = launch.arguments["output"], final_state(launch)
        kept = (launch.arguments["W_kept"], launch.arguments["b_kept"])
        ctx.save_for_backward(*inputs, *kept)
        ctx.walk = walk
        ctx.shared_initial = initial[0].ndim == 3
        return output, *final

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        d_output, *d_final = gradients
        launch = backward_launch(
            saved[:6],
            kept=saved[6:],
            d_output=in_layout_of(saved[0], d_output),
            d_final=(d_final[0].contiguous(), d_final[1].contiguous()),
            walk=ctx.walk,
        )
        launch.run()
        made = launch.arguments
        d_initial = (made["dW_initial"], made["db_initial"])
        if ctx.shared_initial:
            d_initial = (d_initial[0].sum(0), d_initial[1].sum(0))
        d_norm = (made["d_norm_weight"].sum(0), made["d_norm_bias"].sum(0))
        return made["dq"], made["dk"], made["d_target"], made["d_eta"], *d_norm, *d_initial, None


def forward_launch(inputs: Inputs, initial: State, walk: Walk, *, keep: bool) -> Launch:
    """The forward kernel on fresh results; `keep` the state at the start of each group."""
    q, eta = inputs[0], inputs[3]
    batch, heads, length, width = q.shape
    groups = walk.groups(length) if keep else 0
    arguments = {
        **named(inputs),
        "W_initial": initial[0],
        "b_initial": initial[1],
        "output": torch.empty_like(q),
        "W_final": _fp32(q, batch, heads, width, width),
        "b_final": _fp32(q, batch, heads, 1, width),
        "W_kept": _fp32(q, batch, heads, groups, width, width),
        "b_kept": _fp32(q, batch, heads, groups, width, 1),
        **walk_arguments(q, eta, walk),
        "INITIAL_PER_BATCH": initial[0].ndim == 4,
        "KEEP": keep,
    }
    # Three load a mini-batch while the one before is worked on; wider tiles leave room for fewer.
    stages = 1 if q.dtype == torch.float32 else 3 if width <= 64 else 2
    return Launch(ttt_linear_fwd_kernel, (batch * heads,), arguments, warps(width), stages)


def backward_launch(
    inputs: Inputs, *, kept: State, d_output: Tensor, d_final: State, walk: Walk
) -> Launch:
    """The backward kernel on fresh gradients and scratch."""
    q, eta = inputs[0], inputs[3]
    batch, heads, length, width = q.shape
    slots = walk.group(length) + 1
    arguments = {
        **named(inputs),
        "W_kept": kept[0],
        "b_kept": kept[1],
        "d_output": d_output,
        "dW_final": d_final[0],
        "db_final": d_final[1],
        "W_group": q.new_empty(batch, heads, slots, width, width),
        "b_group": _fp32(q, batch, heads, slots, width, 1),
        "dq": torch.empty_like(q),
        "dk": torch.empty_like(q),
        "d_target": torch.empty_like(q),
        "d_eta": torch.empty_like(eta),
        "d_norm_weight": _fp32(q, batch, heads, width),
        "d_norm_bias": _fp32(q, batch, heads, width),
        "dW_initial": _fp32(q, batch, heads, width, width),
        "db_initial": _fp32(q, batch, heads, 1, width),
        **walk_arguments(q, eta, walk),
        **gradient_arguments(q.dtype),
    }
    stages = 1 if q.dtype == torch.float32 else 2
    return Launch(ttt_linear_bwd_kernel, (batch * heads,), arguments, warps(width), stages)


def final_state(launch: Launch) -> State:
    return launch.arguments["W_final"], launch.arguments["b_final"]


def planned_launches(
    *,
    head_width: int,
    mini_batch: int,
    dtype: str = "bfloat16",
    batch: int = 1,
    heads: int = 48,
    length: int = 18_048,
    checkpoint_group: int = CHECKPOINT_GROUP,
) -> list[Launch]:
    """The forward and backward launches of a call of this size, on the meta device.

    For compiling ahead of time and for adding up memory; nothing is allocated.
    """

    walk = Walk(mini_batch, checkpoint_group, TTT_NORM_EPS, reverse=False)
    inputs = planned_inputs(
        head_width=head_width, dtype=dtype, batch=batch, heads=heads, length=length
    )
    initial = (planned(heads, head_width, head_width), planned(heads, 1, head_width))
    forward = forward_launch(inputs, initial, walk, keep=True)
    backward = backward_launch(
        inputs,
        kept=(forward.arguments["W_kept"], forward.arguments["b_kept"]),
        d_output=inputs[0],
        d_final=final_state(forward),
        walk=walk,
    )
    return [forward, backward]


def _fp32(like: Tensor, *shape: int) -> Tensor:
    return torch.empty(*shape, dtype=torch.float32, device=like.device)
