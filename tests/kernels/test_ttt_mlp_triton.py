"""The Triton kernels of TTT-MLP against the float64 reference.

Without a GPU they run in Triton's interpreter, in fp32 and fp16 (its bf16 products are wrong); with
one they run as compiled, unless TRITON_INTERPRET=1 is set. Compiling for cards that are not here is
at the end.
"""

import os
import sys

import pytest
import torch
from helpers import compile_elsewhere
from torch import Tensor
from ttv_kernels.ttt_mlp.reference import reference

pytest.importorskip("triton")
from ttv_kernels.ttt_mlp.autograd import planned_launches, triton_mlp

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
NAMES = ("q", "k", "target", "eta", "norm_weight", "norm_bias", "W1", "b1", "W2", "b2")

# fp32 sums in another order, through two LayerNorms and GELU; the largest seen is 9e-7
FP32 = 5e-6
# operands rounded to 11 bits, 5 mini-batches in a row; the largest seen is 8e-4
FP16 = 3e-3


def arguments(
    batch: int,
    heads: int,
    length: int,
    width: int,
    hidden: int,
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
    state = [random(*lead, width, hidden), random(*lead, 1, hidden)]
    state += [random(*lead, hidden, width), random(*lead, 1, width)]
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


def expected_results(inputs: list[Tensor], mini_batch: int, reverse: bool = False) -> list[Tensor]:
    """Output, final state and every gradient of the reference in float64."""
    exact = [x.detach().double().requires_grad_() for x in inputs]
    tokens = [x.flip(2) if reverse else x for x in exact[:4]]
    W1, b1, W2, b2 = exact[6:]
    output, state = reference(*tokens, *exact[4:6], (W1, b1, W2, b2), mini_batch)
    output = output.flip(2) if reverse else output
    return [output, *state, *torch.autograd.grad(loss(output, state), exact)]


def results(inputs: list[Tensor], **settings: int | bool) -> list[Tensor]:
    output, state = triton_mlp(*inputs, **settings)
    return [output, *state, *torch.autograd.grad(loss(output, state), inputs)]


def assert_close(got: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    final = [f"final {name}" for name in NAMES[6:]]
    names = ("output", *final, *(f"gradient of {name}" for name in NAMES))
    for name, a, b in zip(names, got, expected, strict=True):
        assert error(a, b) < tolerance, f"{name}: {error(a, b):.2e}"


CASES = {
    # batch, heads, tokens, head width, hidden width, mini-batch, checkpoint group, reverse
    "partial-last-mini-batch-and-group": (2, 1, 37, 32, 96, 16, 2, False),
    "reversed": (1, 2, 37, 32, 32, 16, 2, True),
    "one-mini-batch-per-group": (1, 1, 33, 32, 64, 16, 1, False),
    "odd-everything": (1, 1, 17, 24, 48, 5, 3, True),
    "less-than-one-mini-batch": (1, 1, 7, 16, 32, 16, 16, True),
    "published-sizes": (1, 1, 67, 64, 256, 64, 16, False),
}


@pytest.mark.parametrize("case", CASES)
def test_output_and_every_gradient_equal_the_reference(case: str) -> None:
    *shape, mini_batch, group, reverse = CASES[case]
    inputs = arguments(*shape)
    got = results(inputs, mini_batch=mini_batch, checkpoint_group=group, reverse=reverse)
    assert_close(got, expected_results(inputs, mini_batch, reverse), FP32)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(32, 128, 32), (128, 512, 16), (128, 512, 64)])
def test_other_widths_and_mini_batches_equal_the_reference(sizes: tuple[int, int, int]) -> None:
    width, hidden, mini_batch = sizes
    inputs = arguments(1, 1, 2 * mini_batch + 3, width, hidden)
    got = results(inputs, mini_batch=mini_batch, checkpoint_group=2)
    assert_close(got, expected_results(inputs, mini_batch), FP32)


