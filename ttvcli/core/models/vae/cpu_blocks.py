"""Sizes of the blocks in which a CPU convolves frames. Importing this does not import torch."""

from collections.abc import Iterator

PAST = 2  # frames that a kernel of three looks back
BLOCK = 2**20  # elements of one frame of a block; more leave the processor's cache
WORTH_BLOCKS = 1024  # places from which preparing weights for blocks pays off


def blocks(frames: int, height: int, row: int) -> Iterator[tuple[slice, slice]]:
    """Cut frames whose rows have `row` elements: pairs of whole frames, or rows of one pair."""
    together = min(frames, 2 * max(1, BLOCK // (height * row)))
    parts = min(height, -(-height * row // BLOCK))
    rows = -(-height // parts)
    for start in range(0, frames, together):
        for top in range(0, height, rows):
            yield slice(start, min(start + together, frames)), slice(top, min(top + rows, height))
