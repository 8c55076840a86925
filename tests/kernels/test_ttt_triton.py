"""What the Triton kernels of both TTT operations have to hold, whatever the sizes."""

from dataclasses import replace
from functools import partial

import pytest
import torch

pytest.importorskip("triton")
from ttt_triton import (
    DEVICE,
    INTERPRETED,
    LINEAR,
    MLP,
    Operation,
    arguments,
    assert_close,
    error,
    expected_results,
    loss,
    results,
)
from ttv_kernels.ttt_linear import ttt_linear
from ttv_kernels.ttt_mlp import ttt_mlp

both = pytest.mark.parametrize("op", [LINEAR, MLP], ids=["linear", "mlp"])

# operands rounded to 11 bits, 4 mini-batches in a row; the largest seen is 8e-4
FP16 = 3e-3


@both
def test_fp16_inputs_with_fp32_state(op: Operation) -> None:
    inputs = arguments(op, 1, 1, 53, 32, dtype=torch.float16)
    got = results(op, inputs, mini_batch=16, checkpoint_group=2)
    final = len(op.state)
    assert [x.dtype for x in got[: 1 + final]] == [torch.float16] + [torch.float32] * final
    assert_close(op, got, expected_results(op, inputs, 16), FP16)


@both
@pytest.mark.skipif(INTERPRETED, reason="the interpreter multiplies bf16 wrongly")
def test_bf16_inputs_on_a_gpu(op: Operation) -> None:
    inputs = arguments(op, 1, 2, 70, 64, 256, dtype=torch.bfloat16)
    got = results(op, inputs, mini_batch=16, checkpoint_group=2)
    # operands rounded to 8 bits
    assert_close(op, got, expected_results(op, inputs, 16), 4e-2)


@both
@pytest.mark.slow
def test_a_long_sequence_stays_with_the_reference(op: Operation) -> None:
    """150 mini-batches in groups of 16: rounding errors do not add up."""
    inputs = arguments(op, 1, 1, 150 * 16 - 3, 32)
    got = results(op, inputs, mini_batch=16, checkpoint_group=16)
    assert_close(op, got, expected_results(op, inputs, 16), 1e-4)


@both
def test_small_step_sizes_are_not_lost_in_fp16(op: Operation) -> None:
    """1e-7 times a gradient is next to the smallest number of fp16."""
    inputs = [x.detach() for x in arguments(op, 1, 1, 40, 32, dtype=torch.float16)]
    inputs[3] *= 1e-5
    inputs[6] *= 0  # so that the final W1 is the change alone
    _, final = op.triton(*inputs, mini_batch=16)
    exact = [x.double() for x in inputs]
    _, expected = op.reference(*exact[:6], tuple(exact[6:]), 16)
    assert error(final[0], expected[0]) < 2e-3


@both
def test_layer_norms_are_in_fp32_whatever_the_tokens_are_in(op: Operation) -> None:
    """Where no operand is rounded, what fp32 sums make of fp16 tokens is as good as of fp32 ones.

    Half precision would be 5e-4 off. Weights are numbers of fp16, and gelu of 8 and more is exact.
    """
    inputs = [x.detach() for x in arguments(op, 1, 1, 16, 32, dtype=torch.float16)]
    inputs[6:] = [x.half().float() for x in inputs[6:]]
    if op is MLP:
        inputs[6] *= 0
        inputs[7] = torch.arange(8.0, 8.0 + 64, device=DEVICE).view(1, 1, 64)
    exact = [x.double() for x in inputs]
    _, final = op.triton(*inputs, mini_batch=16)
    _, expected = op.reference(*exact[:6], tuple(exact[6:]), 16)
    assert error(final[-1] - inputs[-1], expected[-1] - exact[-1]) < 2e-5

    inputs[3], exact[3] = 0 * inputs[3], 0 * exact[3]
    ramp = torch.linspace(-1, 1, 16 * 32, device=DEVICE).half().view(1, 1, 16, 32)
    found = []
    for run, given, state in ((op.triton, inputs, inputs[6:]), (op.reference, exact, None)):
        weight = given[4].requires_grad_()
        rest = (*state,) if state else (tuple(given[6:]), 16)
        counts = {"mini_batch": 16} if state else {}
        output, _ = run(*given[:6], *rest, **counts)
        found += torch.autograd.grad(output, weight, ramp.to(output.dtype))
    assert error(*found) < 2e-5


@both
def test_gradients_of_any_size_pass_through_fp16(op: Operation) -> None:
    """A scaled loss makes gradients that fp16 products would turn into inf."""
    inputs = arguments(op, 1, 1, 20, 32, dtype=torch.float16)
    output, state = op.triton(*inputs, mini_batch=16)
    scaled = torch.autograd.grad(state[0].sum() * 1e6 + output.float().sum(), inputs[6:])
    assert all(x.isfinite().all() for x in scaled)


@both
def test_tiles_that_carry_the_state_equal_one_run_with_gradients(op: Operation) -> None:
    inputs = arguments(op, 1, 1, 51, 16)
    whole = results(op, inputs, mini_batch=16, checkpoint_group=2)
    state, outputs = tuple(inputs[6:]), []
    for start, end in ((0, 16), (16, 48), (48, 51)):
        tokens = [x[:, :, start:end] for x in inputs[:4]]
        output, state = op.triton(*tokens, *inputs[4:6], *state, mini_batch=16, checkpoint_group=2)
        outputs.append(output)
    output = torch.cat(outputs, dim=2)
    tiled = [output, *state, *torch.autograd.grad(loss(output, state), inputs)]
    assert_close(op, tiled, [x.double() for x in whole], 2e-6)


