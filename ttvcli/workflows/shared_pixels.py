"""Memory that two processes share: pixels are copied into it once, and never through a pipe.

One writes arrays into slots, the other gets arrays that lie there; a slot is free again when the
last of them is gone. A writer that finds no free slot has to send its pixels some other way, so
that nobody ever waits for a slot.
"""

import mmap
import os
import weakref
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

SLOTS = 4
_SIZE = 64 << 20  # taken as it is used: four chunks of 9 frames in 720x480 have 37 MB
_HEAD = mmap.PAGESIZE  # a byte for each slot: 0 if it is free


@dataclass(frozen=True)
class Slot:
    """Where an array lies: `start` in bytes."""

    number: int
    start: int


class SharedPixels:
    """A view of the memory; both sides have one."""

    def __init__(self, file: int) -> None:
        self._memory = mmap.mmap(file, _SIZE)
        self._slot = 0  # bytes of each, known to the writer with its first array

    def write(self, pixels: np.ndarray) -> Slot | None:
        """Copy an array into a free slot and return which; None if there is none."""
        if not self._slot:  # the first chunk of a clip is its longest
            self._slot = -(-pixels.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
        for number in range(SLOTS):
            start = _HEAD + number * self._slot
            fits = 0 < pixels.nbytes <= self._slot and start + self._slot <= _SIZE
            if fits and not self._memory[number]:
                np.ndarray(pixels.shape, np.uint8, self._memory, start)[...] = pixels
                self._memory[number] = 1
                return Slot(number, start)
        return None

    def read(self, shape: tuple[int, ...], slot: Slot) -> np.ndarray:
        """Return the array of this shape that was written into a slot."""
        pixels: np.ndarray = np.ndarray(shape, np.uint8, self._memory, slot.start)
        weakref.finalize(pixels, self._free, slot.number).atexit = False
        return pixels

    def _free(self, number: int) -> None:
        self._memory[number] = 0


def shared_file() -> int | None:
    """Return a file without a name that lies in memory; None where the system has no such thing."""
    if not hasattr(os, "memfd_create"):
        return None
    with suppress(OSError):
        file = os.memfd_create("pixels")
        os.ftruncate(file, _SIZE)
        return file
    return None
