"""Time the TTT operations against the public form, local attention and the machine's own bounds.

Nothing is timed before it agrees with the float64 reference. What cannot be measured here is
listed with the reason, so that no number is missing in silence.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ttvcli.artifacts.atomic import write_text
from ttvcli.core.device import DTYPES
from ttvcli.core.kernel_bench import gate, roofline, sides
from ttvcli.core.kernel_bench.shapes import HEAD_WIDTH, HEADS, TEXT_TOKENS, Shape
from ttvcli.core.kernel_bench.sides import OPS, SIDES, Operation
from ttvcli.errors import Interrupted, UsageError, WorkFailed, nearest
from ttvcli.workflows.bench_clock import listed, machine
from ttvcli.workflows.bench_kernels_rows import (
    PASSES,
    ROWS,
    Job,
    Settings,
    finished,
    jobs,
    measure,
    relate,
)
from ttvcli.workflows.components import device_named
from ttvcli.workflows.output_file import check_output_file
from ttvcli.workflows.step import SILENT, Plan, Progress

CPU_HEADS = 4
CPU_SECONDS = (3,)


@dataclass(frozen=True, kw_only=True)
class BenchKernelsConfig:
    """Settings of `ttv bench kernels`."""

    rows: str = field(default="", metadata={"help": "names of rows, commas between; empty is all"})
    seconds: str = field(
        default="",
        metadata={"help": "video lengths of 3,9,18,30,63; empty is 3 on a CPU, all on a GPU"},
    )
    heads: int = field(
        default=0, metadata={"help": "heads of the layer; 0 is 48 on a GPU, 4 on a CPU"}
    )
    mini_batch: int = field(default=64, metadata={"help": "tokens of one update"})
    passes: str = field(
        default="forward,backward", metadata={"help": "forward, backward, or both with a comma"}
    )
    sides: str = field(
        default=",".join(SIDES), metadata={"help": "implementations, commas between"}
    )
    compile: bool = field(default=False, metadata={"help": "measure the compiled scan on a CPU"})
    dtype: str = field(default="auto", metadata={"help": "fp32, bf16, fp16; auto: bf16 on a GPU"})
    repeats: int = field(default=3, metadata={"help": "timed runs of each side"})
    limit: float = field(
        default=900.0, metadata={"help": "seconds; what takes longer at least is not run"}
    )
    out: Path | None = field(
        default=None, metadata={"help": "file for the rows, one JSON object a line"}
    )
    device: str = field(default="auto", metadata={"help": "auto, cpu, cuda, cuda:1"})
    threads: int = field(default=0, metadata={"help": "CPU threads; 0 lets torch choose"})

    def __post_init__(self) -> None:
        for name, least in (("heads", 0), ("threads", 0), ("repeats", 1), ("mini_batch", 1)):
            if getattr(self, name) < least:
                raise UsageError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if not self.limit > 0:
            raise UsageError(f"limit must be above 0, got {self.limit}")
        known: dict[str, list[str]] = {
            "rows": list(ROWS),
            "passes": list(PASSES),
            "sides": list(SIDES),
            "seconds": [str(seconds) for seconds in TEXT_TOKENS],
        }
        for setting, names in known.items():
            for name in listed(getattr(self, setting)):
                if name not in names:
                    raise UsageError(f"{setting}: there is no {name!r}", fix=nearest(name, names))
        if self.dtype not in ("auto", *DTYPES):
            raise UsageError(
                f"there is no dtype {self.dtype!r}", fix=nearest(self.dtype, ("auto", *DTYPES))
            )
        if self.out is not None:
            check_output_file(self.out, ".jsonl", "--out")

    def row_names(self) -> list[str]:
        """The rows asked for, in their order."""
        return [name for name in ROWS if name in (listed(self.rows) or ROWS)]

    def shapes(self, device: torch.device) -> list[Shape]:
        """The lengths asked for, or those that suit the device."""
        cpu = device.type != "cuda"
        lengths = sorted({int(seconds) for seconds in listed(self.seconds)})
        heads = self.heads or (CPU_HEADS if cpu else HEADS)
        return [
            Shape(seconds, heads, self.mini_batch)
            for seconds in lengths or (CPU_SECONDS if cpu else TEXT_TOKENS)
        ]

    def settings(self, device: torch.device) -> Settings:
        """The rest, resolved for the device."""
        automatic = "bf16" if device.type == "cuda" else "fp32"
        return Settings(
            device,
            DTYPES[automatic if self.dtype == "auto" else self.dtype],
            self.repeats,
            self.limit,
            self.compile,
            [side for side in SIDES if side in listed(self.sides)],
        )


@dataclass(frozen=True)
class BenchKernelsResult:
    """All rows, measured or not, as they are in the file."""

    rows: list[dict[str, Any]]
    paths: list[Path]
    failed: list[dict[str, Any]] = field(default_factory=list)

    @property
    def table(self) -> list[tuple[str, str]]:
        """Name and result of each row, to read."""
        return [
            (f"{row['row']} {row['side']} {row['pass']} {row['video_seconds']} s", _readable(row))
            for row in self.rows
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain values for `--json`."""
        return {"rows": self.rows, "paths": [str(path) for path in self.paths]}


