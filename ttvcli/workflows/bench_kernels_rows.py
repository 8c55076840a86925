"""The passes that `ttv bench kernels` times, and what a finished row says."""

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from ttvcli.core.kernel_bench import shapes, sides
from ttvcli.core.kernel_bench.roofline import Roofline, ada_estimate
from ttvcli.core.kernel_bench.shapes import Cost, Shape
from ttvcli.core.kernel_bench.sides import LAYERS, OPS, Operation, Prepare
from ttvcli.workflows.bench_clock import Timed, peak_since, start_peak, timed
from ttvcli.workflows.doctor import memory_bytes

GIB = 2**30
PASSES = ("forward", "backward")
ROWS = {
    "ttt_linear": "one direction of TTT-Linear",
    "ttt_mlp": "one direction of TTT-MLP",
    "local-attention": "attention within windows of 3 s",
    "layer": "a transformer block without TTT, and with it in both directions",
}


@dataclass(frozen=True)
class Settings:
    """What all passes of a run share, resolved for the device."""

    device: torch.device
    dtype: torch.dtype
    repeats: int
    limit: float
    compiled: bool
    sides: list[str]

    @property
    def size(self) -> int:
        """Bytes of an element."""
        return self.dtype.itemsize


@dataclass(frozen=True)
class Checked:
    """Of (operation, side): what can run here, how far from the reference, or why it cannot."""

    runs: dict[tuple[str, str], Operation] = field(default_factory=dict)
    errors: dict[tuple[str, str], float] = field(default_factory=dict)
    reasons: dict[tuple[str, str], str] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """One pass of one side of a row; `build` allocates its inputs, `warm` those of a trial run."""

    row: str
    side: str
    shape: Shape
    backward: bool
    cost: Cost
    build: Callable[[], Prepare] | None
    warm: Callable[[], Prepare] | None
    not_run: str | None = None


def jobs(
    row: str,
    shape: Shape,
    backward: bool,
    settings: Settings,
    sound: Checked,
    rates: Roofline,
) -> Iterator[Job]:
    """The sides of a row at one length; `sound` has the implementations that passed the check."""
    if row in OPS:
        for side in settings.sides:
            yield _operation_job(row, side, shape, backward, settings, sound, rates)
    elif row == "local-attention":
        cost = shapes.attention_cost(shape, backward, settings.size)
        work = partial(sides.attention_work, shape, backward, settings.dtype, settings.device)
        yield _other_job(row, "sdpa", shape, backward, settings, cost, work, rates)
    else:
        for op in (None, *LAYERS):
            cost = shapes.layer_cost(op, shape, backward, settings.size)
            work = partial(sides.layer_work, op, shape, backward, settings.dtype, settings.device)
            yield _other_job(row, op or "none", shape, backward, settings, cost, work, rates)


def _operation_job(
    op: str,
    side: str,
    shape: Shape,
    backward: bool,
    settings: Settings,
    sound: Checked,
    rates: Roofline,
) -> Job:
    cost = shapes.ttt_cost(op, shape, backward, settings.size)
    run, reason = sound.runs.get((op, side)), sound.reasons.get((op, side))
    if run is None:
        return Job(op, side, shape, backward, cost, None, None, reason)
    floor = rates.seconds(cost)
    if side == "public" and backward:
        floor += shapes.quadratic_bytes(shape, settings.size) / rates.bandwidth
    if side == "public" and shape.tokens % shape.mini_batch:
        reason = f"{shape.tokens} tokens do not divide into mini-batches of {shape.mini_batch}"
    reason = reason or _too_much(
        floor, shapes.room(op, side, shape, backward, settings.size), settings
    )
    work = partial(_ttt, run, op, side, shape, backward, settings.dtype, settings.device)
    # A CPU only loads code, for which a short run is enough; compiling depends on strides too.
    whole = settings.device.type == "cuda" or side == "compiled"
    warm = work if whole else partial(work, tokens=2 * shape.mini_batch)
    return Job(op, side, shape, backward, cost, work, warm, reason)


def _other_job(
    row: str,
    side: str,
    shape: Shape,
    backward: bool,
    settings: Settings,
    cost: Cost,
    work: Callable[[], Prepare],
    rates: Roofline,
) -> Job:
    # A block has more arrays of tokens than attention, how many depends on its parts.
    room = shapes.room(None, side, shape, backward, settings.size)
    reason = _too_much(rates.seconds(cost), room, settings)
    warm = work if settings.device.type == "cuda" else None
    return Job(row, side, shape, backward, cost, work, warm, reason)


def _ttt(
    run: Operation,
    op: str,
    side: str,
    shape: Shape,
    backward: bool,
    dtype: torch.dtype,
    device: torch.device,
    tokens: int | None = None,
) -> Prepare:
    return sides.ttt_work(run, op, side, shape, tokens or shape.tokens, backward, dtype, device)


