"""The Triton kernels of TTT-Linear against the float64 reference.

Without a GPU they run in Triton's interpreter, in fp32 and fp16 (its bf16 products are wrong); with
one they run as compiled, unless TRITON_INTERPRET=1 is set.
"""

import os

import pytest
import torch
from torch import Tensor
from ttv_kernels.ttt_linear.reference import reference

pytest.importorskip("triton")
from ttv_kernels.ttt_linear.autograd import planned_launches, triton_linear

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
NAMES = ("q", "k", "target", "eta", "norm_weight", "norm_bias", "W1", "b1")

# fp32 sums in another order, through two LayerNorms; the largest seen is 1.6e-6
FP32 = 1e-5
# operands rounded to 11 bits, 5 mini-batches in a row; the largest seen is 6.5e-4
FP16 = 3e-3


def arguments(
    batch: int,
    heads: int,
    length: int,
    width: int,
    *,
    dtype: torch.dtype = torch.float32,
    state_per_batch: bool = False,
) -> list[Tensor]:
    """q, k, target in `dtype`, the rest in fp32; full rank, of size 0.3."""
    generator = torch.Generator().manual_seed(length * width)

    def random(*shape: int) -> Tensor:
        return 0.3 * torch.randn(*shape, generator=generator)

    lead = (batch, heads) if state_per_batch else (heads,)
    tokens = [random(batch, heads, length, width).to(dtype) for _ in range(3)]
    eta = 0.05 * torch.rand(batch, heads, length, generator=generator)
    norm = [1 + random(heads, width), random(heads, width)]
    state = [random(*lead, width, width), random(*lead, 1, width)]
    return [x.to(DEVICE).requires_grad_() for x in (*tokens, eta, *norm, *state)]


def loss(output: Tensor, state: tuple[Tensor, ...]) -> Tensor:
    """A number that sees every entry of output and final state differently, in float64."""
    total = torch.zeros((), dtype=torch.float64, device=output.device)
    for part in (output, *state):
        ramp = torch.linspace(-1, 1, part.numel(), dtype=torch.float64, device=part.device)
        total = total + (part.double() * ramp.view_as(part)).sum()
    return total


def error(got: Tensor, expected: Tensor) -> float:
    assert got.shape == expected.shape
    return ((got.double() - expected).abs().max() / expected.abs().max()).item()


def expected_results(inputs: list[Tensor], mini_batch: int, reverse: bool) -> list[Tensor]:
    """Output, final state and every gradient of the reference in float64."""
    exact = [x.detach().double().requires_grad_() for x in inputs]
    tokens = [x.flip(2) if reverse else x for x in exact[:4]]
    output, state = reference(*tokens, *exact[4:6], tuple(exact[6:]), mini_batch)
    output = output.flip(2) if reverse else output
    return [output, *state, *torch.autograd.grad(loss(output, state), exact)]


def results(inputs: list[Tensor], **settings: int | bool) -> list[Tensor]:
    output, state = triton_linear(*inputs, **settings)
    return [output, *state, *torch.autograd.grad(loss(output, state), inputs)]


def assert_close(got: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    names = ("output", "W1 final", "b1 final", *(f"gradient of {name}" for name in NAMES))
    for name, a, b in zip(names, got, expected, strict=True):
        assert error(a, b) < tolerance, f"{name}: {error(a, b):.2e}"


CASES = {
    # batch, heads, tokens, head width, mini-batch, checkpoint group
    "partial-last-mini-batch-and-group": (2, 3, 37, 32, 16, 2),
    "one-group-per-mini-batch": (1, 2, 33, 32, 16, 1),
    "odd-everything": (1, 1, 37, 24, 5, 3),
    "less-than-one-mini-batch": (1, 1, 7, 64, 16, 16),
    "one-token": (1, 1, 1, 16, 16, 16),
    "tiles-inside-a-mini-batch": (1, 1, 150, 64, 64, 2),
    "wide-head": (1, 1, 20, 128, 16, 16),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "reversed"])