def _readable(row: dict[str, Any]) -> str:
    if "not_run" in row:
        return f"not run: {row['not_run']}"
    parts = [
        f"{row['seconds']:.4g} s",
        f"{row['tflops']:.3g} TFLOP/s",
        f"{row['gb_s']:.3g} GB/s",
        f"{row['bound_share']:.0%} of what {row['bound']} allows",
    ]
    if "times_public" in row:
        parts.append(f"{row['times_public']:.2f}x the public operation")
    if "local_attention_ratio" in row:
        parts.append(f"{row['local_attention_ratio']:.2f} of local attention")
    if "training_ratio" in row:
        parts.append(f"{row['training_ratio']:.2f} with forward")
    if "estimate_rtx_4090_seconds" in row:
        parts.append(f"estimate for an RTX 4090: {row['estimate_rtx_4090_seconds']:.4g} s")
    return ", ".join(parts)


def plan(config: BenchKernelsConfig) -> Plan:
    """Say what would be measured."""
    device = device_named(config.device)
    settings, shapes = config.settings(device), config.shapes(device)
    return Plan(
        command="bench kernels",
        items=[
            *[(f"row {name}", ROWS[name]) for name in config.row_names()],
            *[
                (f"{shape.seconds} s", f"{shape.tokens} tokens, {shape.heads} heads")
                for shape in shapes
            ],
            ("sides", ", ".join(settings.sides)),
            ("passes", config.passes),
            ("number format", str(settings.dtype).removeprefix("torch.")),
            ("timed runs of each", settings.repeats),
        ],
    )


def run(config: BenchKernelsConfig, progress: Progress = SILENT) -> BenchKernelsResult:
    """Check every side, then measure every row; the file is written anew after each.

    Raises:
        WorkFailed: a side is not what the reference computes; nothing is timed then.
        Interrupted: says what is kept.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    device = device_named(config.device)
    settings, lengths = config.settings(device), config.shapes(device)
    names = config.row_names()
    about = machine(device, *(["triton"] if device.type == "cuda" else []))
    rows: list[dict[str, Any]] = []
    try:
        progress.start("checking against the reference")
        runs, errors = _checked([name for name in names if name in OPS], config, settings)
        rates = roofline.measure(device, settings.dtype)
        passes = [which for which in PASSES if which in listed(config.passes)]
        steps = [(s, name, which) for s in lengths for name in names for which in passes]
        progress.start("measuring", total=len(steps) * settings.repeats, unit="rounds")
        for shape, name, which in steps:
            group = list(jobs(name, shape, which == "backward", settings, runs, rates))
            times, failed = measure(group, settings, progress.advance)
            for job in group:
                found: dict[str, Any] = {"not_run": failed.get(job.side)}
                if job.side in times:
                    found = finished(job, times[job.side], settings, rates, about["device_name"])
                    if (name, job.side) in errors:
                        found["relative_error"] = errors[name, job.side]
                rows.append({**_facts(job, config, settings), **found, **about})
            relate(rows)
            if config.out is not None:
                write_text(config.out, "".join(json.dumps(row) + "\n" for row in rows))
    except KeyboardInterrupt:
        kept = f"{len(rows)} rows are in {config.out}" if config.out else "no rows are kept"
        raise Interrupted(
            f"interrupted; {kept}",
            fix="a benchmark starts over; --rows and another --out measure the rest",
        ) from None
    progress.finish()
    return BenchKernelsResult(rows, [config.out] if config.out else [])


def _facts(job: Job, config: BenchKernelsConfig, settings: Settings) -> dict[str, Any]:
    return {
        "bench": "kernels",
        "row": job.row,
        "side": job.side,
        "pass": PASSES[job.backward],
        "video_seconds": job.shape.seconds,
        "tokens": job.shape.tokens,
        "heads": job.shape.heads,
        "head_width": HEAD_WIDTH,
        "mini_batch": job.shape.mini_batch,
        "dtype": str(settings.dtype).removeprefix("torch."),
    }


def _checked(
    ops: list[str], config: BenchKernelsConfig, settings: Settings
) -> tuple[dict[tuple[str, str], Operation], dict[tuple[str, str], float]]:
    """The implementations that can run here, and how far each is from the reference at most."""
    runs: dict[tuple[str, str], Operation] = {}
    errors: dict[tuple[str, str], float] = {}
    allowed = gate.TOLERANCE[settings.dtype]
    for op in ops:
        for side in settings.sides:
            if sides.obstacle(side, settings.device, settings.compiled):
                continue
            runs[op, side] = sides.operation(op, side)
            found = gate.distances(
                runs[op, side],
                op,
                side,
                mini_batch=config.mini_batch,
                dtype=settings.dtype,
                device=settings.device,
            )
            worst = max(found, key=lambda name: (found[name] != found[name], found[name]))
            if not found[worst] <= allowed:
                raise WorkFailed(
                    f"{op} {side}: {worst} is {found[worst]:.1e} away from the reference, "
                    f"{allowed:.0e} is allowed",
                    where=f"{settings.device}, {settings.dtype}, mini-batch {config.mini_batch}",
                    fix="pytest tests/kernels finds the part that differs; nothing was timed",
                )
            errors[op, side] = found[worst]
    return runs, errors
