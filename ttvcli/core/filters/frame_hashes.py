"""The record by which a video is compared with others: hashes at a steady rate in time.

- **Windows.** A hash is that of the mean picture of half a second, every quarter of a second. A
  copy that starts elsewhere, or has another frame rate, has nearly the same means, where single
  frames of a fast motion have nothing in common after a tenth of a second.
- **Crops.** PDQ bears a crop of 1 % of each side. So every window is hashed whole and as its middle
  without 2.5 % and without 5 % of each side; the whole of a cropped copy is like one of those.
- Windows without detail (black, plain) are left out, and equal windows in a row are one entry with
  a count, so that a record stays small.

Shapes: N entries of a video · K crops, the first is the whole · W 64-bit words of a hash (4)
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
    WORDS,
    Words,
    distances,
    from_hex,
    pdq,
    pdq_alone,
    to_hex,
)

BLOCKS_PER_SECOND = 4  # a window is two of them
PICTURES_PER_BLOCK = 3
CROPS = (0.0, 0.025, 0.05)  # of each side
SAME = 4  # bits: windows this close in a row are one entry
_BUFFERED = 24  # windows by which bars are found before the first is hashed
_MOST_COUNT = np.iinfo(np.uint16).max
_LONGEST_HOLD = 240  # blocks that one picture stands for

Picture = NDArray[Any]  # float32 [H, W]


@dataclass(frozen=True)
class VideoHashes:
    """Hashes uint64 `[N, K, 4]`, and how many windows each entry stands for `[N]`."""

    hashes: Words
    counts: NDArray[np.uint16]
    flat: int = 0  # windows without enough detail to be hashed
    content: float = 1.0  # share of the frame inside its black bars

    def __post_init__(self) -> None:
        if self.hashes.shape != (len(self.counts), len(CROPS), WORDS):
            want = (len(self.counts), len(CROPS), WORDS)
            raise ValueError(f"hashes are {want} for these counts, got {self.hashes.shape}")

    def to_json(self) -> dict[str, Any]:
        """A JSON object of about 200 bytes an entry."""
        return {
            "hashes": to_hex(self.hashes),
            "counts": [int(n) for n in self.counts],
            "flat": self.flat,
            "content": self.content,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> VideoHashes:
        """Read what `to_json` wrote; KeyError or ValueError if it is damaged."""
        hashes = from_hex(data["hashes"]).reshape(-1, len(CROPS), WORDS)
        counts = np.array(data["counts"], np.uint16)
        return cls(hashes, counts, int(data["flat"]), float(data["content"]))


class FrameHasher:
    """Makes the record of one video from its luma in order; memory is flat in the length."""

    def __init__(self) -> None:
        self._seen = -1  # index of the last picture taken, in steps of the sampling rate
        self._block = 0
        self._sum: Picture | None = None
        self._pictures = 0
        self._last: Picture | None = None  # the picture that is shown until the next
        self._before: Picture | None = None  # mean of the block before
        self._waiting: list[Picture] | None = []
        self._box = ContentBox()
        self._hashes: list[Words] = []
        self._counts: list[int] = []
        self._flat = 0
        self._content = 1.0

    def wants(self, time: float) -> bool:
        """Whether the frame at `time` seconds is used; others need not be converted."""
        return _step(time) > self._seen

    def add(self, luma: NDArray[np.uint8], time: float) -> None:
        """Take the luma plane uint8 `[H, W]`, 0 for black; does nothing if it is not wanted.

        A joined recording may change its size: no mean is taken over pictures of two sizes.
        """
        if not self.wants(time):
            return
        self._seen = _step(time)
        block = self._seen // PICTURES_PER_BLOCK
        if block > self._block:
            self._end_block(held=block - self._block - 1)
            self._block = block
        if self._last is not None and self._last.shape != luma.shape:
            self._begin_anew()
        self._last = luma.astype(np.float32)
        self._sum = self._last if self._sum is None else self._sum + self._last
        self._pictures += 1

    def finish(self) -> VideoHashes:
        """The record of the frames so far; without any it is empty."""
        self._end_windows()
        shape = (len(self._hashes), len(CROPS), WORDS)
        hashes = np.array(self._hashes, np.uint64).reshape(shape)
        counts = np.array(self._counts, np.uint16)
        return VideoHashes(hashes, counts, self._flat, round(self._content, 4))

    def _end_windows(self) -> None:
        """Hash what was seen so far; a block that is alone is a window."""
        only = self._before is None and self._sum is not None
        self._end_block(held=0)
        if only and self._before is not None:
            self._window(self._before)
        self._hash_waiting()

    def _begin_anew(self) -> None:
        self._end_windows()
        self._last = self._before = None
        self._waiting, self._box = [], ContentBox()

    def _end_block(self, held: int) -> None:
        means = [] if self._sum is None else [self._sum / np.float32(self._pictures)]
        if self._last is not None:
            means += [self._last] * min(held, _LONGEST_HOLD)
        for mean in means:
            if self._before is not None:
                self._window((self._before + mean) / 2)
            self._before = mean
        self._sum, self._pictures = None, 0

    def _window(self, picture: Picture) -> None:
        self._box.add(picture)
        if self._waiting is None:
            self._hash(picture)
            return
        self._waiting.append(picture)
        if len(self._waiting) == _BUFFERED:
            self._hash_waiting()

    def _hash_waiting(self) -> None:
        waiting, self._waiting = self._waiting or [], None
        for picture in waiting:
            self._hash(picture)

    def _hash(self, picture: Picture) -> None:
        inside = picture[self._box.box()]
        self._content = inside.size / picture.size
        whole, quality = pdq(inside)
        if quality < MIN_QUALITY:
            self._flat += 1
        elif self._continues(whole):
            self._counts[-1] += 1
        else:
            middles = [pdq_alone(_middle(inside, crop)) for crop in CROPS[1:]]
            self._hashes.append(np.stack([whole, *middles]))
            self._counts.append(1)

    def _continues(self, whole: Words) -> bool:
        if not self._hashes or self._counts[-1] >= _MOST_COUNT:
            return False
        return int(distances(self._hashes[-1][0], whole)) <= SAME


def _middle(picture: Picture, crop: float) -> Picture:
    top, left = (round(side * crop) for side in picture.shape)
    height, width = picture.shape
    return picture[top : height - top, left : width - left]


def _step(time: float) -> int:
    return int(time * BLOCKS_PER_SECOND * PICTURES_PER_BLOCK + 1e-6)
