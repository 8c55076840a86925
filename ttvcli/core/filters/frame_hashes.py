"""The record by which a video is compared with others: hashes of frames at a steady rate.

A rate in time, not a number per video, is what survives trimming: a copy that starts later is
sampled within half a period of the same pictures. Frames without detail (black, plain) are left
out, and equal frames in a row are one entry with a count, so that a record is small.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ttvcli.core.filters.content_box import ContentBox
from ttvcli.core.filters.perceptual_hash import (
    MIN_QUALITY,
    Words,
    distances,
    from_hex,
    pdq,
    to_hex,
)

SAMPLES_PER_SECOND = 4
SAME = 4  # bits: frames this close in a row are one entry
_BUFFERED = 24  # samples by which bars are found before the first is hashed
_MOST_COUNT = np.iinfo(np.uint16).max


@dataclass(frozen=True)
class VideoHashes:
    """Hashes uint64 `[N, 4]`, how many samples each stands for `[N]`, and samples left out."""

    hashes: Words
    counts: NDArray[np.uint16]
    flat: int = 0  # samples without enough detail to be hashed

    def __post_init__(self) -> None:
        if len(self.hashes) != len(self.counts):
            raise ValueError(f"{len(self.hashes)} hashes have {len(self.counts)} counts")

    def to_json(self) -> dict[str, Any]:
        """A JSON object of about 70 bytes a hash."""
        return {
            "hashes": to_hex(self.hashes),
            "counts": [int(n) for n in self.counts],
            "flat": self.flat,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> VideoHashes:
        """Read what `to_json` wrote; KeyError or ValueError if it is damaged."""
        counts = np.array(data["counts"], np.uint16)
        return cls(from_hex(data["hashes"]), counts, int(data["flat"]))


class FrameHasher:
    """Collects the hashes of one video from its luma planes in order; memory is flat in length."""

    def __init__(self, samples_per_second: float = SAMPLES_PER_SECOND) -> None:
        if samples_per_second <= 0:
            raise ValueError(f"samples per second must be positive, got {samples_per_second}")
        self._rate = samples_per_second
        self._sampled = -1  # index of the last sample taken
        self._waiting: list[NDArray[np.uint8]] | None = []
        self._box = ContentBox()
        self._hashes: list[Words] = []
        self._counts: list[int] = []
        self._flat = 0

    def wants(self, time: float) -> bool:
        """Whether the frame at `time` seconds is a sample; others need not be converted."""
        return int(time * self._rate + 1e-6) > self._sampled

    def add(self, luma: NDArray[np.uint8], time: float) -> None:
        """Take the luma plane uint8 `[H, W]` of a frame; does nothing between two samples."""
        if not self.wants(time):
            return
        self._sampled = int(time * self._rate + 1e-6)
        self._box.add(luma)
        if self._waiting is None:
            self._hash(luma)
            return
        self._waiting.append(luma.copy())
        if len(self._waiting) == _BUFFERED:
            self._hash_waiting()

    def finish(self) -> VideoHashes:
        """The record of the frames so far; without any it is empty."""
        self._hash_waiting()
        hashes = np.stack(self._hashes) if self._hashes else np.empty((0, 4), np.uint64)
        return VideoHashes(hashes, np.array(self._counts, np.uint16), self._flat)

    def _hash_waiting(self) -> None:
        waiting, self._waiting = self._waiting or [], None
        for luma in waiting:
            self._hash(luma)

    def _hash(self, luma: NDArray[np.uint8]) -> None:
        inside = luma[self._box.box()]
        words, quality = pdq(inside)
        if quality < MIN_QUALITY:
            self._flat += 1
        elif self._continues(words):
            self._counts[-1] += 1
        else:
            self._hashes.append(words)
            self._counts.append(1)

    def _continues(self, words: Words) -> bool:
        if not self._hashes or self._counts[-1] >= _MOST_COUNT:
            return False
        return int(distances(self._hashes[-1], words)) <= SAME
