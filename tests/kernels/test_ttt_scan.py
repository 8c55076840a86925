"""The scans of both inner networks against their specification, and their cost in length."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from ttt_inputs import EXACT, B, CountingBytes, H, K, arguments, largest, scalar
from ttv_kernels.inner_step import gelu_gradient, gelu_second_derivative, loss_gradient
from ttv_kernels.reference_step import gelu_derivative
from ttv_kernels.reference_step import loss_gradient as loss_gradient_in_steps
from ttv_kernels.ttt_linear import ttt_linear
from ttv_kernels.ttt_linear.reference import reference as linear_reference
from ttv_kernels.ttt_mlp import ttt_mlp
from ttv_kernels.ttt_mlp.reference import reference as mlp_reference

OPS = {"linear": (ttt_linear, linear_reference), "mlp": (ttt_mlp, mlp_reference)}
both = pytest.mark.parametrize("op", OPS)


@both
@pytest.mark.parametrize("length", [20, 23, 3], ids=["whole", "partial-last", "less-than-one"])
@pytest.mark.parametrize("group", [None, 2, 100])
def test_scan_equals_the_reference_with_all_gradients(op: str, length: int, group: int | None):
    run, reference = OPS[op]
    inputs = arguments(op, length)
    output, state = run(*inputs, mini_batch=5, checkpoint_group=group)
    expected, expected_state = reference(*inputs[:6], tuple(inputs[6:]), 5)
    gradients = torch.autograd.grad(scalar(output, state), inputs)
    expected_gradients = torch.autograd.grad(scalar(expected, expected_state), inputs)

    assert largest([(output, expected), *zip(state, expected_state, strict=True)]) < EXACT
    assert largest(list(zip(gradients, expected_gradients, strict=True))) < EXACT


@both
@pytest.mark.parametrize("length", [20, 23], ids=["whole", "partial-last"])
@pytest.mark.parametrize("group", [None, 3])
def test_reverse_equals_the_reference_on_flipped_tokens(op: str, length: int, group: int | None):
    run, reference = OPS[op]
    inputs = arguments(op, length)
    output, state = run(*inputs, mini_batch=5, checkpoint_group=group, reverse=True)
    turned = [x.flip(2) for x in inputs[:4]]
    expected, expected_state = reference(*turned, *inputs[4:6], tuple(inputs[6:]), 5)
    expected = expected.flip(2)
    gradients = torch.autograd.grad(scalar(output, state), inputs)
    expected_gradients = torch.autograd.grad(scalar(expected, expected_state), inputs)

    assert largest([(output, expected), *zip(state, expected_state, strict=True)]) < EXACT
    assert largest(list(zip(gradients, expected_gradients, strict=True))) < EXACT


class NoFlip(TorchDispatchMode):
    """Refuse to turn a tensor around."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert "flip" not in str(func)
        return func(*args, **(kwargs or {}))


@both
def test_reverse_makes_no_flipped_copy(op: str):
    inputs = arguments(op, 23)
    with NoFlip():
        output, _ = OPS[op][0](*inputs, mini_batch=5, checkpoint_group=2, reverse=True)
        output.sum().backward()


@both
@pytest.mark.parametrize("group", [None, 2])
def test_gradients_equal_finite_differences(op: str, group: int | None):
    run = OPS[op][0]
    inputs = [
        x[:1].detach().requires_grad_() if i < 4 else x for i, x in enumerate(arguments(op, 7))
    ]

    def function(*args: Tensor) -> tuple[Tensor, ...]:
        output, state = run(*args, mini_batch=3, checkpoint_group=group)
        return (output, *state)

    assert torch.autograd.gradcheck(function, inputs, fast_mode=True)


@both
def test_a_run_cut_in_tiles_that_carry_the_state_equals_one_run(op: str):
    run = OPS[op][0]
    inputs = arguments(op, 25, grad=False)
    whole, final = run(*inputs, mini_batch=5)
    state, tiles = inputs[6:], []
    for start, end in ((0, 10), (10, 15), (15, 25)):
        tokens = [x[:, :, start:end] for x in inputs[:4]]
        tile, state = run(*tokens, *inputs[4:6], *state, mini_batch=5)
        tiles.append(tile)
    assert largest([(torch.cat(tiles, dim=2), whole), *zip(state, final, strict=True)]) < EXACT