def test_output_and_every_gradient_equal_the_reference(case: str, reverse: bool) -> None:
    *shape, mini_batch, group = CASES[case]
    inputs = arguments(*shape)
    got = results(inputs, mini_batch=mini_batch, checkpoint_group=group, reverse=reverse)
    assert_close(got, expected_results(inputs, mini_batch, reverse), FP32)


def test_fp16_inputs_with_fp32_state() -> None:
    inputs = arguments(1, 2, 70, 32, dtype=torch.float16)
    got = results(inputs, mini_batch=16, checkpoint_group=2)
    assert [x.dtype for x in got[:3]] == [torch.float16, torch.float32, torch.float32]
    assert_close(got, expected_results(inputs, 16, False), FP16)


@pytest.mark.skipif(INTERPRETED, reason="the interpreter multiplies bf16 wrongly")
def test_bf16_inputs_on_a_gpu() -> None:
    inputs = arguments(1, 2, 70, 64, dtype=torch.bfloat16)
    got = results(inputs, mini_batch=16, checkpoint_group=2)
    # operands rounded to 8 bits
    assert_close(got, expected_results(inputs, 16, False), 4e-2)


@pytest.mark.slow
def test_a_long_sequence_stays_with_the_reference() -> None:
    """150 mini-batches in groups of 16: rounding errors do not add up."""
    inputs = arguments(1, 1, 150 * 16 - 3, 64)
    got = results(inputs, mini_batch=16)
    assert_close(got, expected_results(inputs, 16, False), 1e-4)


def test_small_step_sizes_are_not_lost_in_fp16() -> None:
    """1e-7 times a gradient is next to the smallest number of fp16."""
    inputs = [x.detach() for x in arguments(1, 1, 40, 32, dtype=torch.float16)]
    inputs[3] *= 1e-5
    inputs[6] *= 0  # so that the final state is the change alone
    _, (W1, _) = triton_linear(*inputs, mini_batch=16)
    exact = [x.double() for x in inputs]
    _, (expected, _) = reference(*exact[:6], (exact[6], exact[7]), 16)
    assert error(W1, expected) < 2e-3


def test_gradients_of_any_size_pass_through_fp16() -> None:
    """A scaled loss makes gradients that fp16 products would turn into inf."""
    inputs = arguments(1, 1, 40, 32, dtype=torch.float16)
    output, state = triton_linear(*inputs, mini_batch=16)
    scaled = torch.autograd.grad(state[0].sum() * 1e6 + output.float().sum(), inputs[6:])
    assert all(x.isfinite().all() for x in scaled)


def test_tiles_that_carry_the_state_equal_one_run_with_gradients() -> None:
    inputs = arguments(2, 1, 5 * 16 + 3, 32)
    whole = results(inputs, mini_batch=16, checkpoint_group=2)
    state, outputs = tuple(inputs[6:]), []
    for start, end in ((0, 32), (32, 48), (48, 83)):
        tokens = [x[:, :, start:end] for x in inputs[:4]]
        output, state = triton_linear(
            *tokens, *inputs[4:6], *state, mini_batch=16, checkpoint_group=2
        )
        outputs.append(output)
    output = torch.cat(outputs, dim=2)
    tiled = [output, *state, *torch.autograd.grad(loss(output, state), inputs)]
    assert_close(tiled, [x.double() for x in whole], 1e-6)


def test_reversed_equals_flipping_to_the_last_bit() -> None:
    inputs = arguments(1, 2, 37, 32)
    got = results(inputs, mini_batch=16, checkpoint_group=2, reverse=True)
    flipped = [x.detach().flip(2).requires_grad_() for x in inputs[:4]]
    output, state = triton_linear(*flipped, *inputs[4:], mini_batch=16, checkpoint_group=2)
    gradients = torch.autograd.grad(loss(output.flip(2), state), (*flipped, *inputs[4:]))
    expected = [output.flip(2), *state, *(x.flip(2) for x in gradients[:4]), *gradients[4:]]
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


@pytest.mark.parametrize("width", [32, 24])
def test_nothing_is_left_unwritten_and_runs_repeat_to_the_last_bit(
    width: int, request: pytest.FixtureRequest
) -> None:
    inputs = arguments(2, 1, 37, width)
    first = results(inputs, mini_batch=16, checkpoint_group=2)
    request.getfixturevalue("poisoned_memory")
    second = results(inputs, mini_batch=16, checkpoint_group=2)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert all(x.isfinite().all() for x in second)


