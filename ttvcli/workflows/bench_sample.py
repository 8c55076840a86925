"""Time the parts of sampling against diffusers, side by side in one process.

Each row first has to agree with its peer; then the two take turns, so that whatever else the
machine does hits both alike. Medians are reported, and ratios above 1 mean that ttv is quicker.
"""

import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from ttvcli.core.device import DTYPES
from ttvcli.errors import UsageError, WorkFailed, nearest
from ttvcli.workflows.bench_clock import listed, machine, timed
from ttvcli.workflows.bench_file import BenchResult, RowFile
from ttvcli.workflows.bench_rows import ROWS, Pair, public
from ttvcli.workflows.components import device_named
from ttvcli.workflows.output_file import check_output_file
from ttvcli.workflows.step import SILENT, Plan, Progress


@dataclass(frozen=True, kw_only=True)
class BenchSampleConfig:
    """Settings of `ttv bench sample`."""

    against: Literal["diffusers"] = field(
        default="diffusers", metadata={"help": "the implementation to compare with"}
    )
    rows: str = field(default="", metadata={"help": "names of rows, commas between; empty is all"})
    dtypes: str = field(default="fp32,bf16", metadata={"help": "number formats, commas between"})
    repeats: int = field(default=3, metadata={"help": "timed runs of each side"})
    out: Path | None = field(
        default=None, metadata={"help": "file for the rows, one JSON object a line"}
    )
    device: str = field(default="auto", metadata={"help": "auto, cpu, cuda, cuda:1"})
    threads: int = field(default=0, metadata={"help": "CPU threads; 0 lets torch choose"})

    def __post_init__(self) -> None:
        if self.repeats < 1:
            raise UsageError(f"repeats must be at least 1, got {self.repeats}")
        if self.threads < 0:
            raise UsageError(f"--threads must not be negative, got {self.threads}")
        for name in self.row_names():
            if name not in ROWS:
                raise UsageError(f"there is no row {name!r}", fix=nearest(name, ROWS))
        for name in listed(self.dtypes):
            if name not in DTYPES:
                raise UsageError(f"there is no dtype {name!r}", fix=nearest(name, DTYPES))
        if self.out is not None:
            check_output_file(self.out, ".jsonl", "--out")

    def row_names(self) -> list[str]:
        """The rows asked for."""
        return listed(self.rows) or list(ROWS)


def plan(config: BenchSampleConfig) -> Plan:
    """Say what would be measured."""
    names = config.row_names()
    return Plan(
        command="bench sample",
        items=[
            *[(f"row {name}", ROWS[name].shape) for name in names],
            ("dtypes", config.dtypes),
            ("runs of each side", config.repeats + 1),
        ],
    )


def run(config: BenchSampleConfig, progress: Progress = SILENT) -> BenchResult:
    """Measure every row; the file is written anew after each.

    Raises:
        UsageError: diffusers is not installed.
        WorkFailed: the two sides of a row disagree; that row is not timed then.
        Interrupted: says what is kept.
    """
    public()
    if config.threads:
        torch.set_num_threads(config.threads)
    device = device_named(config.device)
    file = RowFile(config.out)
    jobs = [(name, dtype) for name in config.row_names() for dtype in listed(config.dtypes)]
    progress.start("measuring", total=len(jobs) * (config.repeats + 1), unit="pairs of runs")
    for name, dtype in jobs:
        with file.kept(f" at {name} in {dtype}"):
            error, measured = _measure(name, dtype, config.repeats, device, progress)
        file.add(
            {
                "bench": "sample",
                "row": name,
                "shape": ROWS[name].shape,
                "dtype": dtype,
                "against": config.against,
                **measured,
                "relative_error": error,
                "repeats": config.repeats,
                **machine(device, "diffusers"),
            }
        )
    progress.finish()
    return file.result([(f"{row['row']} {row['dtype']}", _readable(row)) for row in file.rows])


def _readable(row: dict[str, Any]) -> str:
    return (
        f"ttv {row['seconds']:.3f} s, {row['against']} {row['against_seconds']:.3f} s, "
        f"ratio {row['ratio']:.2f}"
    )


def _measure(
    name: str, dtype: str, repeats: int, device: torch.device, progress: Progress
) -> tuple[float, dict[str, float]]:
    """Distance of the two sides of a row, and their times."""
    with torch.inference_mode():
        pair = ROWS[name].build(DTYPES[dtype], device)
        error = _check(pair, f"{name} in {dtype}")
        progress.advance()
        return error, _take_turns(pair, repeats, device, progress)


def _check(pair: Pair, what: str) -> float:
    """Relative distance of the two results; also their warm-up."""
    ours, theirs = pair.ours().double(), pair.theirs().double()
    if ours.shape != theirs.shape:
        raise WorkFailed(f"{what}: shapes {list(ours.shape)} and {list(theirs.shape)} differ")
    error = float((ours - theirs).norm() / theirs.norm())
    if not error <= pair.tolerance:
        raise WorkFailed(
            f"{what}: results differ by {error:.1e}, {pair.tolerance:.0e} is allowed",
            fix="pytest -m parity finds the part that differs; nothing was timed",
        )
    return error


def _take_turns(
    pair: Pair, repeats: int, device: torch.device, progress: Progress
) -> dict[str, float]:
    """Median wall and CPU seconds of both sides, and the median of the ratios of neighbours."""
    ours: list[tuple[float, float]] = []
    theirs: list[tuple[float, float]] = []
    for turn in range(repeats):
        sides = [(ours, pair.ours), (theirs, pair.theirs)]
        for times, work in sides if turn % 2 == 0 else sides[::-1]:
            times.append(timed(work, device))
        progress.advance()
    return {
        "seconds": statistics.median(wall for wall, _ in ours),
        "against_seconds": statistics.median(wall for wall, _ in theirs),
        "cpu_seconds": statistics.median(cpu for _, cpu in ours),
        "against_cpu_seconds": statistics.median(cpu for _, cpu in theirs),
        "ratio": statistics.median(b[0] / a[0] for a, b in zip(ours, theirs, strict=True)),
    }
