"""Time the TTT operations against the public form, local attention and the machine's own bounds.

Nothing is timed before it agrees with the float64 reference. What cannot be measured here is
listed with the reason, so that no number is missing in silence.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ttvcli.core.device import DTYPES
from ttvcli.core.kernel_bench import roofline
from ttvcli.core.kernel_bench.published import PUBLISHED_SIDES, SIZES, Size
from ttvcli.core.kernel_bench.shapes import HEAD_WIDTH, HEADS, TEXT_TOKENS, Shape
from ttvcli.core.kernel_bench.sides import OPS, SIDES
from ttvcli.errors import UsageError, nearest
from ttvcli.workflows.bench_clock import listed, machine
from ttvcli.workflows.bench_file import BenchResult, RowFile
from ttvcli.workflows.bench_kernels_check import checked, checked_blocks
from ttvcli.workflows.bench_kernels_published import (
    check_published,
    measure_published,
    relate_published,
)
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
from ttvcli.workflows.bench_kernels_text import readable, title
from ttvcli.workflows.components import device_named
from ttvcli.workflows.output_file import check_output_file
from ttvcli.workflows.step import SILENT, Plan, Progress

SIZE_SETS = ("video", "published")
CPU_HEADS = 4
CPU_SECONDS = (3,)


@dataclass(frozen=True, kw_only=True)
class BenchKernelsConfig:
    """Settings of `ttv bench kernels`."""

    sizes: str = field(
        default="video",
        metadata={
            "help": "video: lengths in seconds; published: sizes at which the public operations "
            "were measured on a CPU, with the memory they take"
        },
    )
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
            "sizes": list(SIZE_SETS),
            "rows": list(ROWS),
            "passes": list(PASSES),
            "sides": list(SIDES),
            "seconds": [str(seconds) for seconds in TEXT_TOKENS],
        }
        for setting, names in known.items():
            for name in listed(getattr(self, setting)):
                if name not in names:
                    raise UsageError(f"{setting}: there is no {name!r}", fix=nearest(name, names))
        if self.sizes == "published":
            self._check_published()
        if self.dtype not in ("auto", *DTYPES):
            raise UsageError(
                f"there is no dtype {self.dtype!r}", fix=nearest(self.dtype, ("auto", *DTYPES))
            )
        if self.out is not None:
            check_output_file(self.out, ".jsonl", "--out")

    def _check_published(self) -> None:
        """These sizes say themselves how many tokens and heads; they are those of a CPU in fp32."""
        for name in ("seconds", "heads", "mini_batch", "passes", "compile"):
            if getattr(self, name) != type(self).__dataclass_fields__[name].default:
                raise UsageError(f"{name} is fixed by --sizes published", fix=f"leave {name} out")
        for name, allowed in (("dtype", "fp32"), ("device", "cpu")):
            given = getattr(self, name)
            if given not in ("auto", allowed):
                raise UsageError(
                    f"--sizes published is measured with {name} {allowed}, got {given}",
                    fix=f"leave {name} out",
                )

    def torch_device(self) -> torch.device:
        """Where all of it runs."""
        return device_named("cpu" if self.sizes == "published" else self.device)

    def published_sizes(self) -> list[Size]:
        """Those of the rows asked for."""
        return [size for size in SIZES if size.row in self.row_names()]

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
            [
                side
                for side in (SIDES if self.sizes == "video" else PUBLISHED_SIDES)
                if side in listed(self.sides)
            ],
        )


def plan(config: BenchKernelsConfig) -> Plan:
    """Say what would be measured."""
    device = config.torch_device()
    settings = config.settings(device)
    if config.sizes == "published":
        sizes = [(size.name, size.purpose) for size in config.published_sizes()]
    else:
        sizes = [
            *[(f"row {name}", ROWS[name]) for name in config.row_names()],
            *[
                (f"{shape.seconds} s", f"{shape.tokens} tokens, {shape.heads} heads")
                for shape in config.shapes(device)
            ],
            ("passes", config.passes),
        ]
    return Plan(
        command="bench kernels",
        items=[
            *sizes,
            ("sides", ", ".join(settings.sides)),
            ("number format", str(settings.dtype).removeprefix("torch.")),
            ("timed runs of each", settings.repeats),
        ],
    )


def run(config: BenchKernelsConfig, progress: Progress = SILENT) -> BenchResult:
    """Check every side, then measure every row; the file is written anew after each.

    Raises:
        WorkFailed: a side is not what the reference computes; nothing is timed then.
        Interrupted: says what is kept.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    device = config.torch_device()
    about = machine(device, *(["triton"] if device.type == "cuda" else []))
    file = RowFile(config.out)
    with file.kept():
        for found in _measured(config, config.settings(device), about["device_name"], progress):
            shared = {"bench": "kernels", "sizes": config.sizes}
            file.rows += [{**shared, **row, **about} for row in found]
            (relate_published if config.sizes == "published" else relate)(file.rows)
            file.write()
    progress.finish()
    return file.result([(title(row), readable(row)) for row in file.rows])


def _measured(
    config: BenchKernelsConfig, settings: Settings, device_name: str, progress: Progress
) -> Iterator[list[dict[str, Any]]]:
    """Rows as they get ready."""
    names = config.row_names()
    progress.start("checking against the reference")
    if config.sizes == "published":
        sizes = config.published_sizes()
        check_published(sizes, settings)
        progress.start("measuring", total=len(sizes) * len(settings.sides), unit="sides")
        yield from measure_published(sizes, settings, config.threads, progress.advance)
        return
    sound = checked([name for name in names if name in OPS], config.mini_batch, settings)
    if "layer" in names:
        checked_blocks(sound, config.mini_batch, settings)
    rates = roofline.measure(settings.device, settings.dtype)
    passes = [which for which in PASSES if which in listed(config.passes)]
    steps = [
        (s, n, which) for s in config.shapes(settings.device) for n in names for which in passes
    ]
    progress.start("measuring", total=len(steps) * settings.repeats, unit="rounds")
    for shape, name, which in steps:
        group = list(jobs(name, shape, which == "backward", settings, sound, rates))
        times, failed = measure(group, settings, progress.advance)
        rows = []
        for job in group:
            found: dict[str, Any] = {"not_run": failed.get(job.side)}
            if job.side in times:
                found = finished(job, times[job.side], settings, rates, device_name)
                if (name, job.side) in sound.errors:
                    found["relative_error"] = sound.errors[name, job.side]
            rows.append({**_facts(job, settings), **found})
        yield rows


def _facts(job: Job, settings: Settings) -> dict[str, Any]:
    return {
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
