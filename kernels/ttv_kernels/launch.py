"""What the host side of the Triton operations shares: a launch as a value, sizes, layouts.

Shape legend: B batch, H heads, L tokens, S tokens of one mini-batch, K head width.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

# q, k, target [B, H, L, K], eta [B, H, L], norm weight and bias [H, K]
Inputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]

WIDEST_HEAD = 128
DTYPES = (torch.bfloat16, torch.float16, torch.float32)
_SMALLEST_BLOCK = 16  # of a matrix product on tensor cores
_LARGEST_TILE = 4096  # bytes of a tile; with more, registers spill
_MOST_TOKENS = 32  # of a tile
_ROWS_OF_A_WARP = 16  # of a matrix product on tensor cores


@dataclass(frozen=True)
class Walk:
    """How a sequence is walked.

    Attributes:
        mini_batch: tokens of one update.
        checkpoint_group: mini-batches between the states kept for the backward pass.
        eps: of the inner LayerNorm.
        reverse: from the last token to the first.
    """

    mini_batch: int
    checkpoint_group: int
    eps: float
    reverse: bool

    def mini_batches(self, length: int) -> int:
        return -(-length // self.mini_batch)

    def group(self, length: int) -> int:
        """Mini-batches of a checkpoint group; never more than there are."""
        return min(self.checkpoint_group, self.mini_batches(length))

    def groups(self, length: int) -> int:
        return -(-self.mini_batches(length) // self.group(length))


@dataclass(frozen=True)
class Launch:
    """A kernel with everything its launch needs: to run it, or to compile it for another card.

    Attributes:
        kernel: a `triton.jit` function.
        grid: programs along each axis.
        arguments: every parameter of the kernel by its name.
        num_warps, num_stages: warps of a program, and buffers of a pipelined loop.
    """

    kernel: Any
    grid: tuple[int, ...]
    arguments: Mapping[str, Any]
    num_warps: int = 4
    num_stages: int = 2

    @property
    def name(self) -> str:
        return self.kernel.__name__

    def run(self) -> None:
        """Start it on the device of its tensors (or in Triton's interpreter, on a CPU)."""
        device = next(x for x in self.arguments.values() if isinstance(x, Tensor))
        with torch.cuda.device_of(device):
            self.kernel[self.grid](
                **self.arguments, num_warps=self.num_warps, num_stages=self.num_stages
            )


def block(size: int) -> int:
    """The power of two that a kernel pads this size to."""
    return max(_SMALLEST_BLOCK, 1 << (size - 1).bit_length())


def warps(width: int) -> int:
    """Warps that share the features of a `[K, S]` tile without doing anything twice."""
    return block(width) // _ROWS_OF_A_WARP


def walk_arguments(q_BHLK: Tensor, eta_BHL: Tensor, walk: Walk) -> dict[str, Any]:
    """The arguments that every TTT kernel has: sizes, strides, blocks, and how products are made.

    fp16 cannot hold published step sizes times gradients: as operands they are multiplied by
    STEP_SCALE. Gradients from outside have any size, so with fp16 their products run in tf32, which
    has the same precision and the range of fp32.
    """
    _, heads, length, width = q_BHLK.shape
    half = q_BHLK.dtype == torch.float16
    block_k = block(width)
    tokens = min(walk.mini_batch, _LARGEST_TILE // (block_k * q_BHLK.element_size()), _MOST_TOKENS)
    block_s = block(tokens)
    return {
        "eps": walk.eps,
        "heads": heads,
        "length": length,
        "group": walk.group(length),
        **{f"token_stride_{axis}": q_BHLK.stride(i) for i, axis in enumerate("bhl")},
        **{f"eta_stride_{axis}": eta_BHL.stride(i) for i, axis in enumerate("bhl")},
        "WIDTH": width,
        "BLOCK_K": block_k,
        "MINI_BATCH": walk.mini_batch,
        "BLOCK_S": block_s,
        "REVERSE": walk.reverse,
        "STEP_SCALE": block_s * block_k if half else 1,
        "PRECISION": "ieee",
    }


def gradient_arguments(dtype: torch.dtype) -> dict[str, Any]:
    """How a backward kernel makes products with gradients; see `walk_arguments`."""
    if dtype == torch.bfloat16:
        return {"GRADIENT_DTYPE": tl.bfloat16, "GRADIENT_PRECISION": "ieee"}
    precision = "tf32" if dtype == torch.float16 else "ieee"
    return {"GRADIENT_DTYPE": tl.float32, "GRADIENT_PRECISION": precision}


def kernel_inputs(
    q: Tensor, k: Tensor, target: Tensor, eta: Tensor, norm_weight: Tensor, norm_bias: Tensor
) -> Inputs:
    """Tokens and norm as the kernels read them: one layout, the norm in fp32; differentiable."""
    q = dense(q)
    k, target = in_layout_of(q, k), in_layout_of(q, target)
    return (
        q,
        k,
        target,
        dense(eta),
        norm_weight.float().contiguous(),
        norm_bias.float().contiguous(),
    )


def named(inputs: Inputs) -> dict[str, Tensor]:
    """Inputs as arguments of a kernel."""
    names = ("q", "k", "target", "eta", "norm_weight", "norm_bias")
    return dict(zip(names, inputs, strict=True))


def planned_inputs(*, head_width: int, dtype: str, batch: int, heads: int, length: int) -> Inputs:
    """Inputs on the meta device, for launches that are compiled or counted and not run."""
    tokens = planned(batch, heads, length, head_width, dtype=getattr(torch, dtype))
    norm = planned(heads, head_width)
    return tokens, tokens, tokens, planned(batch, heads, length), norm, norm


def planned(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(*shape, dtype=dtype, device="meta")


def needs_gradients(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(x.requires_grad for x in tensors)


def dense(x: Tensor) -> Tensor:
    """x, copied if its elements do not fill their memory or its last axis is not innermost."""
    plain = torch.empty_like(x, device="meta")
    fits = x.stride(-1) == 1 and _same_layout(x, plain)
    return x if fits else x.contiguous()


def in_layout_of(like: Tensor, x: Tensor) -> Tensor:
    """x with the dtype and strides of a dense tensor; differentiable, no copy if it has them."""
    if x.dtype == like.dtype and _same_layout(x, like):
        return x
    return torch.empty_like(like).copy_(x)


def _same_layout(x: Tensor, y: Tensor) -> bool:
    pairs = zip(x.shape, x.stride(), y.stride(), strict=True)
    return all(size == 1 or a == b for size, a, b in pairs)


def check_kernel_takes(kernel: Any, q_BHLK: Tensor) -> None:
    """Raise ValueError for inputs that only the plain scan takes."""
    if not q_BHLK.is_cuda and isinstance(kernel, triton.JITFunction):
        raise ValueError(f"the Triton kernels need a GPU, got tensors on {q_BHLK.device}")
    if q_BHLK.dtype not in DTYPES:
        names = ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES)
        raise ValueError(f"the Triton kernels take {names}, got {q_BHLK.dtype}")
    if q_BHLK.shape[-1] > WIDEST_HEAD:
        raise ValueError(f"head width must be at most {WIDEST_HEAD}, got {q_BHLK.shape[-1]}")