def _too_much(floor: float, room: float, settings: Settings) -> str | None:
    """Why a pass would take too long or too much memory, from what it needs at least."""
    if floor > settings.limit:
        return f"takes {floor:.0f} s at least; --limit allows {settings.limit:.0f} s"
    free = memory_bytes()
    if settings.device.type == "cuda":
        torch.cuda.empty_cache()  # what earlier rows left there is free, but looks taken
        free = torch.cuda.mem_get_info(settings.device)[0]
    if free is not None and room > free:
        return f"takes {room / GIB:.0f} GiB at least, {free / GIB:.0f} GiB are free"
    return None


def measure(
    group: list[Job], settings: Settings, advance: Callable[[], None]
) -> tuple[dict[str, list[Timed]], dict[str, str]]:
    """Each side that runs, timed while taking turns; and why others did not."""
    times: dict[str, list[Timed]] = {}
    failed: dict[str, str] = {job.side: job.not_run for job in group if job.not_run}
    ready: dict[str, Prepare] = {}
    for job in group:
        if job.not_run is None and job.build is not None:
            reason = _attempt(partial(_make_ready, job, ready))
            if reason:
                failed[job.side] = reason
    for turn in range(settings.repeats):
        order = list(ready)
        for side in order if turn % 2 == 0 else order[::-1]:
            taken = times.setdefault(side, [])
            reason = _attempt(partial(_take_turn, ready[side], settings.device, taken))
            if reason:
                failed[side] = reason
                del times[side], ready[side]
        advance()
    return times, failed


def _attempt(work: Callable[[], None]) -> str | None:
    """Do it; what ran out of memory or cannot be compiled is a reason, and holds nothing."""
    try:
        work()
    except torch.OutOfMemoryError:
        return "out of memory"
    except Exception as error:
        reason = sides.refusal(error)
        if reason is None:
            raise
        return reason
    return None


def _make_ready(job: Job, ready: dict[str, Prepare]) -> None:
    assert job.build is not None
    if job.side == "compiled":
        sides.forget_compiled()
    if job.warm is not None:
        job.warm()()()
    ready[job.side] = job.build()


def _take_turn(prepare: Prepare, device: torch.device, taken: list[Timed]) -> None:
    held = start_peak(device)
    taken.append(Timed(*timed(prepare(), device), peak_bytes=peak_since(held, device)))


def finished(
    job: Job,
    times: list[Timed],
    settings: Settings,
    rates: Roofline,
    device_name: str,
) -> dict[str, Any]:
    """What was measured, beside what the machine could do."""
    seconds = statistics.median(turn.wall for turn in times)
    bound = rates.seconds(job.cost)
    row: dict[str, Any] = {
        "seconds": seconds,
        "cpu_seconds": statistics.median(turn.cpu for turn in times),
        "peak_bytes": times[0].peak_bytes,
        "repeats": len(times),
        "flop": job.cost.flop,
        "bytes": job.cost.bytes,
        "tflops": job.cost.flop / seconds / 1e12,
        "gb_s": job.cost.bytes / seconds / 1e9,
        "bound": rates.limited_by(job.cost),
        "bound_seconds": bound,
        "bound_share": bound / seconds,
    }
    # Of the backward kernels one has many programs for a head, for which there is no such estimate.
    if job.side == "triton" and not job.backward and settings.size == 2:
        estimate = ada_estimate(device_name, seconds, job.cost.flop, job.shape.heads)
        if estimate is not None:
            row["estimate_rtx_4090_seconds"] = estimate
    return row


def relate(rows: list[dict[str, Any]]) -> None:
    """Add the ratios between rows of the same length and pass; above 1 is slower, or quicker.

    `times_public`, `times_compiled`: how many times as quick as the public operation, and as our
    compiled scan. `local_attention_ratio`: of an operation, both directions over local attention
    alone; of a layer, over the layer without TTT. `training_ratio`: the same of forward and
    backward together.
    """
    seconds = {
        (row["row"], row["side"], row["pass"], row["video_seconds"]): row["seconds"]
        for row in rows
        if "seconds" in row
    }
    for row in rows:
        if "seconds" not in row:
            continue
        name, which, length = row["row"], row["pass"], row["video_seconds"]
        for other_side in ("public", "compiled") if name in OPS else ():
            other_seconds = seconds.get((name, other_side, which, length))
            if row["side"] != other_side and other_seconds is not None:
                row[f"times_{other_side}"] = other_seconds / row["seconds"]
        if name == "local-attention" or row["side"] == "none":
            continue
        other = ("layer", "none") if name == "layer" else ("local-attention", "sdpa")
        directions = 1 if name == "layer" else 2
        pairs = [
            (seconds.get((name, row["side"], p, length)), seconds.get((*other, p, length)))
            for p in PASSES
        ]
        ours, theirs = pairs[PASSES.index(which)]
        if ours and theirs:
            row["local_attention_ratio"] = directions * ours / theirs
        if which == "backward" and all(a and b for a, b in pairs):
            both = [sum(pair[i] or 0.0 for pair in pairs) for i in (0, 1)]
            row["training_ratio"] = directions * both[0] / both[1]
