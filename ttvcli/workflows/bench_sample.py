"""Time the parts of sampling, or a whole clip of a model folder, beside diffusers.

Each row first has to agree with its peer; then the two take turns, so that whatever else the
machine does hits both alike. Medians are reported, and ratios above 1 mean that ttv is quicker.
The sides of a clip are processes of their own, which also tell their memory.
"""

import statistics
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

from ttvcli.core.device import DTYPES
from ttvcli.errors import UsageError, WorkFailed, nearest
from ttvcli.workflows import bench_clip
from ttvcli.workflows.bench_clip import Clip
from ttvcli.workflows.bench_clock import Timed, listed, machine, peak_since, start_peak, timed
from ttvcli.workflows.bench_file import BenchResult, RowFile
from ttvcli.workflows.bench_rows import ROWS, Pair, public
from ttvcli.workflows.components import device_named
from ttvcli.workflows.memory_plan import parse_bytes
from ttvcli.workflows.output_file import check_output_file
from ttvcli.workflows.step import SILENT, Plan, Progress

CLIP = "clip"


@dataclass(frozen=True, kw_only=True)
class BenchSampleConfig:
    """Settings of `ttv bench sample`."""

    against: Literal["diffusers"] = field(
        default="diffusers", metadata={"help": "the implementation to compare with"}
    )
    rows: str = field(
        default="",
        metadata={"help": "names of rows, commas between; empty is all, or clip with a model"},
    )
    dtypes: str = field(
        default="",
        metadata={"help": "number formats, commas between; empty is fp32,bf16, or the model's"},
    )
    model: str = field(
        default="", metadata={"help": "folder of a text-to-video CogVideoX, for the row clip"}
    )
    size: str = field(default="", metadata={"help": "WxH of the clip; empty is the model's"})
    frames: int = field(default=0, metadata={"help": "frames of the clip; 0 is the model's"})
    steps: int = field(default=50, metadata={"help": "denoising steps of the clip"})
    offload: Literal["auto", "none", "cpu", "disk"] = field(
        default="auto", metadata={"help": "where ttv keeps weights of the clip that do not fit"}
    )
    vram_limit: str = field(
        default="", metadata={"help": "memory that both sides of the clip may take, 24GB"}
    )
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
            if name not in (*ROWS, CLIP):
                raise UsageError(f"there is no row {name!r}", fix=nearest(name, (*ROWS, CLIP)))
        if (CLIP in self.row_names()) != bool(self.model):
            raise UsageError(
                "the row clip and --model belong together",
                fix="ttv bench sample --model FOLDER; ttv bench model writes one to try",
            )
        if self.steps < 2:
            raise UsageError(f"steps must be at least 2, got {self.steps}")
        if self.vram_limit:
            parse_bytes(self.vram_limit)
        for name in listed(self.dtypes):
            if name not in DTYPES:
                raise UsageError(f"there is no dtype {name!r}", fix=nearest(name, DTYPES))
        if self.out is not None:
            check_output_file(self.out, ".jsonl", "--out")

    def row_names(self) -> list[str]:
        """The rows asked for."""
        return listed(self.rows) or ([CLIP] if self.model else list(ROWS))

    def jobs(self) -> list[tuple[str, str]]:
        """Each row with each number format."""
        return [
            (name, dtype)
            for name in self.row_names()
            for dtype in listed(self.dtypes) or (["auto"] if name == CLIP else ["fp32", "bf16"])
        ]

    def clip(self, dtype: str) -> Clip:
        """What the sides of the row clip make."""
        shared = ("model", "size", "frames", "steps", "device", "threads", "vram_limit", "offload")
        clip = Clip(dtype=dtype, **{name: getattr(self, name) for name in shared})
        return replace(clip, dtype=clip.request().config.dtype)


def plan(config: BenchSampleConfig) -> Plan:
    """Say what would be measured."""
    return Plan(
        command="bench sample",
        items=[
            *[
                (f"row {name} {dtype}", _shape(config, name, dtype))
                for name, dtype in config.jobs()
            ],
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
    shapes = [_shape(config, name, dtype) for name, dtype in config.jobs()]
    progress.start("measuring", total=_pairs(config), unit="pairs of runs")
    for (name, dtype), shape in zip(config.jobs(), shapes, strict=True):
        with file.kept(f" at {name} in {dtype}"):
            if name == CLIP:
                clip = config.clip(dtype)
                measured = bench_clip.row(clip, config.repeats, progress.advance)
                dtype = clip.dtype
            else:
                measured = _measure(name, dtype, config.repeats, device, progress)
        file.add(
            {
                "bench": "sample",
                "row": name,
                "shape": shape,
                "dtype": dtype,
                "against": config.against,
                **measured,
                "repeats": config.repeats,
                **machine(device, "diffusers"),
            }
        )
    progress.finish()
    return file.result([(f"{row['row']} {row['dtype']}", _readable(row)) for row in file.rows])


def _shape(config: BenchSampleConfig, name: str, dtype: str) -> str:
    if name != CLIP:
        return ROWS[name].shape
    request = config.clip(dtype).request()
    return f"{request.frames}x{request.height}x{request.width}, {config.steps} steps"


def _pairs(config: BenchSampleConfig) -> int:
    """How often both sides run; those of made rows once more, to compare them and to warm up."""
    return sum(config.repeats + (name != CLIP) for name, _ in config.jobs())


def _readable(row: dict[str, Any]) -> str:
    if row["ratio"] is None:
        return f"ttv {row['seconds']:.3f} s, {row['against']} not run: {row['against_not_run']}"
    text = (
        f"ttv {row['seconds']:.3f} s, {row['against']} {row['against_seconds']:.3f} s, "
        f"ratio {row['ratio']:.2f}"
    )
    for key, of in (("peak_vram", "of the card"), ("peak_rss", "of memory")):
        if row.get(key) and row.get(f"against_{key}"):
            ours, theirs = (row[f"{side}{key}"] / 2**30 for side in ("", "against_"))
            text += f"; {ours:.2f} and {theirs:.2f} GiB {of}"
    return text


def _measure(
    name: str, dtype: str, repeats: int, device: torch.device, progress: Progress
) -> dict[str, Any]:
    """Distance of the two sides of a row, and their times."""
    with torch.inference_mode():
        pair = ROWS[name].build(DTYPES[dtype], device)
        error = _check(pair, f"{name} in {dtype}")
        progress.advance()
        return {**_take_turns(pair, repeats, device, progress), "relative_error": error}


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
) -> dict[str, Any]:
    """Medians of both sides, and the median of the ratios of neighbours.

    `peak_vram` is what a side takes of a card beyond the weights, which both share.
    """
    ours: list[Timed] = []
    theirs: list[Timed] = []
    for turn in range(repeats):
        sides = [(ours, pair.ours), (theirs, pair.theirs)]
        for taken, work in sides if turn % 2 == 0 else sides[::-1]:
            held = start_peak(device)
            taken.append(Timed(*timed(work, device), peak_bytes=peak_since(held, device)))
        progress.advance()
    found: dict[str, Any] = {}
    for prefix, side in (("", ours), ("against_", theirs)):
        found[f"{prefix}seconds"] = statistics.median(one.wall for one in side)
        found[f"{prefix}cpu_seconds"] = statistics.median(one.cpu for one in side)
        found[f"{prefix}peak_vram"] = side[0].peak_bytes
    ratios = [b.wall / a.wall for a, b in zip(ours, theirs, strict=True)]
    return {**found, "ratio": statistics.median(ratios)}
