"""Draw training curves: `python docs/curves.py out.png field run[=label] ...` (needs matplotlib).

Reads `metrics.jsonl` of run folders, or the thinned copies under docs/experiments, and draws the
running mean of a field over the steps, one line for each run.
"""

import json
import sys
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot

WINDOW = 40


def read(path: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of a field, from a run folder or a metrics file."""
    file = path / "metrics.jsonl" if path.is_dir() else path
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if name in row]
    return np.array([row["step"] for row in rows]), np.array([row[name] for row in rows])


def draw(out: Path, name: str, runs: list[str]) -> None:
    """Write the picture."""
    figure, axes = pyplot.subplots(figsize=(7, 3.2), dpi=110)
    for run in runs:
        path, _, label = run.partition("=")
        steps, values = read(Path(path), name)
        width = max(1, min(WINDOW, len(values) // 10))
        smooth = np.convolve(values, np.ones(width) / width, mode="valid")
        axes.plot(steps[width - 1 :], smooth, label=label or Path(path).stem, linewidth=1.3)
    axes.set_xlabel("step")
    axes.set_ylabel(name)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(out)


if __name__ == "__main__":
    draw(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
