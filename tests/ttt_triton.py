"""The TTT operations on Triton next to their float64 references: inputs, results, errors.

Without a GPU the kernels run in Triton's interpreter, in fp32 and fp16 (its bf16 products are
wrong); with one they run as compiled, unless TRITON_INTERPRET=1 is set.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from ttv_kernels.ttt_linear.autograd import triton_linear
from ttv_kernels.ttt_linear.reference import reference as linear_reference
from ttv_kernels.ttt_mlp.autograd import triton_mlp
from ttv_kernels.ttt_mlp.reference import reference as mlp_reference

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"


@dataclass(frozen=True)
class Operation:
    """One of the operations; `state` names its parts."""

    triton: Callable[..., Any]
    reference: Callable[..., Any]
    state: tuple[str, ...]

    @property
    def inputs(self) -> tuple[str, ...]:
        return ("q", "k", "target", "eta", "norm_weight", "norm_bias", *self.state)

    @property
    def results(self) -> tuple[str, ...]:
        """Names of what `results` and `expected_results` return."""
        final = (f"final {name}" for name in self.state)
        return ("output", *final, *(f"gradient of {name}" for name in self.inputs))


LINEAR = Operation(triton_linear, linear_reference, ("W1", "b1"))
MLP = Operation(triton_mlp, mlp_reference, ("W1", "b1", "W2", "b2"))


def arguments(
    op: Operation,
    batch: int,
    heads: int,
    length: int,
    width: int,
    hidden: int = 64,
    *,
    dtype: torch.dtype = torch.float32,
) -> list[Tensor]:
    """q, k, target in `dtype`, the rest in fp32; full rank, of size 0.3. `hidden` is TTT-MLP's."""
    generator = torch.Generator().manual_seed(length * width)

    def random(*shape: int) -> Tensor:
        return 0.3 * torch.randn(*shape, generator=generator)

    inner = hidden if op is MLP else width
    tokens = [random(batch, heads, length, width).to(dtype) for _ in range(3)]
    eta = 0.05 * torch.rand(batch, heads, length, generator=generator)
    norm = [1 + random(heads, width), random(heads, width)]
    state = [random(heads, width, inner), random(heads, 1, inner)]
    if op is MLP:
        state += [random(heads, hidden, width), random(heads, 1, width)]
    return [x.to(DEVICE).requires_grad_() for x in (*tokens, eta, *norm, *state)]


def loss(output: Tensor, state: tuple[Tensor, ...]) -> Tensor:
    """A number that sees every entry of output and final state differently, in float64."""
    total = torch.zeros((), dtype=torch.float64, device=output.device)
    for part in (output, *state):
        ramp = torch.linspace(-1, 1, part.numel(), dtype=torch.float64, device=part.device)
        total = total + (part.double() * ramp.view_as(part)).sum()
    return total


def results(op: Operation, inputs: list[Tensor], **settings: int | bool) -> list[Tensor]:
    """Output, final state and every gradient of the kernels."""
    output, state = op.triton(*inputs, **settings)
    return [output, *state, *torch.autograd.grad(loss(output, state), inputs)]


def expected_results(
    op: Operation, inputs: list[Tensor], mini_batch: int, reverse: bool = False
) -> list[Tensor]:
    """The same of the reference in float64."""
    exact = [x.detach().double().requires_grad_() for x in inputs]
    tokens = [x.flip(2) if reverse else x for x in exact[:4]]
    output, state = op.reference(*tokens, *exact[4:6], tuple(exact[6:]), mini_batch)
    output = output.flip(2) if reverse else output
    return [output, *state, *torch.autograd.grad(loss(output, state), exact)]


def error(got: Tensor, expected: Tensor) -> float:
    """The largest error of an entry relative to the largest entry."""
    assert got.shape == expected.shape
    return ((got.double() - expected).abs().max() / expected.abs().max()).item()


def assert_close(
    op: Operation, got: list[Tensor], expected: list[Tensor], tolerance: float
) -> None:
    for name, a, b in zip(op.results, got, expected, strict=True):
        assert error(a, b) < tolerance, f"{name}: {error(a, b):.2e}"
