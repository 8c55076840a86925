"""One call of a Triton kernel as a value: run it here, or compile it for a card that is elsewhere."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Launch:
    """A kernel with everything its launch needs.

    Attributes:
        kernel: a `triton.jit` function.
        grid: programs along each axis.
        arguments: every parameter of the kernel by its name.
        num_warps, num_stages: warps of a program, and buffers of a pipelined loop.
    """

    kernel: Any
    grid: tuple[int, ...]
    arguments: Mapping[str, Any]
    num_warps: int = 4
    num_stages: int = 2

    @property
    def name(self) -> str:
        return self.kernel.__name__

    def run(self) -> None:
        """Start it on the device of its tensors (or in Triton's interpreter, on a CPU)."""
        device = next(x for x in self.arguments.values() if isinstance(x, Tensor))
        with torch.cuda.device_of(device):
            self.kernel[self.grid](
                **self.arguments, num_warps=self.num_warps, num_stages=self.num_stages
            )
