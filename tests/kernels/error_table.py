"""Print the tables of errors in kernels/README.md, as measured here.

    TRITON_INTERPRET=1 PYTHONPATH=tests python tests/kernels/error_table.py

For each result the largest error over the cases below, relative to the largest entry of the float64
reference. Sizes are like those of the tests, which assert a bound.
"""

import sys

import test_ttt_prepare as prepare
import torch
from ttt_triton import LINEAR, MLP, Operation, arguments, error, expected_results, results

# heads, tokens, head width, hidden width, mini-batch, checkpoint group
CASES = ((2, 37, 32, 96, 16, 2), (1, 67, 64, 256, 64, 16), (1, 53, 64, 128, 16, 2))
DTYPES = {"fp32": torch.float32, "fp16": torch.float16}
OPERATIONS = {"ttt_linear": LINEAR, "ttt_mlp": MLP}


def largest_errors(op: Operation, dtype: torch.dtype) -> dict[str, float]:
    """Of each of `op.results`, with tokens of this dtype."""
    rows = []
    for heads, length, width, hidden, mini_batch, group in CASES:
        inputs = arguments(op, 1, heads, length, width, hidden, dtype=dtype)
        got = results(op, inputs, mini_batch=mini_batch, checkpoint_group=group)
        expected = expected_results(op, inputs, mini_batch)
        rows.append([error(a, b) for a, b in zip(got, expected, strict=True)])
    return dict(zip(op.results, map(max, zip(*rows, strict=True)), strict=True))


def errors_of_preparation(dtype: torch.dtype) -> dict[str, float]:
    """The same of what comes before both."""
    rows = []
    for shape in prepare.SHAPES.values():
        inputs = prepare.arguments(*shape, dtype)
        got = prepare.results(prepare.triton_prepare, inputs)
        rows.append(
            [error(a, b) for a, b in zip(got, prepare.expected_results(inputs), strict=True)]
        )
    return dict(zip(prepare.NAMES, map(max, zip(*rows, strict=True)), strict=True))


def table(columns: dict[str, dict[str, float]], names: tuple[str, ...]) -> str:
    """A row for each result, a column for each operation and dtype."""
    lines = [f"| | {' | '.join(columns)} |", "|---" * (1 + len(columns)) + "|"]
    for name in names:
        cells = (f"{c[name]:.0e}" if name in c else "–" for c in columns.values())
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def tables() -> str:
    """That of the two operations with a state, and that of the preparation."""
    columns = {
        f"`{name}` {dtype}": largest_errors(op, DTYPES[dtype])
        for name, op in OPERATIONS.items()
        for dtype in DTYPES
    }
    before = {f"`ttt_prepare` {name}": errors_of_preparation(x) for name, x in DTYPES.items()}
    return "\n".join([table(columns, MLP.results), table(before, prepare.NAMES)])


if __name__ == "__main__":
    sys.stdout.write(tables())
