"""Kernels compiled for cards that are not here: they fit, and spill no more than stated.

Bytes of local memory per thread are the gate: a kernel whose state does not fit in registers still
compiles, and crawls (the first draft of TTT-Linear's backward kernel spilled 1448, a TTT-MLP kernel
that holds the whole state 10 to 16 thousand). READMEs of the operations have the measured figures.
"""

import sys
from dataclasses import dataclass

import pytest
import torch
from helpers import compile_elsewhere

pytest.importorskip("triton")
from ttv_kernels import dispatch
from ttv_kernels.ahead_of_time import Resources

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="triton is for Linux only")

EVERY = (80, 89, 90, 120)


@dataclass(frozen=True)
class Case:
    """Sizes, the cards to compile for, and the most bytes that a thread of each kernel may spill.

    Kernels are those of `planned_launches`: of TTT-Linear forward and backward, of TTT-MLP forward,
    forward as it traces a group, backward of the queries and of the keys.
    """

    op: str
    width: int
    mini_batch: int
    dtype: str
    cards: tuple[int, ...]
    spills: tuple[int, ...]

    def __str__(self) -> str:
        cards = "-".join(map(str, self.cards))
        return f"{self.op}-{self.width}-{self.mini_batch}-{self.dtype}-sm{cards}"


QUICK = (
    Case("linear", 64, 16, "bfloat16", EVERY, (0, 64)),
    Case("mlp", 64, 16, "bfloat16", (89,), (0, 0, 0, 48)),
)
THOROUGH = (
    Case("linear", 64, 64, "bfloat16", EVERY, (144, 352)),
    Case("linear", 64, 32, "bfloat16", EVERY, (0, 448)),
    Case("linear", 32, 16, "bfloat16", EVERY, (0, 16)),
    Case("linear", 128, 16, "bfloat16", EVERY, (32, 384)),
    Case("linear", 128, 64, "bfloat16", (80, 90), (416, 576)),
    Case("linear", 128, 16, "float16", (80,), (32, 464)),
    Case("mlp", 64, 16, "bfloat16", EVERY, (0, 0, 0, 80)),
    Case("mlp", 64, 32, "bfloat16", EVERY, (80, 72, 0, 80)),
    Case("mlp", 64, 64, "bfloat16", EVERY, (112, 0, 0, 128)),
    Case("mlp", 32, 64, "bfloat16", (89, 120), (0, 0, 0, 0)),
    Case("mlp", 128, 16, "bfloat16", (89, 120), (0, 0, 0, 96)),
    Case("mlp", 128, 32, "bfloat16", EVERY, (48, 16, 0, 40)),
    Case("mlp", 128, 64, "bfloat16", (80, 90), (184, 64, 0, 88)),
    Case("mlp", 128, 16, "float16", (89,), (72, 16, 0, 112)),
    Case("mlp", 128, 32, "float16", (80, 89), (16, 16, 24, 96)),
    Case("mlp", 128, 64, "float16", (80, 90), (104, 16, 16, 592)),
    Case("mlp", 64, 64, "float16", (89,), (208, 48, 0, 176)),
    Case("mlp", 64, 64, "float32", (89,), (16, 32, 16, 48)),
    # cards for data centres, whose products have operands in a memory of their own
    Case("linear", 64, 16, "bfloat16", (100,), (0, 512)),
    Case("linear", 64, 64, "bfloat16", (100,), (0, 464)),
    Case("mlp", 64, 16, "bfloat16", (100,), (0, 0, 0, 0)),
    Case("mlp", 64, 32, "bfloat16", (100,), (0, 0, 0, 0)),
    Case("mlp", 64, 64, "bfloat16", (100,), (0, 0, 0, 0)),
    Case("mlp", 128, 64, "bfloat16", (100,), (0, 0, 0, 0)),
)


@pytest.mark.parametrize(
    "case", [*QUICK, *(pytest.param(case, marks=pytest.mark.slow) for case in THOROUGH)], ids=str
)
def test_kernels_fit_the_cards_and_hardly_spill(case: Case) -> None:
    launches = f"ttv_kernels.ttt_{case.op}.autograd:planned_launches"
    sizes = {"head_width": case.width, "mini_batch": case.mini_batch, "dtype": case.dtype}
    for kernels in compile_elsewhere(launches, [(card, sizes) for card in case.cards]):
        for kernel, limit in zip(kernels, case.spills, strict=True):
            assert kernel["fits"], kernel
            assert 32 <= kernel["registers"] <= 255, kernel
            assert kernel["spilled"] <= limit, kernel


def test_what_does_not_fit_in_registers_is_seen() -> None:
    """Otherwise a gate would hold whatever a kernel spills."""
    ((kernel,),) = compile_elsewhere("spilling:launches", [(89, {"head_width": 64})])
    assert kernel["spilled"] > 64


@pytest.mark.parametrize(
    ("capability", "kib"), [(80, 163), (89, 99), (90, 227), (100, 227), (120, 99)]
)
def test_a_block_fits_up_to_the_limits_of_the_card(capability: int, kib: int) -> None:
    def fits(shared: int, registers: int, threads: int) -> bool:
        return Resources("kernel", capability, shared, registers, 0, threads).fits

    assert fits(kib * 1024, 255, 256)
    assert not fits(kib * 1024 + 1, 255, 256)
    assert not fits(1024, 255, 288)


@pytest.mark.slow
def test_the_preparation_spills_nothing() -> None:
    launches = "ttv_kernels.ttt_prepare.autograd:planned_launches"
    sizes = {"head_width": 64, "dtype": "bfloat16"}
    compiled = compile_elsewhere(launches, [(card, sizes) for card in EVERY])
    assert all(kernel["fits"] for kernels in compiled for kernel in kernels)
    assert {kernel["spilled"] for kernels in compiled for kernel in kernels} == {0}


@pytest.mark.slow
@pytest.mark.parametrize("case", dispatch.WIDEST_NEED, ids=str)
def test_what_the_dispatch_refuses_does_not_fit(case: tuple[int, torch.dtype, int]) -> None:
    """Wide heads on cards with 99 KiB; and the figure by which others are judged is right."""
    expansion, dtype, mini_batch = case
    launches = f"ttv_kernels.ttt_{'linear' if expansion == 1 else 'mlp'}.autograd:planned_launches"
    name = str(dtype).removeprefix("torch.")
    sizes = {"head_width": 128, "mini_batch": mini_batch, "dtype": name}
    (kernels,) = compile_elsewhere(launches, [(89, sizes)])
    assert not all(kernel["fits"] for kernel in kernels)
    most = max(kernel["shared"] for kernel in kernels)
    assert (dispatch.WIDEST_NEED[case] - 1) * 1024 < most <= dispatch.WIDEST_NEED[case] * 1024
