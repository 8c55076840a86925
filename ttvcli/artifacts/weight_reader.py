"""Read single weights from safetensors files into memory that is there already.

Mapped files count towards a process's memory once they are touched. Here each weight is read into
the caller's tensor with plain reads, so that a model larger than memory can be run block by block.
"""

import os
import struct
import threading
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from ttvcli.artifacts.tensor_file import DTYPES, Weights
from ttvcli.errors import ArtifactError

if TYPE_CHECKING:
    import torch

_PIECE = 16 * 2**20  # bytes read at once when the dtype changes on the way


class WeightReader:
    """`reader(name, tensor)` fills a contiguous CPU tensor, in its own dtype, from the file.

    One thread at a time reads; close it, or use it as a context.
    """

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self._open: dict[Path, tuple[int, int]] = {}  # descriptor, where the data starts
        self._lock = threading.Lock()

    def __call__(self, name: str, target: "torch.Tensor") -> None:
        """Copy one weight.

        Raises:
            ArtifactError: the file ends early, or its shape is not the target's.
        """
        info = self._weights.infos[name]
        path = self._weights.file_of(name)
        if info.shape != tuple(target.shape):
            raise ArtifactError(
                f"{name} is {list(info.shape)}, the config asks for {list(target.shape)}",
                where=str(path),
            )
        with self._lock:
            descriptor, data = self._file(path)
            self._read(descriptor, data + info.start, info.dtype, target, f"{path}: {name}")

    def close(self) -> None:
        """Close the files."""
        for descriptor, _ in self._open.values():
            os.close(descriptor)
        self._open.clear()

    def __enter__(self) -> "WeightReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _file(self, path: Path) -> tuple[int, int]:
        if path not in self._open:
            descriptor = os.open(path, os.O_RDONLY)
            length = struct.unpack("<Q", os.pread(descriptor, 8, 0))[0]
            self._open[path] = descriptor, 8 + length
        return self._open[path]

    def _read(
        self, descriptor: int, at: int, dtype: str, target: "torch.Tensor", where: str
    ) -> None:
        import torch

        name, size = DTYPES[dtype]
        stored = getattr(torch, name)
        flat = target.view(-1)
        if stored == target.dtype:
            _read_bytes(descriptor, at, flat.view(torch.uint8), where)
            return
        step = min(_PIECE // size, max(1, prod(target.shape)))
        piece = torch.empty(step, dtype=stored)
        for first in range(0, len(flat), step):
            part = flat[first : first + step]
            raw = piece[: len(part)]
            _read_bytes(descriptor, at + first * size, raw.view(torch.uint8), where)
            part.copy_(raw)


def _read_bytes(descriptor: int, at: int, target: "torch.Tensor", where: str) -> None:
    view = target.numpy().data
    while view:
        count = os.preadv(descriptor, [view], at)  # one call reads 2 GiB at most
        if not count:
            raise ArtifactError("damaged file: it ends early", where=where, fix="download it again")
        view, at = view[count:], at + count