@both
def test_a_partial_last_mini_batch_equals_padding_with_learning_rate_zero(op: str):
    run = OPS[op][0]
    inputs = arguments(op, 23, grad=False)
    output, state = run(*inputs, mini_batch=5)
    pad = [torch.nn.functional.pad(x, (0, 0, 0, 2), value=0.3) for x in inputs[:3]]
    eta = torch.nn.functional.pad(inputs[3], (0, 2))
    padded, padded_state = run(*pad, eta, *inputs[4:], mini_batch=5)
    assert largest([(padded[:, :, :23], output), *zip(padded_state, state, strict=True)]) < EXACT


@both
def test_without_learning_rate_the_state_stays(op: str):
    inputs = arguments(op, 10, grad=False)
    inputs[3] = torch.zeros_like(inputs[3])
    _, state = OPS[op][0](*inputs, mini_batch=5)
    for part, initial in zip(state, inputs[6:], strict=True):
        assert torch.equal(part, initial.expand_as(part))


@both
def test_each_update_lowers_the_inner_loss(op: str):
    """Repeating one mini-batch must bring LN(f(k)) closer to its target."""
    inputs = arguments(op, 5, grad=False)
    repeated = [x.repeat(1, 1, 30, 1) for x in inputs[:3]]
    repeated[0] = repeated[1]  # ask with the keys, so that the output is k + LN(f(k))
    output, _ = OPS[op][0](*repeated, inputs[3].repeat(1, 1, 30), *inputs[4:], mini_batch=5)
    loss = (output - repeated[1] - repeated[2]).square().mean((0, 1, 3)).view(30, 5).mean(1)
    assert (loss.diff() < 0).all()


def graph_size(output: Tensor) -> int:
    seen, queue = set(), [output.grad_fn]
    while queue:
        node = queue.pop()
        if node is not None and node not in seen:
            seen.add(node)
            queue += [parent for parent, _ in node.next_functions]
    return len(seen)


