"""Near-duplicate search over the frame hashes of many videos, in memory.

**Candidates.** Each table of the index reads another random choice of `b` of the 256 bits as a key;
videos that share a key in any table, with hashes at most `FRAME_LIMIT` bits apart, are candidates.
Two hashes `d` bits apart share a key with probability `p = (1 - d / 256) ^ b`. Keys have about as
many values as there are hashes, so that the members of a bucket do not grow with the collection,
and as many tables are made as find a pair `DESIGN_DISTANCE` apart with probability `RECALL` by one
frame alone. Keys get longer with log2 n, so the tables grow as n^0.14, and the whole search as
n^1.14 instead of n^2 (locality-sensitive hashing, Indyk and Motwani 1998).

**Matches.** All frames of a candidate pair are then compared exactly. A frame is found in the other
video if one of its hashes is at most `FRAME_LIMIT` bits away; a video is contained in another if
`share` of its frames are found there. That holds for trimmed copies, at any offset.

Shapes: N hashes of all videos together · V videos · W 64-bit words of a hash (4)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, log, log2

import numpy as np
from numpy.typing import NDArray

from ttvcli.core.filters.frame_hashes import VideoHashes
from ttvcli.core.filters.perceptual_hash import BITS, Words, distances

FRAME_LIMIT = 31  # bits; copies were found up to 28 apart, different pictures from 54
SHARE = 0.7
DESIGN_DISTANCE = 24
RECALL = 0.99
MIN_KEY_BITS, MAX_KEY_BITS = 12, 28
# Members of a bucket are compared with this many that follow: common pictures (a title card in
# every video) make large buckets, and a chain through them is enough.
MOST_NEIGHBOURS = 64
LEAST_SAMPLES = 2
LEAST_DETAIL = 1 / 3  # of the samples: a video that is plain for the rest is not compared
_ROWS = 512  # frames compared at once with all of another video's

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Match:
    """Two videos with common frames; indices with `left < right`."""

    left: int
    right: int
    left_share: float  # of the left video's frames that the right one has
    right_share: float
    distance: float  # mean bits over the frames found


def comparable(video: VideoHashes) -> bool:
    """Whether a video has enough frames with detail to be compared; else it is unchecked."""
    hashed = int(video.counts.sum())
    return hashed >= LEAST_SAMPLES and hashed >= LEAST_DETAIL * (hashed + video.flat)


def find_matches(
    videos: Sequence[VideoHashes], *, frame_limit: int = FRAME_LIMIT, share: float = SHARE
) -> list[Match]:
    """Find the pairs of videos of which one contains the other, ordered by index.

    Args:
        videos: one record each; those that are not `comparable` match nothing.
        frame_limit: bits by which the hashes of one picture may differ, 0 to 64.
        share: of a video's frames that another must have to contain it, above 0 to 1.
    """
    if not 0 <= frame_limit <= 64:
        raise ValueError(f"frame_limit must be 0 to 64 bits of {BITS}, got {frame_limit}")
    if not 0 < share <= 1:
        raise ValueError(f"share must be above 0 and at most 1, got {share}")
    matches = []
    for left, right in candidate_pairs(videos, frame_limit=frame_limit):
        match = compare(videos, int(left), int(right), frame_limit)
        if max(match.left_share, match.right_share) >= share:
            matches.append(match)
    return matches


def candidate_pairs(videos: Sequence[VideoHashes], *, frame_limit: int = FRAME_LIMIT) -> Indices:
    """Index pairs int64 `[M, 2]`, each once and in order, that have a frame in common."""
    compared = [index for index, video in enumerate(videos) if comparable(video)]
    if len(compared) < 2:
        return np.empty((0, 2), np.int64)
    hashes_NW = np.concatenate([videos[index].hashes for index in compared])
    owners_N = np.repeat(compared, [len(videos[index].hashes) for index in compared])
    bits = key_bits(len(hashes_NW))
    generator = np.random.default_rng(0)  # any choice of bits will do; this one is repeatable
    found = np.empty(0, np.int64)
    for _ in range(table_count(bits)):
        chosen = generator.choice(BITS, bits, replace=False)
        pairs = list(_table_pairs(hashes_NW, owners_N, chosen, frame_limit, len(videos)))
        found = np.unique(np.concatenate([found, *pairs]))
    return np.stack(np.divmod(found, len(videos)), axis=1)


def compare(videos: Sequence[VideoHashes], left: int, right: int, frame_limit: int) -> Match:
    """Compare all frames of two videos, given by index."""
    one, other = videos[left], videos[right]
    nearest_left = np.empty(len(one.hashes), np.uint16)
    nearest_right = np.full(len(other.hashes), BITS, np.uint16)
    for start in range(0, len(one.hashes), _ROWS):
        apart = distances(one.hashes[start : start + _ROWS, None], other.hashes[None])
        nearest_left[start : start + _ROWS] = apart.min(axis=1)
        nearest_right = np.minimum(nearest_right, apart.min(axis=0))
    near = [nearest_left <= frame_limit, nearest_right <= frame_limit]
    left_share = float(one.counts[near[0]].sum() / one.counts.sum())
    right_share = float(other.counts[near[1]].sum() / other.counts.sum())
    bits = np.concatenate([nearest_left[near[0]], nearest_right[near[1]]])
    return Match(left, right, left_share, right_share, float(bits.mean()) if len(bits) else BITS)


def key_bits(hashes: int) -> int:
    """Length of a key, so that a random bucket of this many hashes has about one member."""
    return min(max(ceil(log2(max(hashes, 1))), MIN_KEY_BITS), MAX_KEY_BITS)


def table_count(bits: int) -> int:
    """Tables that find a pair `DESIGN_DISTANCE` apart with probability `RECALL`."""
    together = (1 - DESIGN_DISTANCE / BITS) ** bits
    return ceil(log(1 - RECALL) / log(1 - together))


def _table_pairs(
    hashes_NW: Words, owners_N: Indices, chosen: Indices, frame_limit: int, videos: int
) -> Iterator[Indices]:
    """Yield pairs of near hashes with one key, as `left * videos + right`."""
    keys_N = _keys(hashes_NW, chosen)
    order = np.argsort(keys_N, kind="stable")
    keys_N = keys_N[order]
    # first members of pairs `lag` places apart in one bucket
    first = np.arange(len(keys_N))
    for lag in range(1, MOST_NEIGHBOURS + 1):
        first = first[: np.searchsorted(first, len(keys_N) - lag)]
        first = first[keys_N[first] == keys_N[first + lag]]
        if not len(first):
            return
        one, other = order[first], order[first + lag]
        strange = owners_N[one] != owners_N[other]
        one, other = one[strange], other[strange]
        near = distances(hashes_NW[one], hashes_NW[other]) <= frame_limit
        a, b = owners_N[one[near]], owners_N[other[near]]
        yield np.minimum(a, b) * videos + np.maximum(a, b)


def _keys(hashes_NW: Words, chosen: Indices) -> NDArray[np.uint32]:
    keys_N = np.zeros(len(hashes_NW), np.uint32)
    for bit in chosen:
        word, shift = divmod(int(bit), 64)
        keys_N <<= np.uint32(1)
        keys_N |= ((hashes_NW[:, word] >> np.uint64(shift)) & np.uint64(1)).astype(np.uint32)
    return keys_N
