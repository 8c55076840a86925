"""The Triton kernels of TTT-Linear against the float64 reference, and the memory they need.

What holds for both operations is in test_ttt_triton.py.
"""

import pytest

pytest.importorskip("triton")
from ttt_triton import LINEAR, arguments, assert_close, expected_results, results
from ttv_kernels.ttt_linear.autograd import planned_launches

# fp32 sums in another order, through two LayerNorms; the largest seen is 1.6e-6
FP32 = 1e-5

CASES = {
    # batch, heads, tokens, head width, mini-batch, checkpoint group
    "partial-last-mini-batch-and-group": (2, 2, 37, 32, 16, 2),
    "one-group-per-mini-batch": (1, 2, 33, 32, 16, 1),
    "odd-everything": (1, 1, 37, 24, 5, 3),
    "less-than-one-mini-batch": (1, 1, 7, 64, 16, 16),
    "one-token": (1, 1, 1, 16, 16, 16),
    "tiles-inside-a-mini-batch": (1, 1, 150, 64, 64, 2),
    "tiles-of-a-mini-batch-of-32": (1, 2, 70, 64, 32, 2),
    "wide-head": (1, 1, 20, 128, 16, 16),
}
REVERSED = ("partial-last-mini-batch-and-group", "odd-everything", "tiles-inside-a-mini-batch")


@pytest.mark.parametrize(
    ("case", "reverse"),
    [*((case, False) for case in CASES), *((case, True) for case in REVERSED)],
    ids=[*CASES, *(f"{case}-reversed" for case in REVERSED)],
)
def test_output_and_every_gradient_equal_the_reference(case: str, reverse: bool) -> None:
    *shape, mini_batch, group = CASES[case]
    inputs = arguments(LINEAR, *shape)
    got = results(LINEAR, inputs, mini_batch=mini_batch, checkpoint_group=group, reverse=reverse)
    assert_close(LINEAR, got, expected_results(LINEAR, inputs, mini_batch, reverse), FP32)


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
