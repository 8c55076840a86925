"""How fast a machine can be at most, measured, and what that allows an operation.

Rates are measured on the spot, so that the share of the bound means the same on every machine.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from ttvcli.core.kernel_bench.shapes import Cost

CPU_SIZES = (1024, 1 << 24)  # side of the matrices, elements of the copy
CUDA_SIZES = (8192, 1 << 28)
TRIES = 3


@dataclass(frozen=True)
class Roofline:
    """Floating-point operations and bytes in a second, of large products and of copies."""

    flops: float
    bandwidth: float

    def seconds(self, cost: Cost) -> float:
        """No implementation is quicker than this."""
        return max(cost.flop / self.flops, cost.bytes / self.bandwidth)

    def limited_by(self, cost: Cost) -> str:
        """Which of the two it is."""
        compute = cost.flop / self.flops >= cost.bytes / self.bandwidth
        return "arithmetic" if compute else "memory"


def measure(device: torch.device, dtype: torch.dtype) -> Roofline:
    """The rates of a device, the best of a few tries."""
    side, elements = CUDA_SIZES if device.type == "cuda" else CPU_SIZES
    a, b = torch.ones(2, side, side, dtype=dtype, device=device)
    source = torch.ones(elements, device=device)
    target = torch.empty_like(source)
    product = best(lambda: torch.mm(a, b), device)
    copy = best(lambda: target.copy_(source), device)
    return Roofline(2.0 * side**3 / product, 2.0 * source.nbytes / copy)


def best(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of the quickest run; the first one does not count."""
    times = []
    for _ in range(TRIES + 1):
        wait(device)
        start = time.perf_counter()
        work()
        wait(device)
        times.append(time.perf_counter() - start)
    return min(times[1:])


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


@dataclass(frozen=True)
class Card:
    """Published rates: processors, clock in GHz, dense bf16 TFLOP/s with fp32 sums."""

    processors: int
    clock: float
    tflops: float

    def product_seconds(self, flop: float, programs: int) -> float:
        """Products alone at full rate, on as many processors as there are programs."""
        busy = min(programs, self.processors)
        return flop / (self.tflops * 1e12 * busy / self.processors)


HOPPER = Card(132, 1.755, 989.0)  # H100 and H200, SXM
ADA = Card(128, 2.52, 165.2)  # RTX 4090


def ada_estimate(name: str, seconds: float, flop: float, programs: int) -> float | None:
    """Seconds on an RTX 4090, from those of an H100 or H200; None where that cannot be derived.

    Holds for a kernel with one program for each head, so few that every program has a processor
    of its own: such a kernel is a chain of products and of everything between them. Products take
    the published rate of a processor, everything else goes with the clock. An estimate, no more.
    """
    if not any(card in name for card in ("H100", "H200")) or programs > ADA.processors:
        return None
    products = HOPPER.product_seconds(flop, programs)
    rest = max(0.0, seconds - products)
    return ADA.product_seconds(flop, programs) + rest * HOPPER.clock / ADA.clock
