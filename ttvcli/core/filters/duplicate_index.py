"""Near-duplicate search over the hashes of many videos, in memory.

**Candidates.** Each table of the index reads another random choice of `b` of the 256 bits as a key;
videos that share a key in any table, with hashes at most `FRAME_LIMIT` bits apart, are candidates.
Two hashes `d` bits apart share a key with probability `p = (1 - d / 256) ^ b`. Keys have about as
many values as there are hashes, so that the members of a bucket do not grow with the collection,
and as many tables are made as find hashes `DESIGN_DISTANCE` apart with probability `RECALL`; a
video has a dozen hashes, of which one has to be found. Keys get longer with log2 n, so the tables
grow as n^0.14, and the search as n^1.14 instead of n^2 (locality-sensitive hashing, Indyk and
Motwani 1998).

**Matches.** All windows of a candidate pair are then compared exactly. A window is found in the
other video if the whole picture of one is at most `FRAME_LIMIT` bits from a crop of the other; a
video is contained in another if `share` of its windows are found there. That holds for trimmed
copies, at any offset.

Shapes: N windows of all videos together · K crops of a window, the first is the whole picture ·
W 64-bit words of a hash (4)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, log, log2

import numpy as np
from numpy.typing import NDArray

from ttvcli.core.filters.frame_hashes import VideoHashes
from ttvcli.core.filters.perceptual_hash import BITS, WORDS, Words, distances

FRAME_LIMIT = 31  # bits; copies were found up to 28 apart, different pictures from 54
SHARE = 0.5  # copies have more; parts of one shot that follow each other up to 0.2
DESIGN_DISTANCE = 24
RECALL = 0.9
MIN_KEY_BITS, MAX_KEY_BITS = 12, 28
# Members of a bucket are compared with this many that follow: common pictures (a title card in
# every video) make large buckets, and a chain through them is enough.
MOST_NEIGHBOURS = 64
LEAST_SAMPLES = 2
LEAST_DETAIL = 1 / 3  # of the samples: a video that is plain for the rest is not compared
_ROWS = 128  # windows compared at once with all of another video's

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Match:
    """Two videos with windows in common; indices with `left < right`."""

    left: int
    right: int
    left_share: float  # of the left video's windows that the right one has
    right_share: float
    distance: float  # mean bits over the windows found


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
    hashes_NKW = np.concatenate([videos[index].hashes for index in compared])
    owners_N = np.repeat(compared, [len(videos[index].hashes) for index in compared])
    crops = hashes_NKW.shape[1]
    hashes, owners = hashes_NKW.reshape(-1, WORDS), np.repeat(owners_N, crops)
    whole = np.tile(np.arange(crops) == 0, len(hashes_NKW))
    bits = key_bits(len(hashes))
    generator = np.random.default_rng(0)  # any choice of bits will do; this one is repeatable
    found = np.empty(0, np.int64)
    for _ in range(table_count(bits)):
        order, places = _buckets(hashes, generator.choice(BITS, bits, replace=False))
        pairs = [found]
        for first, second in _neighbours(order, places):
            # What two crops have in common, the whole pictures have too.
            useful = (owners[first] != owners[second]) & (whole[first] | whole[second])
            first, second = first[useful], second[useful]
            near = distances(hashes[first], hashes[second]) <= frame_limit
            one, other = owners[first[near]], owners[second[near]]
            pairs.append(np.minimum(one, other) * len(videos) + np.maximum(one, other))
        found = np.unique(np.concatenate(pairs))
    return np.stack(np.divmod(found, len(videos)), axis=1)


def compare(videos: Sequence[VideoHashes], left: int, right: int, frame_limit: int) -> Match:
    """Compare all frames of two videos, given by index."""
    one, other = videos[left], videos[right]
    nearest_left = np.empty(len(one.hashes), np.uint16)
    nearest_right = np.full(len(other.hashes), BITS, np.uint16)
    for start in range(0, len(one.hashes), _ROWS):
        rows = one.hashes[start : start + _ROWS]
        in_crops = distances(rows[:, None, :1], other.hashes[None]).min(axis=2)
        of_crops = distances(rows[:, None], other.hashes[None, :, :1]).min(axis=2)
        apart = np.minimum(in_crops, of_crops)
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


def _buckets(hashes: Words, chosen: Indices) -> tuple[Indices, Words]:
    """Order of the hashes by key, and their keys in that order."""
    # Sorted together with their places in one word, which is several times faster than argsort.
    both = (_keys(hashes, chosen) << np.uint64(32)) | np.arange(len(hashes), dtype=np.uint64)
    both.sort()
    return (both & np.uint64(0xFFFFFFFF)).astype(np.int64), both >> np.uint64(32)


def _neighbours(order: Indices, keys: Words) -> Iterator[tuple[Indices, Indices]]:
    """Yield indices of hashes with one key, pair by pair, by distance within the bucket."""
    place = np.arange(len(keys))
    for lag in range(1, MOST_NEIGHBOURS + 1):
        place = place[: np.searchsorted(place, len(keys) - lag)]
        place = place[keys[place] == keys[place + lag]]
        if not len(place):
            return
        yield order[place], order[place + lag]


def _keys(hashes: Words, chosen: Indices) -> Words:
    """The chosen bits of each hash as a number, uint64."""
    keys = np.zeros(len(hashes), np.uint64)
    for place, bit in enumerate(chosen):
        word, shift = divmod(int(bit), 64)
        value = hashes[:, word] >> np.uint64(shift)
        value &= np.uint64(1)
        value <<= np.uint64(place)
        keys |= value
    return keys
