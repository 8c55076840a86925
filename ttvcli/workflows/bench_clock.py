"""What the benchmarks share: the clock, and what a row says about the machine."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from ttvcli.artifacts.schema import producer
from ttvcli.core.kernel_bench.roofline import wait
from ttvcli.workflows.doctor import processor


def listed(text: str) -> list[str]:
    """The names in a setting that has commas between them."""
    return [part.strip() for part in text.split(",") if part.strip()]


def timed(work: Callable[[], Any], device: torch.device) -> tuple[float, float]:
    """Wall and CPU seconds of one run."""
    wait(device)
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    wait(device)
    return time.perf_counter() - wall, time.process_time() - cpu


@dataclass(frozen=True)
class Timed:
    """Seconds of one run, and the bytes it took on a card beyond its inputs (None on a CPU)."""

    wall: float
    cpu: float
    peak_bytes: int | None = None


def start_peak(device: torch.device) -> int:
    """Forget the most memory that was taken on a card; returns what is."""
    if device.type != "cuda":
        return 0
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def peak_since(held: int, device: torch.device) -> int | None:
    """Bytes taken beyond `held` at the most, on a card."""
    return torch.cuda.max_memory_allocated(device) - held if device.type == "cuda" else None


def machine(device: torch.device, *packages: str) -> dict[str, Any]:
    """Device, threads, date, and the versions of ttv, torch and these packages."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    return {
        "device": str(device),
        "device_name": name,
        "threads": torch.get_num_threads(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {
            "ttv": producer().removeprefix("ttv "),
            **{package: _version(package) for package in ("torch", *packages)},
        },
    }


def _version(package: str) -> str | None:
    """None where it is part of another package, or not there."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
