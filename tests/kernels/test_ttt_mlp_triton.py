"""The Triton kernels of TTT-MLP against the float64 reference, and the memory they need.

What holds for both operations is in test_ttt_triton.py.
"""

import pytest
from torch import Tensor

pytest.importorskip("triton")
from ttt_triton import MLP, arguments, assert_close, expected_results, results
from ttv_kernels.ttt_mlp.autograd import planned_launches

# fp32 sums in another order, through two LayerNorms and GELU; the largest seen is 9e-7
FP32 = 5e-6

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
    inputs = arguments(MLP, *shape)
    got = results(MLP, inputs, mini_batch=mini_batch, checkpoint_group=group, reverse=reverse)
    assert_close(MLP, got, expected_results(MLP, inputs, mini_batch, reverse), FP32)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(32, 128, 32), (128, 512, 16), (128, 512, 64)])
def test_other_widths_and_mini_batches_equal_the_reference(sizes: tuple[int, int, int]) -> None:
    width, hidden, mini_batch = sizes
    inputs = arguments(MLP, 1, 1, 2 * mini_batch + 3, width, hidden)
    got = results(MLP, inputs, mini_batch=mini_batch, checkpoint_group=2)
    assert_close(MLP, got, expected_results(MLP, inputs, mini_batch), FP32)


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


@pytest.mark.parametrize(
    ("hidden", "mini_batch", "message"),
    [(40, 16, "multiple of 16, got 40"), (64, 65, "at most 64, got 65")],
)
def test_sizes_the_kernels_do_not_take_are_refused(
    hidden: int, mini_batch: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        MLP.triton(*arguments(MLP, 1, 1, 5, 32, hidden), mini_batch=mini_batch)
