"""What the folder of an operation holds, and that its reference is fit to judge the others by."""

import ast
import inspect
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
import ttt_inputs
import ttv_kernels
from helpers import REPOSITORY
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

OPERATIONS = {
    path.parent.name: path.parent
    for path in sorted(Path(ttv_kernels.__path__[0]).glob("*/__init__.py"))
}
WITH_KERNELS = ("ttt_linear", "ttt_mlp", "ttt_prepare")
every = pytest.mark.parametrize("op", OPERATIONS)


def public(op: str) -> Callable[..., Any]:
    """The function that the folder is named for."""
    function: Callable[..., Any] = getattr(import_module(f"ttv_kernels.{op}"), op)
    return function


def test_every_operation_is_there_and_in_the_table() -> None:
    assert set(OPERATIONS) == {*WITH_KERNELS, "ttt_large_chunk"}
    table = (REPOSITORY / "kernels/README.md").read_text(encoding="utf-8")
    assert all(f"\n| `{op}` | " in table for op in OPERATIONS)


@every
def test_the_page_of_an_operation_has_its_formulas(op: str) -> None:
    """Set apart by four spaces: what is computed, and with kernels its derivative and resources."""
    page = (OPERATIONS[op] / "README.md").read_text(encoding="utf-8")
    formulas = [line for line in page.splitlines() if line.startswith("    ") and "=" in line]
    assert len(formulas) >= 2
    if op in WITH_KERNELS:
        parts = ("\n## Backward\n", "\n## The Triton kernels\n", "\n## What it uses\n")
        assert all(part in page for part in parts)


@every
def test_a_folder_has_reference_and_kernels_with_gradients(op: str) -> None:
    files = {path.name for path in OPERATIONS[op].glob("*.py")}
    assert {"__init__.py", "reference.py"} < files
    kernels = {"forward.py", "backward.py", "autograd.py"}
    assert files & kernels == (kernels if op in WITH_KERNELS else set())
    if op not in WITH_KERNELS:
        return
    pytest.importorskip("triton")
    held = vars(import_module(f"ttv_kernels.{op}.autograd")).values()
    assert any(isinstance(x, type) and issubclass(x, torch.autograd.Function) for x in held)
    for name in ("forward.py", "backward.py"):
        tree = ast.parse((OPERATIONS[op] / name).read_text(encoding="utf-8"))
        functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
        made = [ast.unparse(node.decorator_list[0]) for node in functions]
        assert any(node.name.endswith("_kernel") for node in functions)
        assert all(decorator.startswith("triton.jit") for decorator in made)


@every
def test_the_public_function_says_shapes_and_errors(op: str) -> None:
    text = inspect.getdoc(public(op)) or ""
    assert all(part in text for part in ("Args:", "Returns:", "Raises:", "[B, H, L, K]"))


def reference_inputs(op: str) -> tuple[list[Tensor], tuple[Any, ...]]:
    """What a reference is given in float64: tensors (with the state), and counts after them."""
    if op in ("ttt_linear", "ttt_mlp"):
        return ttt_inputs.arguments(op.removeprefix("ttt_"), 7, grad=False), (3,)
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    tokens = [random(2, 3, 7, 8) for _ in range(3)]
    if op == "ttt_prepare":
        return [*tokens, random(7, 8), random(3, 8), random(3, 8)], ()
    state = [random(3, 8, 12), random(3, 12, 8), random(3, 8, 12)]
    return [*tokens, random(3, 2, 3, 7).abs(), *state], (3, 5)


class Float64Only(TorchDispatchMode):
    """Refuse any other float on the way."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for part in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(part, Tensor) and part.is_floating_point():
                assert part.dtype == torch.float64, str(func)
        return result


@every
def test_the_reference_stays_in_float64_and_changes_nothing(op: str) -> None:
    run = import_module(f"ttv_kernels.{op}.reference").reference
    tensors, counts = reference_inputs(op)
    before = [x.clone() for x in tensors]
    first = {"ttt_prepare": 6, "ttt_large_chunk": 4}.get(op, 6)
    state = (tuple(tensors[first:]),) if len(tensors) > first else ()
    random_state = torch.get_rng_state()
    with Float64Only():
        made = [run(*tensors[:first], *state, *counts) for _ in range(2)]
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(x, y) for x, y in zip(tensors, before, strict=True))
    outputs = [x[0] for x in made]
    assert torch.equal(*outputs)
