"""Pixels in shared memory: what was written is read, and a slot is free once nobody reads it."""

import os

import numpy as np
import pytest

from ttvcli.workflows import shared_pixels
from ttvcli.workflows.shared_pixels import SLOTS, SharedPixels, shared_file


@pytest.fixture
def sides() -> tuple[SharedPixels, SharedPixels]:
    """A writer and a reader of the same memory."""
    file = shared_file()
    if file is None:
        pytest.skip("this system has no files in memory: pixels go through the pipe")
    found = SharedPixels(file), SharedPixels(file)
    os.close(file)
    return found


def chunk(value: int, frames: int = 8) -> np.ndarray:
    return np.full((frames, 4, 6, 3), value, np.uint8)


def test_slots_hold_what_was_written_until_the_last_view_is_gone(
    sides: tuple[SharedPixels, SharedPixels],
) -> None:
    writer, reader = sides
    held = []
    for value in range(SLOTS):
        slot = writer.write(chunk(value))
        assert slot is not None
        held.append(reader.read((8, 4, 6, 3), slot)[2:])  # a view keeps its slot
    assert writer.write(chunk(99)) is None
    assert [int(pixels.min()) for pixels in held] == list(range(SLOTS))
    assert all(pixels.min() == pixels.max() for pixels in held)
    del held[1]
    again = writer.write(chunk(7))
    assert again is not None
    assert reader.read((8, 4, 6, 3), again).max() == 7
    assert [int(pixels.max()) for pixels in held] == [0, 2, 3]


def test_what_does_not_fit_is_not_written(sides: tuple[SharedPixels, SharedPixels]) -> None:
    writer, _ = sides
    assert writer.write(chunk(1)) is not None
    large = np.zeros((1, shared_pixels.mmap.PAGESIZE + 1, 1, 1), np.uint8)
    assert writer.write(large) is None
