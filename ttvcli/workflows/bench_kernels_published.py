"""The rows of `ttv bench kernels --sizes published`: CPU seconds and memory, side by side.

Every side runs in a process of its own. What it takes at its peak is then its own, and no side
finds memory that another has left behind.
"""

import multiprocessing
import statistics
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch

from ttvcli.core.kernel_bench.published import Size, work
from ttvcli.core.kernel_bench.shapes import HEAD_WIDTH
from ttvcli.workflows import process_memory
from ttvcli.workflows.bench_clock import timed
from ttvcli.workflows.bench_kernels_check import checked, checked_layers
from ttvcli.workflows.bench_kernels_rows import Settings

CPU = torch.device("cpu")
PATIENCE = 10.0  # seconds; a side that took longer is not run again


@dataclass(frozen=True)
class Measured:
    """Wall and CPU seconds of each pass by its name, runs, and bytes added at the peak.

    The bytes are those of inputs, weights, gradients and all between; None where the system does
    not tell.
    """

    passes: dict[str, tuple[float, float]]
    repeats: int
    peak_bytes: int | None


def check_published(sizes: list[Size], settings: Settings) -> None:
    """Compare what will be timed with the reference.

    Raises:
        WorkFailed: a side is not what the reference computes.
    """
    for mini_batch in sorted({size.mini_batch for size in sizes}):
        some = [size for size in sizes if size.mini_batch == mini_batch]
        checked(sorted({size.op for size in some}), mini_batch, settings)
        checked_layers(sorted({size.op for size in some if size.row == "layer"}), mini_batch)


def measure_published(
    sizes: list[Size], settings: Settings, threads: int, advance: Callable[[], None]
) -> Iterator[list[dict[str, Any]]]:
    """The rows of each size: for each side no gradient, or forward and backward."""
    for size in sizes:
        rows: list[dict[str, Any]] = []
        for side in settings.sides:
            found = in_process(size, side, settings.repeats, threads)
            rows += _rows(size, side, found)
            advance()
        yield rows


def _rows(size: Size, side: str, found: Measured | str) -> list[dict[str, Any]]:
    sizes = {name: value for name, value in asdict(size).items() if name != "training"}
    facts = {**sizes, "side": side, "head_width": HEAD_WIDTH, "dtype": "float32"}
    names = ("training forward", "backward") if size.training else ("forward",)
    if isinstance(found, str):
        return [{**facts, "pass": name, "not_run": found} for name in names]
    facts |= {"repeats": found.repeats, "peak_bytes": found.peak_bytes}
    passes = [(name, *found.passes[name]) for name in names]
    return [{**facts, "pass": name, "seconds": w, "cpu_seconds": c} for name, w, c in passes]


def relate_published(rows: list[dict[str, Any]]) -> None:
    """Add how many times as quick as the public side ours is, in CPU seconds, and as small."""
    others = ("op", "row", "pass", "tokens", "heads", "mini_batch")
    public = {
        tuple(row[name] for name in others): row
        for row in rows
        if row["side"] == "public" and "seconds" in row
    }
    for row in rows:
        theirs = public.get(tuple(row[name] for name in others))
        if theirs is None or row["side"] == "public" or "seconds" not in row:
            continue
        row["times_public"] = theirs["cpu_seconds"] / row["cpu_seconds"]
        if row["peak_bytes"] and theirs["peak_bytes"]:
            row["public_memory_ratio"] = theirs["peak_bytes"] / row["peak_bytes"]


def in_process(size: Size, side: str, repeats: int, threads: int) -> Measured | str:
    """Measure in a fresh process; a string says why it ended without a result."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(sender, size, side, repeats, threads))
    process.start()
    sender.close()  # or the end of the child would not be seen
    try:
        found: Measured = receiver.recv()
        return found
    except EOFError:
        process.join()
        return f"the process ended with code {process.exitcode}; -9 is for too much memory"
    finally:
        process.terminate()
        process.join()


def _child(sender: Connection, size: Size, side: str, repeats: int, threads: int) -> None:
    try:
        sender.send(measured(size, side, repeats, threads))
    except KeyboardInterrupt:  # which the parent gets too, and answers
        sender.close()


def measured(size: Size, side: str, repeats: int, threads: int) -> Measured:
    """Time the passes and see what they add to this process at the peak."""
    if threads:
        torch.set_num_threads(threads)
    _passes(size.small(), side)
    before = process_memory.forget_peak()
    turns = [_passes(size, side)]
    peak = process_memory.peak() if before is not None else None
    while len(turns) < repeats and _spent(turns) < PATIENCE:
        turns.append(_passes(size, side))
    passes = {name: _medians([turn[name] for turn in turns]) for name in turns[0]}
    return Measured(passes, len(turns), None if before is None or peak is None else peak - before)


def _passes(size: Size, side: str) -> dict[str, tuple[float, float]]:
    forward, given = work(size, side)
    if not size.training:
        return {"forward": timed(torch.no_grad()(forward), CPU)}
    outputs = []
    first = timed(lambda: outputs.append(forward()), CPU)
    gradient = torch.ones_like(outputs[0])
    second = timed(lambda: torch.autograd.grad(outputs[0], given, gradient), CPU)
    return {"training forward": first, "backward": second}


def _spent(turns: list[dict[str, tuple[float, float]]]) -> float:
    return sum(wall for turn in turns for wall, _ in turn.values())


def _medians(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    return statistics.median(w for w, _ in pairs), statistics.median(c for _, c in pairs)
