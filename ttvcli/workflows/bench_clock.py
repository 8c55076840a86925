"""What the benchmarks share: the clock, and what a row says about the machine."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
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
            **{package: version(package) for package in ("torch", *packages)},
        },
    }
