"""PDQ, a perceptual hash of pictures (Meta, 2019): what looks alike differs in few of 256 bits.

PDQ reduces the luma to 64x64, keeps the 16x16 lowest non-constant frequencies of its cosine
transform, and sets a bit for each that exceeds their median. Smoothing, decimation and transform
are linear and separable, so that one frame costs two small matrix products.

Shapes: B batch (frames) · H, W rows and columns of the luma plane · N hashes of a video
Types:  a hash is 256 bits, uint64 [4]; first bit is the highest of the first word
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

BITS = 256
WORDS = BITS // 64
SIDE = 64  # of the reduced picture
FREQUENCIES = 16
# Sums of gradients below this leave the bits to noise; 100 is the most.
MIN_QUALITY = 50

Words = NDArray[np.uint64]
Floats = NDArray[np.float64]


def pdq(luma: NDArray[Any]) -> tuple[Words, int]:
    """Hash a luma plane `[H, W]` of values 0 to 255: hash uint64 `[4]` and quality, 0 to 100.

    Raises:
        ValueError: not a plane of at least 8x8.
    """
    _check(luma)
    down, across = _Reduction.of(luma.shape[0]), _Reduction.of(luma.shape[1])
    reduced = across.columns(down.rows(luma))
    transform = _cosines()
    return _pack(transform @ reduced @ transform.T), _quality(reduced)


def pdq_alone(luma: NDArray[Any]) -> Words:
    """Hash like `pdq`, without the quality and thus without the 64x64 values: half the work."""
    _check(luma)
    down, across = _transform(luma.shape[0]), _transform(luma.shape[1])
    return _pack(down @ luma @ across.T)


def distances(left: Words, right: Words) -> NDArray[np.uint16]:
    """Bits that differ, broadcasting uint64 `[..., 4]` against `[..., 4]`."""
    return np.bitwise_count(left ^ right).sum(axis=-1, dtype=np.uint16)


def to_hex(hashes: Words) -> str:
    """Write hashes uint64 `[N, 4]` as 64 hexadecimal digits each, in one string."""
    return hashes.astype(">u8").tobytes().hex()


def from_hex(text: str) -> Words:
    """Read what `to_hex` wrote: uint64 `[N, 4]`; ValueError if it is damaged."""
    data = bytes.fromhex(text)
    if len(data) % (BITS // 8):
        raise ValueError(f"a hash has {BITS // 4} digits, got {len(text)} in all")
    return np.frombuffer(data, ">u8").astype(np.uint64).reshape(-1, WORDS)


def _check(luma: NDArray[Any]) -> None:
    if luma.ndim != 2 or min(luma.shape) < 8:
        raise ValueError(f"a luma plane [H, W] of 8x8 or more is hashed, got {luma.shape}")


@dataclass(frozen=True)
class _Reduction:
    """A box filter twice, then every (size / 64)th value; up to 256 values, just what it needs.

    There a result has at most three terms, with weights such as 1/4, so that float64 holds the sums
    of float32 exactly: a product with the whole matrix, nearly all zeros, gives the same bits.
    """

    matrix: Floats  # [64, size]
    places: tuple[NDArray[np.intp], ...] = ()  # of each term [64]
    weights: tuple[Floats, ...] = ()  # [64]

    def rows(self, values: NDArray[Any]) -> Floats:
        """`[size, W]` of any type to `[64, W]`."""
        if not self.places:
            return self.matrix @ values.astype(np.float64)
        terms = zip(self.weights, self.places, strict=True)
        return _total(values.take(place, 0) * weight[:, None] for weight, place in terms)

    def columns(self, values: Floats) -> Floats:
        """`[H, size]` to `[H, 64]`."""
        if not self.places:
            return values @ self.matrix.T
        terms = zip(self.weights, self.places, strict=True)
        return _total(values.take(place, 1) * weight for weight, place in terms)

    @staticmethod
    @lru_cache(maxsize=64)
    def of(size: int) -> _Reduction:
        matrix = _reduction(size)
        terms = int((matrix != 0).sum(axis=1).max())
        if terms > 3:
            return _Reduction(matrix)
        order = np.argsort(matrix == 0, axis=1, kind="stable")[:, :terms]
        weights = np.take_along_axis(matrix, order, axis=1)
        return _Reduction(matrix, tuple(order.T.copy()), tuple(weights.T.copy()))


def _total(terms: Iterator[Floats]) -> Floats:
    total = next(terms)
    for term in terms:
        total += term
    return total


def _reduction(size: int) -> Floats:
    """Matrix `[64, size]` that applies a box filter twice and keeps every (size / 64)th value."""
    window = -(-size // (2 * SIDE))
    behind, ahead = window - (window + 2) // 2, (window + 2) // 2 - 1
    place = np.arange(size)
    offset = place[None] - place[:, None]
    box = ((offset >= -behind) & (offset <= ahead)).astype(np.float64)
    box /= box.sum(axis=1, keepdims=True)  # fewer values are averaged at the borders
    kept = ((np.arange(SIDE) + 0.5) * size / SIDE).astype(int)
    return box[kept] @ box


@lru_cache(maxsize=1)
def _cosines() -> Floats:
    """Matrix `[16, 64]` of the cosine transform without its constant row."""
    frequency, place = np.arange(1, FREQUENCIES + 1)[:, None], np.arange(SIDE)[None]
    return np.sqrt(2 / SIDE) * np.cos(np.pi / (2 * SIDE) * frequency * (2 * place + 1))


@lru_cache(maxsize=64)
def _transform(size: int) -> Floats:
    """Matrix `[16, size]` of the reduction and the cosine transform together."""
    return _cosines() @ _reduction(size)


def _pack(coefficients: Floats) -> Words:
    values = coefficients.reshape(-1)
    median = np.partition(values, BITS // 2 - 1)[BITS // 2 - 1]
    return np.packbits((values > median)[::-1]).view(">u8").astype(np.uint64)


def _quality(reduced: Floats) -> int:
    total = 0.0
    for steps in (reduced[1:] - reduced[:-1], reduced[:, 1:] - reduced[:, :-1]):
        steps *= 100
        steps /= 255
        np.trunc(steps, out=steps)
        total += float(np.abs(steps, out=steps).sum())
    return int(min(total // 90, 100))
