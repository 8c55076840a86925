"""The TTT layer: either end first, groups of mini-batches in training, and what those keep."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from helpers import REPOSITORY
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ttvcli.core.models.ttt.layer import KINDS, TTTLayer
from ttvcli.core.models.ttt.rotary import table

HEADS, WIDTH, MINI_BATCH = 2, 32, 8
each_kind = pytest.mark.parametrize("kind", KINDS)


def make(kind: str) -> TTTLayer:
    """A layer in float64 of which every parameter matters."""
    generator = torch.Generator().manual_seed(0)
    layer = TTTLayer(WIDTH, HEADS, kind, MINI_BATCH, base_lr=1.0).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return layer


def inputs(length: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, length, WIDTH, generator=generator, dtype=torch.float64)
    angles = torch.rand(length, WIDTH // HEADS // 2, generator=generator, dtype=torch.float64)
    return x.requires_grad_(), table(angles)


def gradients(layer: TTTLayer, x: Tensor, y: Tensor) -> list[Tensor]:
    weight = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    return list(torch.autograd.grad((y * weight).sum(), [x, *layer.parameters()]))


def largest(ours: list[Tensor], theirs: list[Tensor]) -> float:
    pairs = zip(ours, theirs, strict=True)
    return max(((a - b).abs().max() / b.abs().max()).item() for a, b in pairs)


@each_kind
@pytest.mark.parametrize("length", [48, 45], ids=["whole", "partial-last"])
def test_reverse_equals_flipped_tokens_and_positions(kind: str, length: int) -> None:
    layer, (x, rotary) = make(kind), inputs(length)
    y = layer(x, rotary, reverse=True)
    expected = layer(x.flip(1), rotary.flip(0)).flip(1)
    ours, theirs = gradients(layer, x, y), gradients(layer, x, expected)
    assert largest([y, *ours], [expected, *theirs]) < 1e-10


@each_kind
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("group", [1, 2, 100])
def test_groups_change_no_result_and_no_gradient(kind: str, reverse: bool, group: int) -> None:
    layer, (x, rotary) = make(kind), inputs(45)
    source = torch.arange(44, -1, -1)
    expected = layer(x, rotary, source, reverse)
    theirs = gradients(layer, x, expected)
    layer.checkpoint_group = group
    y = layer(x, rotary, source, reverse)
    assert largest([y, *gradients(layer, x, y)], [expected, *theirs]) < 1e-10


@each_kind
def test_groups_are_computed_again_under_the_autocast_of_the_forward_pass(kind: str) -> None:
    """Backward runs when the region has ended; in full precision q and k would be others."""
    layer, (x, rotary) = make(kind).float(), inputs(32)
    x, rotary = x.detach().float(), rotary.to(torch.complex64)
    found = []
    for group in (None, 2):
        layer.checkpoint_group = group
        with torch.autocast("cpu", torch.bfloat16):
            y = layer(x, rotary)
        found.append(list(torch.autograd.grad(y.float().square().sum(), layer.initial)))
    assert largest(found[1], found[0]) < 1e-5  # 3e-3 without


@each_kind
def test_kernels_get_the_projections_in_their_own_dtype(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In fp32 they would have no tensor cores; state and learning rates stay fp32."""
    pytest.importorskip("triton")
    if os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("for the interpreter, on a CPU")
    layer = TTTLayer(64, 2, kind, 16).eval()
    x = torch.randn(1, 20, 64, generator=torch.Generator().manual_seed(0))
    rotary = table(torch.rand(20, 16, generator=torch.Generator().manual_seed(1)))
    seen: list[list[torch.dtype]] = []
    remember = layer.remember

    def spy(*tokens: Any) -> Any:
        y, state = remember(*tokens)
        seen.append([x.dtype for x in (*tokens[:4], y, *state)])
        return y, state

    monkeypatch.setattr(layer, "remember", spy)
    found = []
    for backend in ("scan", "triton"):
        monkeypatch.setenv("TTV_TTT_BACKEND", backend)
        with torch.no_grad(), torch.autocast("cpu", torch.float16):
            found.append(layer(x, rotary).float())
    half, exact = torch.float16, torch.float32
    state = [exact] * len(layer.initial)
    assert seen == [[exact] * 5 + state, [half] * 3 + [exact, half] + state]
    assert largest(found[1:], found[:1]) < 1e-2


@each_kind
def test_in_groups_of_mini_batches_only_tokens_and_states_are_kept(kind: str) -> None:
    """Input, output, their normalised form and the learning rates; nothing of q, k, v or inside."""
    layer = make(kind)
    layer.checkpoint_group = 4
    x, rotary = inputs(40 * MINI_BATCH)
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = layer(x, rotary)
    states = 9 * x.shape[0] * sum(part.nbytes for part in layer.initial)
    weights = sum(parameter.nbytes for parameter in layer.parameters())
    assert sum(storages.values()) < 4 * x.nbytes + rotary.nbytes + states + weights
    assert y.requires_grad


@each_kind
def test_the_inner_norm_is_that_of_the_checkpoint(kind: str) -> None:
    layer, (x, rotary) = make(kind), inputs(16)
    y = layer(x, rotary)
    layer.norm_eps = 0.1
    assert not torch.allclose(layer(x, rotary), y, rtol=1e-3)


class Shapes(TorchDispatchMode):
    """Collects the last two sizes of every array that is made."""

    def __init__(self) -> None:
        super().__init__()
        self.made: set[tuple[int, ...]] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for array in result if isinstance(result, tuple | list) else [result]:
            if isinstance(array, Tensor):
                self.made.add(tuple(array.shape[-2:]))
        return result


@each_kind
@pytest.mark.parametrize("is_last_row", [False, True], ids=["per-token", "last-row"])
def test_learning_rates_are_one_a_token_and_never_a_matrix_of_a_mini_batch(
    kind: str, is_last_row: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    length, mini_batch = 48, 12  # a size that nothing else has
    layer, (x, rotary) = make(kind), inputs(length)
    layer.mini_batch = mini_batch
    remember, rates = layer.remember, []

    def spy(q: Tensor, k: Tensor, target: Tensor, eta: Tensor, *others: Any) -> Any:
        rates.append(tuple(eta.shape))
        return remember(q, k, target, eta, *others)

    monkeypatch.setattr(layer, "remember", spy)
    source = torch.arange(length - 1, -1, -1) if is_last_row else None
    with torch.no_grad(), Shapes() as shapes:
        layer(x, rotary, source)
    assert rates == [(2, HEADS, length)]
    assert (HEADS, length) in shapes.made
    assert (mini_batch, mini_batch) not in shapes.made


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kind", KINDS)
def test_a_training_step_of_3_s_and_48_heads_stays_under_3_gib(kind: str) -> None:
    """All of the process: torch, weights, gradients. The public layer takes 13.5 and 4.8 GiB."""
    arguments = {"kind": kind, "heads": 48, "tokens": 18048, "group": 16, "size": 4}
    script = REPOSITORY / "tests" / "memory_child.py"
    done = subprocess.run(
        [sys.executable, script, "ttt_layer", json.dumps(arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"},
    )
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)
    assert measured["before"] + measured["added"] < 3 * 2**30
