"""The check before `ttv bench kernels` times anything: every side computes the right thing."""

import torch

from ttvcli.core.kernel_bench import gate, sides
from ttvcli.core.kernel_bench.sides import Operation
from ttvcli.errors import WorkFailed
from ttvcli.workflows.bench_kernels_rows import Checked, Settings


def checked(ops: list[str], mini_batch: int, settings: Settings) -> Checked:
    """Compare every side of these operations with the float64 reference.

    A side that this device cannot run is no failure: the reason is kept for its rows.

    Raises:
        WorkFailed: a side is not what the reference computes.
    """
    done = Checked()
    for key in [(op, side) for op in ops for side in settings.sides]:
        reason = sides.obstacle(key[1], settings.device, settings.compiled, mini_batch)
        if reason is None:
            run = sides.operation(*key)
            try:
                error = _error(run, *key, mini_batch, settings)
            except Exception as failure:
                reason = sides.refusal(failure)
                if reason is None:
                    raise
        if reason is not None:
            done.reasons[key] = reason
        else:
            done.runs[key], done.errors[key] = run, error
    return done


def checked_blocks(done: Checked, mini_batch: int, settings: Settings) -> None:
    """Compare every block that `layer` rows time with itself in float64; adds what was found.

    One that this device cannot run is left to its row, which says why.

    Raises:
        WorkFailed: a block is not what it is in float64.
    """
    allowed = gate.TOLERANCE[settings.dtype]
    where = f"{settings.device}, {settings.dtype}, mini-batch {mini_batch}"
    for op in (None, *sides.LAYERS):
        try:
            found = gate.block_distances(op, mini_batch, settings.dtype, settings.device)
        except Exception as failure:
            if sides.refusal(failure) is None:
                raise
            continue
        side = op or "none"
        done.errors["layer", side] = accept(f"layer {side}", found, allowed, where)


def checked_layers(ops: list[str], mini_batch: int) -> None:
    """Compare our layer, and it with the public operation, with itself in float64.

    Raises:
        WorkFailed: they are not the same.
    """
    for op in ops:
        for side in ("scan", "public"):
            found = gate.layer_distances(op, side, mini_batch)
            allowed = gate.TOLERANCE[torch.float32]
            accept(f"{op} layer, {side}", found, allowed, f"mini-batch {mini_batch}")


def accept(name: str, found: dict[str, float], allowed: float, where: str) -> float:
    """The largest of the distances; WorkFailed if it is not allowed, or not a number."""
    worst = max(found, key=lambda part: (found[part] != found[part], found[part]))
    if not found[worst] <= allowed:
        raise WorkFailed(
            f"{name}: {worst} is {found[worst]:.1e} away from the reference, "
            f"{allowed:.0e} is allowed",
            where=where,
            fix="pytest tests/kernels finds the part that differs; nothing was timed",
        )
    return found[worst]


def _error(run: Operation, op: str, side: str, mini_batch: int, settings: Settings) -> float:
    device, dtype = settings.device, settings.dtype
    found = gate.distances(run, op, side, mini_batch=mini_batch, dtype=dtype, device=device)
    where = f"{device}, {dtype}, mini-batch {mini_batch}"
    return accept(f"{op} {side}", found, gate.TOLERANCE[dtype], where)