def test_fp16_inputs_with_fp32_state() -> None:
    inputs = arguments(1, 1, 53, 32, 64, dtype=torch.float16)
    got = results(inputs, mini_batch=16, checkpoint_group=2)
    assert [x.dtype for x in got[:3]] == [torch.float16, torch.float32, torch.float32]
    assert_close(got, expected_results(inputs, 16), FP16)


@pytest.mark.skipif(INTERPRETED, reason="the interpreter multiplies bf16 wrongly")
def test_bf16_inputs_on_a_gpu() -> None:
    inputs = arguments(1, 2, 70, 64, 256, dtype=torch.bfloat16)
    got = results(inputs, mini_batch=16, checkpoint_group=2)
    # operands rounded to 8 bits
    assert_close(got, expected_results(inputs, 16), 4e-2)


@pytest.mark.slow
def test_a_long_sequence_stays_with_the_reference() -> None:
    """150 mini-batches in groups of 16: rounding errors do not add up."""
    inputs = arguments(1, 1, 150 * 16 - 3, 32, 64)
    got = results(inputs, mini_batch=16)
    assert_close(got, expected_results(inputs, 16), 1e-4)


def test_small_step_sizes_are_not_lost_in_fp16() -> None:
    """1e-7 times a gradient is next to the smallest number of fp16."""
    inputs = [x.detach() for x in arguments(1, 1, 40, 32, 64, dtype=torch.float16)]
    inputs[3] *= 1e-5
    inputs[6] *= 0  # so that the final W1 is the change alone
    _, (W1, _, _, _) = triton_mlp(*inputs, mini_batch=16)
    exact = [x.double() for x in inputs]
    _, (expected, _, _, _) = reference(*exact[:6], tuple(exact[6:]), 16)
    assert error(W1, expected) < 2e-3


def test_gradients_of_any_size_pass_through_fp16() -> None:
    """A scaled loss makes gradients that fp16 products would turn into inf."""
    inputs = arguments(1, 1, 20, 32, 64, dtype=torch.float16)
    output, state = triton_mlp(*inputs, mini_batch=16)
    scaled = torch.autograd.grad(state[0].sum() * 1e6 + output.float().sum(), inputs[6:])
    assert all(x.isfinite().all() for x in scaled)


def test_tiles_that_carry_the_state_equal_one_run_with_gradients() -> None:
    inputs = arguments(1, 1, 51, 16, 64)
    whole = results(inputs, mini_batch=16, checkpoint_group=2)
    state, outputs = tuple(inputs[6:]), []
    for start, end in ((0, 16), (16, 48), (48, 51)):
        tokens = [x[:, :, start:end] for x in inputs[:4]]
        output, state = triton_mlp(*tokens, *inputs[4:6], *state, mini_batch=16, checkpoint_group=2)
        outputs.append(output)
    output = torch.cat(outputs, dim=2)
    tiled = [output, *state, *torch.autograd.grad(loss(output, state), inputs)]
    assert_close(tiled, [x.double() for x in whole], 2e-6)


def test_reversed_equals_flipping_to_the_last_bit() -> None:
    inputs = arguments(1, 1, 37, 32, 64)
    got = results(inputs, mini_batch=16, checkpoint_group=2, reverse=True)
    flipped = [x.detach().flip(2).requires_grad_() for x in inputs[:4]]
    output, state = triton_mlp(*flipped, *inputs[4:], mini_batch=16, checkpoint_group=2)
    gradients = torch.autograd.grad(loss(output.flip(2), state), (*flipped, *inputs[4:]))
    expected = [output.flip(2), *state, *(x.flip(2) for x in gradients[:4]), *gradients[4:]]
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


