"""Compile a kernel for a card that this machine does not have, and read what it would use there.

Registers, shared memory and spilled bytes are properties of the compiled code, so they can be
tested without a GPU. Whether the results are right is tested in Triton's interpreter; the two do
not mix in one process (`TRITON_INTERPRET` is read when a kernel is defined).
"""

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from ttv_kernels.dispatch import shared_kib
from ttv_kernels.launch import Launch

# Shared memory one block may use, in bytes, by compute capability:
# A100; RTX 30 and 40 series; H100; B200; RTX 50 series.
SHARED_LIMITS = {
    each: 1024 * shared_kib((each // 10, each % 10)) for each in (80, 89, 90, 100, 120)
}
# Registers that all threads of a block share, the same on all of them.
REGISTERS = 65_536

_TYPES = {
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
    torch.float32: "fp32",
    torch.int32: "i32",
    torch.int64: "i64",
}
_ALIGNED = [["tt.divisibility", 16]]
_LARGEST_INT32 = 2**31 - 1


@dataclass(frozen=True)
class Resources:
    """What one compiled kernel uses.

    Attributes:
        kernel: its name.
        capability: compute capability it was compiled for, 89 for sm_89.
        shared: bytes of shared memory a block needs.
        registers: of each thread.
        spilled: bytes of local memory of each thread; registers that did not fit.
        threads: of a block.
    """

    kernel: str
    capability: int
    shared: int
    registers: int
    spilled: int
    threads: int

    @property
    def fits(self) -> bool:
        """Whether a block may have that much shared memory and that many registers on the card."""
        enough = self.threads * self.registers <= REGISTERS
        return enough and self.shared <= SHARED_LIMITS[self.capability]


def compile_for(capability: int, launch: Launch) -> Resources:
    """Compile a launch for `sm_<capability>` exactly as it would be compiled there.

    The tensors of the launch may be on the meta device; only dtypes matter, and that PyTorch aligns
    what it allocates.

    Raises:
        ValueError: no limits are known for this capability.
        RuntimeError: the kernel was defined for Triton's interpreter.
    """
    if capability not in SHARED_LIMITS:
        raise ValueError(f"capability must be one of {sorted(SHARED_LIMITS)}, got {capability}")
    if not isinstance(launch.kernel, triton.JITFunction):
        raise RuntimeError(f"{launch.name} is interpreted; start Python without TRITON_INTERPRET")
    compiled = triton.compile(
        _source(launch),
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": launch.num_warps, "num_stages": launch.num_stages},
    )
    registers, spilled = _usage(compiled.asm["cubin"])
    shared, threads = compiled.metadata.shared, 32 * launch.num_warps
    return Resources(launch.name, capability, shared, registers, spilled, threads)


def _source(launch: Launch) -> ASTSource:
    """Types, constants and alignments of the arguments, as a launch would specialise them."""
    signature, constants, attributes = {}, {}, {}
    for index, parameter in enumerate(launch.kernel.params):
        value = launch.arguments[parameter.name]
        special = isinstance(value, int) and not parameter.do_not_specialize
        constant = parameter.is_constexpr or value is None or (special and value == 1)
        signature[parameter.name] = "constexpr" if constant else _type(value)
        if constant:
            constants[(index,)] = value
        elif isinstance(value, Tensor) or (special and value % 16 == 0):
            attributes[(index,)] = _ALIGNED
    return ASTSource(launch.kernel, signature, constants, attributes)


def _type(value: Any) -> str:
    if isinstance(value, Tensor):
        return "*" + _TYPES[value.dtype]
    if isinstance(value, float):
        return "fp32"
    if isinstance(value, int):
        return "i32" if abs(value) <= _LARGEST_INT32 else "i64"
    raise TypeError(f"no kernel takes a {type(value).__name__}")


def _usage(cubin: bytes) -> tuple[int, int]:
    """Registers and stack bytes of the one kernel in a binary."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        done = subprocess.run(
            [tool, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True
        )
    found = re.search(r"REG:(\d+)\s+STACK:(\d+)", done.stdout)
    if found is None:
        raise RuntimeError(f"cuobjdump gave no resource usage: {done.stdout.strip()!r}")
    return int(found[1]), int(found[2])
