"""Print rows of `ttv bench kernels` as Markdown tables.

python docs/bench_table.py cpu.jsonl [more.jsonl ...]
"""

import json
import sys
from pathlib import Path

from ttvcli.workflows.bench_kernels_text import markdown


def main(files: list[str]) -> None:
    """Tables of all files together, in the order of their rows."""
    lines = [line for file in files for line in Path(file).read_text("utf-8").splitlines()]
    try:
        sys.stdout.write(markdown([json.loads(line) for line in lines]))
    except ValueError as error:
        sys.exit(f"{', '.join(files)}: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