@pytest.mark.parametrize("width", [32, 24])
def test_nothing_is_left_unwritten_and_runs_repeat_to_the_last_bit(
    width: int, request: pytest.FixtureRequest
) -> None:
    inputs = arguments(1, 1, 37, width, 64)
    first = results(inputs, mini_batch=16, checkpoint_group=2)
    request.getfixturevalue("poisoned_memory")
    second = results(inputs, mini_batch=16, checkpoint_group=2)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert all(x.isfinite().all() for x in second)


def test_what_lies_around_the_tokens_is_not_read() -> None:
    """Tokens inside a larger tensor that is NaN elsewhere, as after a cut of padded text."""
    inputs = [x.detach() for x in arguments(1, 2, 20, 32, 64)]
    expected, _ = triton_mlp(*inputs, mini_batch=16)
    within = []
    for x in inputs[:4]:
        larger = torch.full((1, 2, 60, *x.shape[3:]), torch.nan, device=DEVICE)
        larger[:, :, 20:40] = x
        within.append(larger[:, :, 20:40])
    output, _ = triton_mlp(*within, *inputs[4:], mini_batch=16)
    assert torch.equal(output, expected)


def test_a_state_per_batch_equals_a_shared_one() -> None:
    shared = arguments(2, 1, 20, 32, 64)
    separate = [*shared[:6], *(x.detach().expand(2, *x.shape).clone() for x in shared[6:])]
    separate[6:] = [x.requires_grad_() for x in separate[6:]]
    a, b = (results(inputs, mini_batch=16) for inputs in (shared, separate))
    assert all(torch.equal(x, y) for x, y in zip(a[:-4], b[:-4], strict=True))
    assert all(torch.equal(x, y.sum(0)) for x, y in zip(a[-4:], b[-4:], strict=True))


def test_checkpoint_groups_change_nothing() -> None:
    inputs = arguments(1, 1, 53, 32, 64)
    a, b = (results(inputs, mini_batch=16, checkpoint_group=group) for group in (1, 100))
    assert_close(a, [x.double() for x in b], 1e-6)


def test_any_strides_in_and_the_strides_of_q_out() -> None:
    """Heads usually come from `[B, L, H * K]`, and tiles are slices."""
    inputs = [x.detach() for x in arguments(2, 2, 20, 32, 64)]
    expected, _ = triton_mlp(*inputs, mini_batch=16)
    views = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in inputs[:4]]
    output, _ = triton_mlp(*views, *inputs[4:], mini_batch=16)
    assert torch.equal(output, expected)
    assert output.stride() == views[0].stride()

    mixed = [views[0], inputs[1], torch.cat([inputs[2]] * 2, dim=-1)[..., :32], views[3]]
    before = [x.clone() for x in (*mixed, *inputs)]
    output, _ = triton_mlp(*mixed, *inputs[4:], mini_batch=16)
    assert torch.equal(output, expected)
    assert all(torch.equal(a, b) for a, b in zip((*mixed, *inputs), before, strict=True))


def test_without_gradients_the_result_is_the_same() -> None:
    inputs = arguments(1, 1, 37, 32, 64)
    output, state = triton_mlp(*inputs, mini_batch=16)
    with torch.no_grad():
        plain, plain_state = triton_mlp(*inputs, mini_batch=16)
    assert torch.equal(output, plain)
    assert not plain.requires_grad
    assert all(torch.equal(a, b) for a, b in zip(state, plain_state, strict=True))


