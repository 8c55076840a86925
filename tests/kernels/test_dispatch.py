"""Which implementation runs, and what is said where the one asked for cannot."""

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from ttv_kernels import dispatch
from ttv_kernels.ttt_linear import ttt_linear
from ttv_kernels.ttt_mlp import ttt_mlp

OPS: dict[str, Callable[..., Any]] = {"linear": ttt_linear, "mlp": ttt_mlp}
both = pytest.mark.parametrize("op", OPS)
COUNTS: dict[str, Any] = {"mini_batch": 16, "checkpoint_group": 2, "eps": 1e-6}


def arguments(op: str, width: int = 32, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Inputs of a supported size: 1 sequence, 2 heads, 40 tokens."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return (0.3 * torch.randn(*shape, generator=generator)).to(dtype)

    inner = width if op == "linear" else 4 * width
    state = [random(2, width, inner), random(2, 1, inner)]
    if op == "mlp":
        state += [random(2, inner, width), random(2, 1, width)]
    tokens = [random(1, 2, 40, width) for _ in range(3)]
    return [*tokens, random(1, 2, 40).abs(), random(2, width), random(2, width), *state]


@pytest.fixture(params=["scan", "reference", "triton"])
def forced(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[str, list]:
    """A backend, and the list of calls that each implementation records."""
    calls: list[tuple[str, dict[str, Any]]] = []
    for op in OPS:
        package = sys.modules[f"ttv_kernels.ttt_{op}"]

        def spy(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
            def run(*args: Any, **options: Any) -> Any:
                calls.append((name, options))
                return original(*args, **options)

            return run

        scan_name = f"scan_{op}"
        original = getattr(package, scan_name)
        monkeypatch.setattr(package, scan_name, spy("scan", original))
        monkeypatch.setattr(package, "reference", spy("reference", package.reference))
        kernels = ModuleType(f"ttv_kernels.ttt_{op}.autograd")

        def run_kernel(*args: Tensor, scan: Any = original, **options: Any) -> Any:
            return scan(*args[:4], args[4:6], args[6:], **{"checkpoint_group": 16, **options})

        setattr(kernels, f"triton_{op}", spy("triton", run_kernel))
        monkeypatch.setitem(sys.modules, kernels.__name__, kernels)
    monkeypatch.setattr(dispatch, "triton_imports", lambda: True)
    if request.param == "triton":
        monkeypatch.setenv("TRITON_INTERPRET", "1")
    return request.param, calls


@both
@pytest.mark.parametrize("by", ["argument", "environment"])
def test_each_backend_runs_when_it_is_named(
    op: str, by: str, forced: tuple[str, list], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, calls = forced
    if by == "environment":
        monkeypatch.setenv(dispatch.VARIABLE, name)
    options = {"backend": name} if by == "argument" else {}
    OPS[op](*arguments(op), **COUNTS, reverse=True, **options)
    assert [called for called, _ in calls] == [name]
    if name != "reference":
        assert calls[0][1] == {**COUNTS, "reverse": True}


@both
def test_a_kernel_keeps_what_suits_it_unless_told(op: str, forced: tuple[str, list]) -> None:
    name, calls = forced
    OPS[op](*arguments(op), mini_batch=16, backend=name)
    if name == "triton":
        assert "checkpoint_group" not in calls[0][1]


@both
@pytest.mark.parametrize("reverse", [False, True])
def test_backends_agree(op: str, reverse: bool, forced: tuple[str, list]) -> None:
    name, _ = forced
    inputs = arguments(op)
    peer = "reference" if name == "scan" else "scan"
    expected, state = OPS[op](*inputs, **COUNTS, reverse=reverse, backend=peer)
    output, other = OPS[op](*inputs, **COUNTS, reverse=reverse, backend=name)
    for a, b in zip((output, *other), (expected, *state), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@both
def test_tokens_in_half_precision_meet_a_state_in_fp32(op: str, forced: tuple[str, list]) -> None:
    """As if they had been brought to fp32 before, and the output rounded after."""
    name, _ = forced
    inputs = arguments(op)
    half = [x.half() for x in inputs[:4]]
    output, state = OPS[op](*half, *inputs[4:], **COUNTS, backend=name)
    exact = [x.float() for x in half]
    expected, expected_state = OPS[op](*exact, *inputs[4:], **COUNTS, backend="scan")
    assert output.dtype == torch.float16
    torch.testing.assert_close(output, expected.half(), rtol=2e-3, atol=2e-3)
    for a, b in zip(state, expected_state, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_an_argument_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(dispatch.VARIABLE, "reference")
    assert dispatch.requested("scan") == "scan"
    assert dispatch.requested("auto") == "reference"
    assert dispatch.requested() == "reference"


def test_a_preference_wins_over_the_environment_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(dispatch.VARIABLE, "triton")
    with dispatch.preferring("scan"):
        assert dispatch.requested() == "scan"
        assert dispatch.requested("reference") == "reference"
    assert dispatch.requested() == "triton"


def test_auto_is_the_scan_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")  # allows Triton on a CPU, but is no reason for it
    monkeypatch.setattr(dispatch, "triton_imports", lambda: True)
    assert dispatch.choose("auto", torch.zeros(1, 2, 40, 64), 64, 256) == "scan"


class OnCuda:
    """What `choose` asks of a tensor on a card."""

    is_cuda = True
    device = torch.device("cuda")

    def __init__(self, width: int = 64, dtype: torch.dtype = torch.bfloat16) -> None:
        self.shape, self.dtype = (1, 2, 40, width), dtype


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A card that is not there; its capability can be changed."""
    facts: dict[str, Any] = {"capability": (8, 9)}
    monkeypatch.setattr(dispatch, "triton_imports", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: facts["capability"])
    return facts


@pytest.mark.parametrize(
    ("width", "mini_batch", "inner", "capability", "chosen"),
    [
        (64, 64, 256, (8, 9), "triton"),
        (32, 16, 32, (9, 0), "triton"),
        (48, 64, 192, (8, 9), "scan"),
        (64, 40, 256, (8, 9), "scan"),
        (64, 64, 192, (8, 9), "scan"),
        (64, 64, 256, (7, 5), "scan"),
    ],
)
def test_auto_on_a_card_is_triton_for_the_sizes_it_has(
    card: dict[str, Any],
    width: int,
    mini_batch: int,
    inner: int,
    capability: tuple[int, int],
    chosen: str,
) -> None:
    card["capability"] = capability
    assert dispatch.choose("auto", OnCuda(width), mini_batch, inner) == chosen  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("inner", "dtype", "mini_batch", "capability", "needs"),
    [
        (512, torch.bfloat16, 64, (8, 0), None),
        (512, torch.bfloat16, 64, (8, 9), 106),
        (512, torch.bfloat16, 64, (9, 0), None),
        (512, torch.bfloat16, 64, (12, 0), 106),
        (512, torch.bfloat16, 64, (11, 0), 106),  # not known: taken to have the least
        (512, torch.bfloat16, 32, (8, 9), None),
        (512, torch.float16, 16, (12, 0), None),
        (128, torch.bfloat16, 16, (8, 9), None),
        (128, torch.bfloat16, 32, (8, 9), 109),
        (128, torch.float16, 16, (8, 9), 109),
        (128, torch.float16, 32, (8, 0), 173),
        (128, torch.float16, 32, (9, 0), None),
    ],
)
def test_what_does_not_fit_in_shared_memory_is_the_scan_and_refused_by_name(
    card: dict[str, Any],
    inner: int,
    dtype: torch.dtype,
    mini_batch: int,
    capability: tuple[int, int],
    needs: int | None,
) -> None:
    card["capability"] = capability
    wide: Any = OnCuda(128, dtype)
    assert dispatch.choose("auto", wide, mini_batch, inner) == ("scan" if needs else "triton")
    if needs:
        says = f"head width 128 with mini-batch {mini_batch} in {dtype} needs {needs} KiB"
        with pytest.raises(ValueError, match=says):
            dispatch.choose("triton", wide, mini_batch, inner)


def test_auto_on_a_card_without_triton_is_the_scan(
    card: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "triton_imports", lambda: False)
    assert dispatch.choose("auto", OnCuda(), 64, 256) == "scan"  # type: ignore[arg-type]


@both
@pytest.mark.parametrize(
    ("interpreted", "change", "says"),
    [
        (False, {}, "it needs a CUDA device, the tensors are on cpu"),
        (True, {"width": 128}, "float32 with head width 128 spill kilobytes of registers"),
        (True, {"width": 48}, "head width 48 is not one of (32, 64, 128)"),
        (True, {"mini_batch": 5}, "mini-batch 5 is not one of (16, 32, 64)"),
        (True, {"dtype": torch.float64}, "torch.float64 is not one of"),
        (True, {"dtype": torch.bfloat16}, "interpreter multiplies bfloat16 wrongly"),
    ],
)
def test_triton_that_cannot_run_is_one_error_with_the_reason(
    op: str, interpreted: bool, change: dict[str, Any], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "triton_imports", lambda: True)
    monkeypatch.setenv("TRITON_INTERPRET", str(int(interpreted)))
    inputs = arguments(op, **{key: change[key] for key in change if key != "mini_batch"})
    with pytest.raises(ValueError, match="backend 'triton' cannot run") as error:
        OPS[op](*inputs, mini_batch=change.get("mini_batch", 16), backend="triton")
    assert says in str(error.value)
    assert "use 'auto' or 'scan'" in str(error.value)


@both
def test_triton_without_the_package_is_said(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "triton_imports", lambda: False)
    with pytest.raises(ValueError, match="the package triton cannot be imported"):
        OPS[op](*arguments(op), mini_batch=16, backend="triton")


@both
def test_an_unknown_backend_is_named_with_its_origin(
    op: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=r"backend must be one of auto, scan, .* got 'cuda'"):
        OPS[op](*arguments(op), mini_batch=16, backend="cuda")
    monkeypatch.setenv(dispatch.VARIABLE, "tritn")
    with pytest.raises(ValueError, match=r"TTV_TTT_BACKEND must be one of auto.* got 'tritn'"):
        OPS[op](*arguments(op), mini_batch=16)