@both
def test_reversed_equals_flipping_to_the_last_bit(op: Operation) -> None:
    inputs = arguments(op, 1, 1, 37, 32)
    got = results(op, inputs, mini_batch=16, checkpoint_group=2, reverse=True)
    flipped = [x.detach().flip(2).requires_grad_() for x in inputs[:4]]
    output, state = op.triton(*flipped, *inputs[4:], mini_batch=16, checkpoint_group=2)
    gradients = torch.autograd.grad(loss(output.flip(2), state), (*flipped, *inputs[4:]))
    expected = [output.flip(2), *state, *(x.flip(2) for x in gradients[:4]), *gradients[4:]]
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


@both
@pytest.mark.parametrize("width", [32, 24])
def test_nothing_is_left_unwritten_and_runs_repeat_to_the_last_bit(
    op: Operation, width: int, request: pytest.FixtureRequest
) -> None:
    inputs = arguments(op, 1, 1, 37, width)
    first = results(op, inputs, mini_batch=16, checkpoint_group=2)
    request.getfixturevalue("poisoned_memory")
    second = results(op, inputs, mini_batch=16, checkpoint_group=2)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert all(x.isfinite().all() for x in second)


@both
def test_what_lies_around_the_tokens_is_not_read(op: Operation) -> None:
    """Tokens inside a larger tensor that is NaN elsewhere, as after a cut of padded text."""
    inputs = [x.detach() for x in arguments(op, 1, 2, 20, 32)]
    expected, _ = op.triton(*inputs, mini_batch=16)
    within = []
    for x in inputs[:4]:
        larger = torch.full((1, 2, 60, *x.shape[3:]), torch.nan, device=DEVICE)
        larger[:, :, 20:40] = x
        within.append(larger[:, :, 20:40])
    output, _ = op.triton(*within, *inputs[4:], mini_batch=16)
    assert torch.equal(output, expected)


@both
def test_a_state_per_batch_equals_a_shared_one(op: Operation) -> None:
    shared = arguments(op, 2, 1, 20, 32)
    state = [x.detach().expand(2, *x.shape).clone().requires_grad_() for x in shared[6:]]
    a, b = (results(op, inputs, mini_batch=16) for inputs in (shared, [*shared[:6], *state]))
    same, parts = -len(state), slice(-len(state), None)
    assert all(torch.equal(x, y) for x, y in zip(a[:same], b[:same], strict=True))
    assert all(torch.equal(x, y.sum(0)) for x, y in zip(a[parts], b[parts], strict=True))


@both
def test_checkpoint_groups_change_nothing(op: Operation) -> None:
    inputs = arguments(op, 1, 1, 53, 32)
    a, b = (results(op, inputs, mini_batch=16, checkpoint_group=group) for group in (1, 100))
    # not to the last bit: the interpreter's products depend on how a matrix lies in memory
    assert_close(op, a, [x.double() for x in b], 1e-6)


@both
def test_any_strides_in_and_the_strides_of_q_out(op: Operation) -> None:
    """Heads usually come from `[B, L, H * K]`, and tiles are slices."""
    inputs = [x.detach() for x in arguments(op, 2, 2, 20, 32)]
    expected, _ = op.triton(*inputs, mini_batch=16)
    views = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in inputs[:4]]
    output, _ = op.triton(*views, *inputs[4:], mini_batch=16)
    assert torch.equal(output, expected)
    assert output.stride() == views[0].stride()

    mixed = [views[0], inputs[1], torch.cat([inputs[2]] * 2, dim=-1)[..., :32], views[3]]
    before = [x.clone() for x in (*mixed, *inputs)]
    output, _ = op.triton(*mixed, *inputs[4:], mini_batch=16)
    assert torch.equal(output, expected)
    assert all(torch.equal(a, b) for a, b in zip((*mixed, *inputs), before, strict=True))


@both
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("backend", ["scan", "reference", "triton"])
def test_every_backend_of_the_public_function_gives_every_gradient(
    op: Operation, backend: str, reverse: bool
) -> None:
    public = replace(op, triton=partial(ttt_linear if op is LINEAR else ttt_mlp, backend=backend))
    inputs = arguments(op, 2, 1, 21, 32, 128)
    got = results(public, inputs, mini_batch=16, reverse=reverse)
    assert_close(op, got, expected_results(op, inputs, 16, reverse), 1e-5)


@both
def test_without_gradients_the_result_is_the_same(op: Operation) -> None:
    inputs = arguments(op, 1, 1, 37, 32)
    output, state = op.triton(*inputs, mini_batch=16)
    with torch.no_grad():
        plain, plain_state = op.triton(*inputs, mini_batch=16)
    assert torch.equal(output, plain)
    assert not plain.requires_grad
    assert all(torch.equal(a, b) for a, b in zip(state, plain_state, strict=True))


@both
def test_the_reference_has_the_gradients_of_finite_differences(op: Operation) -> None:
    inputs = arguments(op, 1, 2, 7, 6, 8)
    exact = [x.detach().cpu().double().requires_grad_() for x in inputs]

    def function(*args: torch.Tensor) -> tuple[torch.Tensor, ...]:
        output, state = op.reference(*args[:6], args[6:], 3)
        return (output, *state)

    assert torch.autograd.gradcheck(function, exact, fast_mode=True)


@both
@pytest.mark.parametrize(
    ("width", "dtype", "message"),
    [(32, torch.float64, "take bfloat16"), (160, torch.float32, "at most 128, got 160")],
)
def test_what_the_kernels_do_not_take_is_refused(
    op: Operation, width: int, dtype: torch.dtype, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        op.triton(*arguments(op, 1, 1, 5, width, dtype=dtype), mini_batch=16)