@pytest.mark.parametrize(("length", "group"), [(351_168, 16), (351_168, 74), (100, 16)])
def test_saved_states_and_scratch_are_what_the_formula_says(length: int, group: int) -> None:
    """The formula of README.md, for 48 heads of width 64, mini-batches of 64, bf16."""
    forward, trace, queries, keys = planned_launches(
        head_width=64, mini_batch=64, length=length, checkpoint_group=group
    )
    mini_batches = -(-length // 64)
    g, matrices, biases, tile = min(group, mini_batches), 2 * 64 * 256, 64 + 256, 64 * 64
    kept = 48 * -(-mini_batches // g) * 4 * (matrices + biases)
    assert sum(forward.arguments[name].nbytes for name in ("kept_weights", "kept_biases")) == kept

    scratch = {
        id(x): x.nbytes
        for launch in (trace, queries, keys)
        for name, x in launch.arguments.items()
        if isinstance(x, Tensor) and ("weights" in name or "biases" in name)
    }
    rest = ("answers", "norm_parts", "d_operands", "work")
    in_group = 2 * matrices + 4 * biases + 4 * (matrices + biases) + 4 * (tile + 4 * 64)
    once = (2 * matrices + 4 * biases) + 2 * 4 * (matrices + biases) + 2 * matrices + 4 * 2 * tile
    expected = 48 * (g * in_group + once)
    assert sum(scratch.values()) + sum(keys.arguments[name].nbytes for name in rest) == expected


def test_the_reference_has_the_gradients_of_finite_differences() -> None:
    inputs = [x.detach().cpu().double().requires_grad_() for x in arguments(1, 2, 7, 6, 8)]

    def function(*args: Tensor) -> tuple[Tensor, ...]:
        output, state = reference(*args[:6], (args[6], args[7], args[8], args[9]), 3)
        return (output, *state)

    assert torch.autograd.gradcheck(function, inputs, fast_mode=True)


@pytest.mark.parametrize(
    ("width", "hidden", "mini_batch", "dtype", "message"),
    [
        (32, 64, 16, torch.float64, "take bfloat16"),
        (160, 64, 16, torch.float32, "at most 128, got 160"),
        (32, 40, 16, torch.float32, "multiple of 16, got 40"),
        (32, 64, 65, torch.float32, "at most 64, got 65"),
    ],
)
def test_what_the_kernels_do_not_take_is_refused(
    width: int, hidden: int, mini_batch: int, dtype: torch.dtype, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        triton_mlp(*arguments(1, 1, 5, width, hidden, dtype=dtype), mini_batch=mini_batch)


PLANNED = "ttv_kernels.ttt_mlp.autograd:planned_launches"
CAPABILITIES = (80, 89, 90, 120)
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="triton is for Linux only")
in_slow_run = pytest.mark.slow

# Most bytes that a thread may spill in the forward kernel, the same tracing, and the backward
# kernels of queries and keys, by mini-batch; README.md has the table. A kernel that holds the
# whole state spills 10 to 16 KB.
SPILLS = {16: (16, 16, 16, 64), 64: (112, 16, 16, 128)}


@on_linux
@pytest.mark.parametrize(
    ("capabilities", "mini_batch"),
    [
        ((89,), 16),
        pytest.param(CAPABILITIES, 16, marks=in_slow_run),
        pytest.param(CAPABILITIES, 64, marks=in_slow_run),
    ],
)
def test_kernels_fit_the_cards_and_hardly_spill(
    capabilities: tuple[int, ...], mini_batch: int
) -> None:
    case = {"head_width": 64, "mini_batch": mini_batch}
    for kernels in compile_elsewhere(PLANNED, [(each, case) for each in capabilities]):
        for kernel, limit in zip(kernels, SPILLS[mini_batch], strict=True):
            assert kernel["fits"], kernel
            assert kernel["spilled"] <= limit, kernel


@on_linux
@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [
        {"head_width": 32, "mini_batch": 64},
        {"head_width": 64, "mini_batch": 32},
        {"head_width": 64, "mini_batch": 64, "dtype": "float16"},
        {"head_width": 64, "mini_batch": 64, "dtype": "float32"},
        {"head_width": 128, "mini_batch": 32},
    ],
    ids=str,
)
def test_other_sizes_and_dtypes_fit_every_card(case: dict[str, int | str]) -> None:
    compiled = compile_elsewhere(PLANNED, [(each, case) for each in CAPABILITIES])
    assert all(kernel["fits"] for kernels in compiled for kernel in kernels), compiled