def test_a_state_per_batch_equals_a_shared_one() -> None:
    shared = arguments(2, 2, 20, 32)
    separate = [*shared[:6], *(x.detach().expand(2, *x.shape).clone() for x in shared[6:])]
    separate[6:] = [x.requires_grad_() for x in separate[6:]]
    a, b = (results(inputs, mini_batch=16) for inputs in (shared, separate))
    assert all(torch.equal(x, y) for x, y in zip(a[:-2], b[:-2], strict=True))
    assert all(torch.equal(x, y.sum(0)) for x, y in zip(a[-2:], b[-2:], strict=True))


def test_checkpoint_groups_change_nothing() -> None:
    inputs = arguments(1, 1, 70, 32)
    a, b = (results(inputs, mini_batch=16, checkpoint_group=group) for group in (1, 100))
    # not to the last bit: the interpreter's products depend on how a matrix lies in memory
    assert_close(a, [x.double() for x in b], 1e-6)


def test_any_strides_in_and_the_strides_of_q_out() -> None:
    """Heads usually come from `[B, L, H * K]`, and tiles are slices."""
    inputs = [x.detach() for x in arguments(2, 3, 37, 32)]
    expected, _ = triton_linear(*inputs, mini_batch=16)
    views = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in inputs[:4]]
    output, _ = triton_linear(*views, *inputs[4:], mini_batch=16)
    assert torch.equal(output, expected)
    assert output.stride() == views[0].stride()

    mixed = [views[0], inputs[1], torch.cat([inputs[2]] * 2, dim=-1)[..., :32], views[3]]
    before = [x.clone() for x in mixed]
    output, _ = triton_linear(*mixed, *inputs[4:], mini_batch=16)
    assert torch.equal(output, expected)
    assert all(torch.equal(a, b) for a, b in zip(mixed, before, strict=True))


def test_without_gradients_the_result_is_the_same() -> None:
    inputs = arguments(1, 2, 37, 32)
    output, state = triton_linear(*inputs, mini_batch=16)
    with torch.no_grad():
        plain, plain_state = triton_linear(*inputs, mini_batch=16)
    assert torch.equal(output, plain)
    assert not plain.requires_grad
    assert all(torch.equal(a, b) for a, b in zip(state, plain_state, strict=True))


@pytest.mark.parametrize(("length", "group"), [(351_168, 16), (351_168, 148), (100, 16)])
def test_saved_states_and_scratch_are_what_the_formula_says(length: int, group: int) -> None:
    """The formula of README.md, for 48 heads of width 64, mini-batches of 16, bf16."""
    forward, backward = planned_launches(
        head_width=64, mini_batch=16, length=length, checkpoint_group=group
    )
    mini_batches = -(-length // 16)
    group = min(group, mini_batches)
    kept = 48 * -(-mini_batches // group) * (64 * 64 * 4 + 64 * 4)
    scratch = 48 * (group + 1) * (64 * 64 * 2 + 64 * 4)
    for launch, names, size in (
        (forward, ("W_kept", "b_kept"), kept),
        (backward, ("W_group", "b_group"), scratch),
    ):
        assert sum(launch.arguments[name].nbytes for name in names) == size


def test_the_reference_has_the_gradients_of_finite_differences() -> None:
    inputs = [x.detach().cpu().double().requires_grad_() for x in arguments(1, 2, 7, 6)]

    def function(*args: Tensor) -> tuple[Tensor, ...]:
        output, state = reference(*args[:6], (args[6], args[7]), 3)
        return (output, *state)

    assert torch.autograd.gradcheck(function, inputs, fast_mode=True)


@pytest.mark.parametrize(
    ("width", "dtype", "message"),
    [(32, torch.float64, "take bfloat16"), (160, torch.float32, "at most 128, got 160")],
)
def test_what_the_kernels_do_not_take_is_refused(
    width: int, dtype: torch.dtype, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        triton_linear(*arguments(1, 1, 5, width, dtype=dtype), mini_batch=16)
