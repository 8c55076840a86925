"""What the Triton kernels keep, copy and recompute: by bytes, as the READMEs state them."""

import re
from importlib import import_module
from typing import Any

import pytest
import torch
from helpers import REPOSITORY
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from ttt_inputs import CountingBytes

pytest.importorskip("triton")
from ttt_triton import LINEAR, MLP, Operation, arguments, assert_close, loss, results
from ttv_kernels.launch import Launch

both = pytest.mark.parametrize("op", [LINEAR, MLP], ids=["linear", "mlp"])
MIB = 2**20
# tokens, mini-batch, mini-batches, group, MiB kept, MiB of scratch
ROW = re.compile(
    r"\| ([\d,]+) \(\d+ s\) \| (\d+) \| ([\d,]+) \| (\d+) \| ([\d,.]+) MiB \| (.*) MiB"
)
# Of the backward pass: what it makes in fresh memory that is no gradient of an argument.
SCRATCH = {
    "ttt_linear": {"W_group", "b_group"},
    "ttt_mlp": {
        *("weights", "biases", "kept_weights", "kept_biases"),
        *("query_d_weights", "query_d_biases", "d_weights", "d_biases", "d_operands"),
        *("answers", "norm_parts", "work"),
    },
}


def size(launches: list[Launch], names: set[str]) -> float:
    """MiB of the distinct tensors that launches have under these names."""
    found = {
        id(x): x.nbytes
        for launch in launches
        for name, x in launch.arguments.items()
        if name in names and isinstance(x, Tensor)
    }
    return sum(found.values()) / MIB


@pytest.mark.parametrize("name", SCRATCH)
def test_the_table_of_the_readme_is_what_the_launches_allocate(name: str) -> None:
    page = (REPOSITORY / f"kernels/ttv_kernels/{name}/README.md").read_text(encoding="utf-8")
    planned = import_module(f"ttv_kernels.{name}.autograd").planned_launches
    rows = [[cell.replace(",", "") for cell in row] for row in ROW.findall(page)]
    assert len(rows) >= 4
    for length, mini_batch, mini_batches, group, kept, scratch in rows:
        assert -(-int(length) // int(mini_batch)) == int(mini_batches)
        forward, *backward = planned(
            head_width=64,
            mini_batch=int(mini_batch),
            length=int(length),
            checkpoint_group=int(group),
        )
        for stated, launches, names in (
            (kept, [forward], {"W_kept", "b_kept", "kept_weights", "kept_biases"}),
            (scratch, backward, SCRATCH[name]),
        ):
            digits = len(stated.partition(".")[2])
            assert float(stated) == round(size(launches, names), digits)


@both
@pytest.mark.parametrize("group", [1, 2, 100])
def test_nothing_is_kept_but_inputs_and_the_states_of_the_formula(op: Operation, group: int):
    heads, length, width, hidden, mini_batch = 2, 53, 32, 64, 16
    inputs = arguments(op, 1, heads, length, width, hidden)
    own = {x.untyped_storage().data_ptr() for x in inputs[:6]}
    kept: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        if x.untyped_storage().data_ptr() not in own:
            kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        output, state = op.triton(*inputs, mini_batch=mini_batch, checkpoint_group=group)
    mini_batches = -(-length // mini_batch)
    numbers = width**2 + width if op is LINEAR else 2 * width * hidden + hidden + width
    assert sum(kept.values()) == 4 * heads * -(-mini_batches // min(group, mini_batches)) * numbers
    assert output.requires_grad
    assert all(part.requires_grad for part in state)


@both
def test_reverse_copies_nothing(op: Operation) -> None:
    """As many bytes as forwards, either way; a flipped copy of one input would be more."""
    written = []
    for reverse in (False, True):
        inputs = arguments(op, 1, 1, 37, 32)
        with CountingBytes() as counter:
            output, state = op.triton(*inputs, mini_batch=16, checkpoint_group=2, reverse=reverse)
            torch.autograd.grad(loss(output, state), inputs)
        written.append(counter.bytes)
    assert written[0] == written[1]


@pytest.mark.parametrize(("op", "reverse"), [(LINEAR, False), (MLP, True)], ids=["linear", "mlp"])
def test_tiles_may_be_computed_again_in_backward(op: Operation, reverse: bool) -> None:
    """As a caller does that keeps nothing of a long sequence but the state before each segment."""
    inputs = arguments(op, 1, 1, 51, 16)
    whole = results(op, inputs, mini_batch=16, checkpoint_group=2, reverse=reverse)
    counts = {"mini_batch": 16, "checkpoint_group": 2, "reverse": reverse}

    def tile(start: int, end: int, *state: Tensor) -> tuple[Any, ...]:
        tokens = [x[:, :, start:end] for x in inputs[:4]]
        output, state = op.triton(*tokens, *inputs[4:6], *state, **counts)
        return output, *state

    state, outputs = tuple(inputs[6:]), []
    borders = [(0, 16), (16, 48), (48, 51)] if not reverse else [(35, 51), (3, 35), (0, 3)]
    for start, end in borders:
        output, *state = checkpoint(tile, start, end, *state, use_reentrant=False)
        outputs.append(output)
    output = torch.cat(outputs[::-1] if reverse else outputs, dim=2)
    tiled = [output, *state, *torch.autograd.grad(loss(output, tuple(state)), inputs)]
    assert_close(op, tiled, [x.double() for x in whole], 2e-6)