def saved_bytes(run: Callable[[], object]) -> int:
    """Bytes of distinct storage the graph keeps, inputs and leaves included."""
    storages: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        storages[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        kept = run()
        del kept
    return sum(storages.values())


@both
def test_graph_and_saved_bytes_grow_linearly_with_length(op: str):
    run = OPS[op][0]
    nodes, sizes = [], []
    for mini_batches in (8, 16, 32):
        inputs = arguments(op, 5 * mini_batches)
        nodes.append(graph_size(run(*inputs, mini_batch=5)[0]))
        results: list[object] = []
        sizes.append(saved_bytes(lambda i=inputs, r=results: r.append(run(*i, mini_batch=5))))
    assert nodes[2] - nodes[1] == 2 * (nodes[1] - nodes[0])
    # parameters are the same each time, so the growth is that of the mini-batches alone
    assert sizes[2] - sizes[1] == pytest.approx(2 * (sizes[1] - sizes[0]), rel=0.02)


def counted(op: str, mini_batches: int, group: int | None, counter: Callable[[], Any]) -> list[Any]:
    """What counters of work saw of the forward and of the backward pass."""
    inputs = arguments(op, 5 * mini_batches)
    with counter() as forward:
        output, _ = OPS[op][0](*inputs, mini_batch=5, checkpoint_group=group)
    gradient = torch.ones_like(output)
    with counter() as backward:
        torch.autograd.grad(output, inputs, gradient)
    return [forward, backward]


@both
@pytest.mark.parametrize("group", [None, 4])
def test_arithmetic_is_proportional_to_length(op: str, group: int | None):
    """Twice and four times the tokens: exactly that many operations, either way."""
    flops = [
        [
            c.get_total_flops()
            for c in counted(op, n, group, partial(FlopCounterMode, display=False))
        ]
        for n in (8, 16, 32)
    ]
    forward, backward = flops[0]
    assert flops[1:] == [[2 * forward, 2 * backward], [4 * forward, 4 * backward]]
    # Each product has two in backward; groups make those of the forward pass again.
    assert backward == (2 if group is None else 3) * forward


@both
@pytest.mark.parametrize("group", [None, 4])
def test_bytes_written_grow_linearly_with_length(op: str, group: int | None):
    """What made the public operation quadratic: a gradient of full length per mini-batch."""
    sizes = [[c.bytes for c in counted(op, n, group, CountingBytes)] for n in (8, 16, 32)]
    for short, middle, long in zip(*sizes, strict=True):
        assert long - middle == pytest.approx(2 * (middle - short), rel=0.02)


@both
@pytest.mark.parametrize("group", [None, 2])
def test_nothing_asks_for_a_value_or_a_kind_of_device(op: str, group: int | None):
    """The meta device has no values, and no autocast either: what runs there runs on any."""
    inputs = [x.detach().to("meta").requires_grad_() for x in arguments(op, 23)]
    output, state = OPS[op][0](*inputs, mini_batch=5, checkpoint_group=group)
    gradients = torch.autograd.grad([output, *state], inputs, [output, *state])
    assert {x.device.type for x in (output, *state, *gradients)} == {"meta"}
    assert [x.shape for x in gradients] == [x.shape for x in inputs]


@both
def test_checkpoint_groups_keep_less(op: str):
    run = OPS[op][0]
    inputs = arguments(op, 5 * 32)
    results: list[object] = []
    everything = saved_bytes(lambda: results.append(run(*inputs, mini_batch=5)))
    grouped = saved_bytes(lambda: results.append(run(*inputs, mini_batch=5, checkpoint_group=8)))
    assert grouped < everything / 2


def test_fused_formulas_equal_the_written_out_ones():
    generator = torch.Generator().manual_seed(0)
    z, target = torch.randn(2, 4, 5, K, generator=generator, dtype=torch.float64)
    weight, bias = torch.randn(2, 4, 1, K, generator=generator, dtype=torch.float64)
    fused = loss_gradient(z, target, weight, bias, 1e-8)
    for g in range(4):
        written = loss_gradient_in_steps(z[g], target[g], weight[g, 0], bias[g, 0], 1e-8)
        assert largest([(fused[g], written)]) < EXACT
    assert largest([(gelu_gradient(target, z), target * gelu_derivative(z))]) < EXACT


def test_second_derivative_of_gelu_is_the_slope_of_its_first() -> None:
    x = torch.linspace(-6, 6, 201, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(gelu_derivative(x).sum(), x)
    assert largest([(gelu_second_derivative(x.detach()), expected)]) < EXACT


def test_loss_gradient_is_the_gradient_of_the_loss():
    generator = torch.Generator().manual_seed(1)
    z, target = torch.randn(2, 5, K, generator=generator, dtype=torch.float64)
    weight, bias = torch.randn(2, K, generator=generator, dtype=torch.float64)
    z.requires_grad_()
    normed = torch.nn.functional.layer_norm(z, (K,), weight, bias, eps=1e-8)
    loss = 0.5 * (normed - target).square().sum()
    (expected,) = torch.autograd.grad(loss, z)
    assert largest([(loss_gradient_in_steps(z, target, weight, bias, 1e-8), expected)]) < EXACT


@both
@pytest.mark.parametrize(
    ("position", "shape", "message"),
    [(0, (H, 10, K), "q must be"), (3, (B, H, 9), "eta must be"), (6, (H, K, K + 1, 1), "W1 must")],
)
def test_wrong_shapes_are_named(op: str, position: int, shape: tuple[int, ...], message: str):
    inputs = arguments(op, 10, grad=False)
    inputs[position] = torch.zeros(shape)
    with pytest.raises(ValueError, match=message):
        OPS[op][0](*inputs, mini_batch=5)


@both
@pytest.mark.parametrize("counts", [{"mini_batch": 0}, {"mini_batch": 5, "checkpoint_group": 0}])
def test_counts_below_one_are_refused(op: str, counts: dict[str, int]):
    with pytest.raises(ValueError, match="at least 1"):
        OPS[op][0](*arguments(op, 10, grad=False), **counts)


@both
@pytest.mark.parametrize("group", [None, 2])
def test_autocast_changes_nothing(op: str, group: int | None):
    """Forward within a region, backward after it: the state is never in half precision."""
    inputs = [x.detach().float().requires_grad_() for x in arguments(op, 20)]
    gradients = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled):
            output, _ = OPS[op][0](*inputs, mini_batch=5, checkpoint_group=group)
        gradients.append(torch.autograd.grad(output.sum(), inputs))
    for plain, within in zip(*gradients, strict=True):
        assert torch.equal(plain, within)


@both
@pytest.mark.parametrize("position", [0, 2, 4, 6], ids=["q", "target", "norm", "W1"])
def test_groups_ask_only_for_the_gradients_that_are_wanted(op: str, position: int):
    """The state depends on everything but the queries."""
    inputs = [x.detach() for x in arguments(op, 20)]
    wanted = inputs[position].requires_grad_()
    (expected,) = torch.autograd.grad(OPS[op][0](*inputs, mini_batch=5)[0].sum(), wanted)
    output, _ = OPS[op][0](*inputs, mini_batch=5, checkpoint_group=2)
    (found,) = torch.autograd.grad(output.sum(), wanted)
    assert largest([(found, expected)]) < EXACT
