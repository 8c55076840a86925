"""Print the table of errors in kernels/README.md, as measured here.

    TRITON_INTERPRET=1 PYTHONPATH=tests python tests/kernels/error_table.py

For each result the largest error over the cases below, relative to the largest entry of the float64
reference. Sizes are like those of the tests, which assert a bound.
"""

import sys

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


def table() -> str:
    """A row for each result, a column for each operation and dtype."""
    columns = {
        f"`{name}` {dtype}": largest_errors(op, DTYPES[dtype])
        for name, op in OPERATIONS.items()
        for dtype in DTYPES
    }
    lines = [f"| | {' | '.join(columns)} |", "|---" * (1 + len(columns)) + "|"]
    for name in MLP.results:
        cells = (f"{c[name]:.0e}" if name in c else "–" for c in columns.values())
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(table() + "\n")
