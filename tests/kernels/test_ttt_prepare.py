"""Unit length, rotation and target: plain PyTorch and Triton against the float64 reference."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from ttt_inputs import EXACT, largest
from ttv_kernels.ttt_prepare import ttt_prepare
from ttv_kernels.ttt_prepare.plain import plain_prepare
from ttv_kernels.ttt_prepare.reference import reference

pytest.importorskip("triton")
from ttt_triton import DEVICE, INTERPRETED, error
from ttv_kernels.ttt_prepare.autograd import TILE, TILES, triton_prepare

NAMES = ("q", "k", "target", *(f"gradient of {x}" for x in ("q", "k", "v", "weight", "bias")))

Prepare = Callable[..., tuple[Tensor, Tensor, Tensor]]


def arguments(
    batch: int, heads: int, length: int, width: int, dtype: torch.dtype = torch.float32
) -> list[Tensor]:
    """q, k, v in `dtype`, the rest in fp32 (complex64), or all in fp64; of size 0.3 to 1."""
    generator = torch.Generator().manual_seed(length * width)
    fixed = torch.promote_types(dtype, torch.float32)

    def random(*shape: int) -> Tensor:
        return 0.3 * torch.randn(*shape, generator=generator)

    tokens = [random(batch, heads, length, width).to(dtype) for _ in range(3)]
    angles = (5 * random(length, width // 2)).to(fixed)
    rotary = torch.complex(angles.cos(), angles.sin())
    norm = [(1 + random(heads, width)).to(fixed), random(heads, width).to(fixed)]
    return [x.to(DEVICE) for x in (*tokens, rotary, *norm)]


def results(run: Prepare, inputs: list[Tensor]) -> list[Tensor]:
    """What it makes, and every gradient of a number that sees each entry differently."""
    inputs = [x.detach().requires_grad_(not x.is_complex()) for x in inputs]
    made = run(*inputs)
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(x.shape, generator=generator).to(DEVICE) for x in made]
    total = sum((x.double() * w).sum() for x, w in zip(made, weights, strict=True))
    wanted = [x for x in inputs if x.requires_grad]
    return [*made, *torch.autograd.grad(total, wanted)]


def expected_results(inputs: list[Tensor]) -> list[Tensor]:
    exact = [x.to(torch.complex128) if x.is_complex() else x.double() for x in inputs]

    def run(q: Tensor, k: Tensor, v: Tensor, rotary: Tensor, *norm: Tensor) -> tuple[Tensor, ...]:
        return reference(q, k, v, torch.view_as_real(rotary).flatten(-2), *norm)

    return results(run, exact)


def assert_close(got: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    for name, a, b in zip(NAMES, got, expected, strict=True):
        assert error(a, b) < tolerance, f"{name}: {error(a, b):.2e}"


def test_the_reference_has_the_gradients_of_finite_differences() -> None:
    q, k, v, rotary, *norm = (x.cpu() for x in arguments(1, 2, 3, 6, torch.float64))
    real = torch.view_as_real(rotary).flatten(-2)
    inputs = [x.requires_grad_() for x in (q, k, v, *norm)]

    def function(q: Tensor, k: Tensor, v: Tensor, *norm: Tensor) -> tuple[Tensor, ...]:
        return reference(q, k, v, real, *norm)

    assert torch.autograd.gradcheck(function, inputs, fast_mode=True)


def test_the_target_has_the_unbiased_deviation_of_v_minus_the_turned_k() -> None:
    """As the published layer states it: mean and deviation of torch, not those of a LayerNorm."""
    inputs = arguments(2, 3, 5, 8, torch.float64)
    _, k, target = plain_prepare(*inputs)
    residual = inputs[2] - k
    scaled = (residual - residual.mean(-1, keepdim=True)) / residual.std(-1, keepdim=True)
    expected = inputs[4][:, None] * scaled + inputs[5][:, None]
    assert largest([(target, expected)]) < 1e-7


def test_plain_equals_the_reference() -> None:
    inputs = arguments(2, 3, 7, 10, torch.float64)
    got, expected = results(plain_prepare, inputs), expected_results(inputs)
    assert largest(list(zip(got, expected, strict=True))) < EXACT


# batch, heads, tokens, head width
SHAPES = {
    "one-token": (1, 1, 1, 32),
    "last-tile-partial": (2, 2, 71, 64),
    "several-programs-backward": (1, 1, TILE // 128 * TILES + 5, 128),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_triton_equals_the_reference(shape: str) -> None:
    inputs = arguments(*SHAPES[shape])
    # fp32 sums; the largest seen is 3e-7
    assert_close(results(triton_prepare, inputs), expected_results(inputs), 2e-6)


def test_triton_in_half_precision_rounds_results_alone() -> None:
    inputs = arguments(1, 2, 40, 32, torch.float16)
    got = results(triton_prepare, inputs)
    assert {x.dtype for x in got[:6]} == {torch.float16}
    assert_close(got, expected_results(inputs), 1e-3)


@pytest.mark.skipif(INTERPRETED, reason="the interpreter has no bf16")
def test_triton_in_bf16_on_a_gpu() -> None:
    inputs = arguments(1, 2, 40, 64, torch.bfloat16)
    assert_close(results(triton_prepare, inputs), expected_results(inputs), 8e-3)


def test_nothing_is_left_unwritten_and_runs_repeat_to_the_last_bit(
    request: pytest.FixtureRequest,
) -> None:
    inputs = arguments(1, 2, 71, 64)
    first = results(triton_prepare, inputs)
    request.getfixturevalue("poisoned_memory")
    second = results(triton_prepare, inputs)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_any_strides_in_and_the_strides_of_q_out() -> None:
    inputs = arguments(2, 3, 9, 32)
    expected = triton_prepare(*inputs)
    q = inputs[0].transpose(1, 2).contiguous().transpose(1, 2)
    v = torch.cat([inputs[2]] * 2, dim=-1)[..., :32]
    made = triton_prepare(q, inputs[1], v, *inputs[3:])
    assert all(torch.equal(a, b) for a, b in zip(made, expected, strict=True))
    assert {x.stride() for x in made} == {q.stride()}


@pytest.mark.parametrize("run", [plain_prepare, triton_prepare])
def test_a_token_of_zeros_stays_finite(run: Prepare) -> None:
    """Padding, or a projection without bias of one."""
    inputs = arguments(1, 1, 4, 32)
    for x in inputs[:2]:
        x[:, :, 1] = 0
    made = run(*inputs)
    assert all(x.isfinite().all() for x in made)
    assert made[0][0, 0, 1].abs().max() == 0


def test_backends_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = arguments(1, 2, 20, 32)
    plain, *others = (ttt_prepare(*inputs, backend=x) for x in ("scan", "reference", "triton"))
    for made in others:
        assert max(error(a, b) for a, b in zip(made, plain, strict=True)) < 1e-5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: torch.zeros(2, 5, 32)}, r"q must be \[B, H, L, K\], got 3 dimensions"),
        ({2: torch.zeros(1, 2, 4, 32)}, r"v must be \(1, 2, 5, 32\), got \(1, 2, 4, 32\)"),
        ({3: torch.zeros(5, 32)}, r"rotary must be \(5, 16\), got \(5, 32\)"),
        ({3: torch.zeros(5, 16)}, "rotary must be complex, got torch.float32"),
        ({4: torch.zeros(3, 32)}, r"norm_weight must be \(2, 32\), got \(3, 32\)"),
    ],
)
def test_wrong_shapes_are_refused(change: dict[int, Tensor], message: str) -> None:
    inputs = arguments(1, 2, 5, 32)
    with pytest.raises(ValueError, match=message):
        ttt_prepare(*(change.get(i, x) for i, x in enumerate(inputs)))


def test_sizes_the_kernels_do_not_take_are_refused() -> None:
    with pytest.raises(ValueError, match="power of two, got 24"):
        triton_prepare(*arguments(1, 1, 5, 24))
    with pytest.raises(ValueError, match=r"cannot run: .*head width 24 is not one of"):
        ttt_prepare(*arguments(1, 1, 5, 24), backend="triton")
