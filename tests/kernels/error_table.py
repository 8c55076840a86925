"""Print the tables of errors in the READMEs of the TTT operations, as measured here.

    TRITON_INTERPRET=1 PYTHONPATH=tests python tests/kernels/error_table.py

For each result the largest error over the cases below, relative to the largest entry of the float64
reference. The same cases as the tests have, which assert a bound.
"""

import sys

import torch
from ttt_triton import LINEAR, MLP, Operation, arguments, error, expected_results, results

# heads, tokens, head width, hidden width, mini-batch, checkpoint group
CASES = ((2, 37, 32, 96, 16, 2), (1, 67, 64, 256, 64, 16), (1, 53, 64, 128, 16, 2))
DTYPES = {"fp32": torch.float32, "fp16": torch.float16}


def largest_errors(op: Operation, dtype: torch.dtype) -> list[float]:
    """Of each of `op.results`."""
    rows = []
    for heads, length, width, hidden, mini_batch, group in CASES:
        inputs = arguments(op, 1, heads, length, width, hidden, dtype=dtype)
        got = results(op, inputs, mini_batch=mini_batch, checkpoint_group=group)
        expected = expected_results(op, inputs, mini_batch)
        rows.append([error(a, b) for a, b in zip(got, expected, strict=True)])
    return [max(column) for column in zip(*rows, strict=True)]


def table(op: Operation) -> str:
    """A row for each result, a column for each dtype of the tokens."""
    columns = [largest_errors(op, dtype) for dtype in DTYPES.values()]
    lines = [f"| | {' | '.join(DTYPES)} |", "|---" * (1 + len(DTYPES)) + "|"]
    for name, *errors in zip(op.results, *columns, strict=True):
        lines.append(f"| {name} | {' | '.join(f'{value:.0e}' for value in errors)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    for name, op in (("ttt_linear", LINEAR), ("ttt_mlp", MLP)):
        sys.stdout.write(f"{name}\n\n{table(op)}\n\n")
