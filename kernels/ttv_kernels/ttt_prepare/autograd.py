"""Preparation of a TTT layer's inputs on Triton: allocation, launches and the autograd function.

Shape legend: B batch, H heads, L tokens, S tokens of one tile, K head width.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ttv_kernels.launch import (
    Launch,
    check_kernel_takes,
    dense,
    in_layout_of,
    needs_gradients,
    planned,
    planned_inputs,
)
from ttv_kernels.ttt_prepare.backward import ttt_prepare_bwd_kernel
from ttv_kernels.ttt_prepare.forward import ttt_prepare_fwd_kernel
from ttv_kernels.ttt_prepare.reference import L2_EPS, TARGET_EPS

TILE = 2048  # elements of a tile, for 4 warps
TILES = 8  # of a program that goes backward: fewer sums to store

# q, k, v [B, H, L, K], rotary [L, K], norm weight and bias [H, K]
Inputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def triton_prepare(
    q_BHLK: Tensor,
    k_BHLK: Tensor,
    v_BHLK: Tensor,
    rotary: Tensor,
    norm_weight_HK: Tensor,
    norm_bias_HK: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `ttt_prepare`, which checks; results have the dtype and the strides of q.

    Raises:
        ValueError: a dtype or width that the kernels do not take, or tensors on a CPU outside of
            Triton's interpreter.
    """
    check_kernel_takes(ttt_prepare_fwd_kernel, q_BHLK)
    width = q_BHLK.shape[-1]
    if width < 2 or width & (width - 1):
        raise ValueError(f"head width must be a power of two, got {width}")
    q = dense(q_BHLK)
    unbiased = ((width - 1) / width) ** 0.5
    inputs = (
        q,
        in_layout_of(q, k_BHLK),
        in_layout_of(q, v_BHLK),
        torch.view_as_real(rotary).flatten(-2).float().contiguous(),
        (norm_weight_HK.float() * unbiased).contiguous(),
        norm_bias_HK.float().contiguous(),
    )
    if needs_gradients(*inputs):
        return TritonPrepare.apply(*inputs)
    launch = forward_launch(inputs)
    launch.run()
    return _made(launch)


class TritonPrepare(torch.autograd.Function):
    """The two kernels as one operation with gradients; it keeps its inputs and nothing else."""

    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v, rotary, norm_weight, norm_bias = inputs
        launch = forward_launch((q, k, v, rotary, norm_weight, norm_bias))
        launch.run()
        ctx.save_for_backward(*inputs)
        return _made(launch)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        inputs = ctx.saved_tensors
        dq, dk, d_target = (in_layout_of(inputs[0], x) for x in gradients)
        launch = backward_launch(inputs, (dq, dk, d_target))
        launch.run()
        made = launch.arguments
        d_weight, d_bias = made["norm_parts"].sum((0, 2)).unbind(1)
        return made["dq"], made["dk"], made["dv"], None, d_weight, d_bias


def _made(launch: Launch) -> tuple[Tensor, Tensor, Tensor]:
    made = launch.arguments
    return made["q_out"], made["k_out"], made["target"]


def forward_launch(inputs: Inputs) -> Launch:
    """The forward kernel on fresh results."""
    q, k, v, rotary, norm_weight, norm_bias = inputs
    arguments = {
        "q": q,
        "k": k,
        "v": v,
        "rotary": rotary,
        "norm_weight": norm_weight,
        "norm_bias": norm_bias,
        "q_out": torch.empty_like(q),
        "k_out": torch.empty_like(q),
        "target": torch.empty_like(q),
        **_sizes(q),
    }
    tiles = -(-q.shape[2] // arguments["BLOCK_S"])
    return Launch(ttt_prepare_fwd_kernel, (q.shape[0] * q.shape[1], tiles), arguments)


def backward_launch(inputs: Inputs, gradients: tuple[Tensor, Tensor, Tensor]) -> Launch:
    """The backward kernel on fresh gradients."""
    q, k, v, rotary, norm_weight, _ = inputs
    batch, heads, length, width = q.shape
    sizes = _sizes(q)
    programs = -(-length // (sizes["BLOCK_S"] * TILES))
    arguments = {
        "q": q,
        "k": k,
        "v": v,
        "rotary": rotary,
        "norm_weight": norm_weight,
        "dq_out": gradients[0],
        "dk_out": gradients[1],
        "d_target": gradients[2],
        "dq": torch.empty_like(q),
        "dk": torch.empty_like(q),
        "dv": torch.empty_like(q),
        "norm_parts": torch.empty(
            batch, heads, programs, 2, width, dtype=torch.float32, device=q.device
        ),
        **sizes,
        "TILES": TILES,
    }
    return Launch(ttt_prepare_bwd_kernel, (batch * heads, programs), arguments)


def planned_launches(
    *,
    head_width: int,
    dtype: str = "bfloat16",
    batch: int = 1,
    heads: int = 48,
    length: int = 18_048,
) -> list[Launch]:
    """The forward and backward launches of a call of this size, on the meta device."""
    q, k, v, _, *norm = planned_inputs(
        head_width=head_width, dtype=dtype, batch=batch, heads=heads, length=length
    )
    inputs = (q, k, v, planned(length, head_width), norm[0], norm[1])
    return [forward_launch(inputs), backward_launch(inputs, (q, k, v))]


def _sizes(q: Tensor) -> dict[str, Any]:
    width = q.shape[-1]
    return {
        "l2_eps": L2_EPS,
        "target_eps": TARGET_EPS**2,
        "heads": q.shape[1],
        "length": q.shape[2],
        **{f"stride_{axis}": q.stride(i) for i, axis in enumerate("bhl")},
        "WIDTH": width,
        "BLOCK_S": TILE // width,
    }
