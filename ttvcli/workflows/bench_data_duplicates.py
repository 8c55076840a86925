"""Rows of `ttv bench data` about near duplicates: growth of the search, precision and recall.

The growth is measured on random hashes with planted copies, so that the right answer is known at
any size. Precision and recall are measured on altered copies of videos that are really decoded.
"""

import resource
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import log
from pathlib import Path
from typing import Any

import numpy as np

from ttvcli.core.filters.duplicate_index import (
    FRAME_LIMIT,
    SHARE,
    comparable,
    compare,
    find_matches,
    key_bits,
    table_count,
)
from ttvcli.core.filters.frame_hashes import CROPS, FrameHasher, VideoHashes
from ttvcli.core.filters.frame_view import Views
from ttvcli.core.filters.perceptual_hash import WORDS
from ttvcli.core.video.decode import open_video
from ttvcli.workflows.duplicate_copies import (
    ALTERATIONS,
    SOURCE,
    Alteration,
    Excerpt,
    write_copy,
)

CLIP_WINDOWS = 11  # of 3 seconds
PLANTED = 0.01  # of the clips are copies of others


@dataclass(frozen=True)
class Labelled:
    """The record of an excerpt or of a copy of it."""

    source: str
    alteration: str  # "" for the excerpt itself
    group: str
    hashes: VideoHashes


def random_videos(count: int, *, seed: int, frames: int = CLIP_WINDOWS) -> list[VideoHashes]:
    """Videos of `frames` windows of random hashes, no two of them alike."""
    generator = np.random.default_rng(seed)
    whole = _words(np.empty((count, frames, 1, WORDS)), generator)
    # A crop differs from the whole in a quarter of the bits, about as films do.
    crops = [whole ^ (_words(whole, generator) & _words(whole, generator)) for _ in CROPS[1:]]
    hashes = np.concatenate([whole, *crops], axis=2)
    return [VideoHashes(each, np.ones(frames, np.uint16)) for each in hashes]


def altered(video: VideoHashes, bits: int, *, seed: int) -> VideoHashes:
    """A copy of which each hash differs in `bits` bits, other ones each time."""
    flips = _flips(video.hashes.shape, bits, np.random.default_rng(seed))
    return VideoHashes(video.hashes ^ flips, video.counts, video.flat, video.content)


def growth_rows(sizes: Sequence[int], *, bits: int = 16) -> Iterator[dict[str, Any]]:
    """Time and memory of a search among `sizes` clips of 3 s with planted copies.

    `growth` is the exponent from the row before: 1 is linear, 2 compares everything.
    """
    before: tuple[int, float] | None = None
    for size in sizes:
        planted = max(int(size * PLANTED), 1)
        videos = random_videos(size - planted, seed=size)
        videos += [altered(videos[index], bits, seed=index) for index in range(planted)]
        wall, cpu = time.perf_counter(), time.process_time()
        matches = find_matches(videos)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        right = {(index, size - planted + index) for index in range(planted)}
        found = {(match.left, match.right) for match in matches}
        hashes = size * CLIP_WINDOWS * len(CROPS)
        yield {
            "row": "duplicates",
            "clips": size,
            "hashes": hashes,
            "key_bits": key_bits(hashes),
            "tables": table_count(key_bits(hashes)),
            "seconds": round(wall, 3),
            "cpu_seconds": round(cpu, 3),
            "record_mb": round(sum(video.hashes.nbytes for video in videos) / 2**20, 1),
            "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10),
            "copies": planted,
            "found": len(found & right),
            "false": len(found - right),
            "growth": round(log(cpu / before[1]) / log(size / before[0]), 2) if before else None,
        }
        before = size, cpu


def hash_video(path: str | Path) -> VideoHashes:
    """Decode a video and make its record, as the filter does."""
    hasher = FrameHasher()
    with open_video(path) as video:
        views = Views(video.info.sample_aspect)
        for index, frame in enumerate(video.frames()):
            if hasher.wants(frame.seconds):
                view = views.view(index, frame.seconds, frame.picture)
                hasher.add(view.small, frame.seconds)
    return hasher.finish()


def label_copies(
    excerpts: Iterable[tuple[str, Excerpt]],
    folder: Path,
    alterations: dict[str, Alteration] | None = None,
) -> Iterator[Labelled]:
    """Yield the records of excerpts, by name, and of their altered copies, written to `folder`."""
    made = ALTERATIONS if alterations is None else alterations
    target = folder / "copy.mp4"
    for name, excerpt in excerpts:
        for alteration, change in {"": SOURCE, **made}.items():
            yield Labelled(
                name, alteration, change.group, hash_video(write_copy(excerpt, target, change))
            )


def recall_rows(
    labelled: Sequence[Labelled], *, frame_limit: int = FRAME_LIMIT, share: float = SHARE
) -> Iterator[dict[str, Any]]:
    """For each alteration the share of copies found; then precision over all pairs of videos.

    A pair of a right kind is one excerpt with a copy of it, or two copies of one excerpt; only
    those of an excerpt with its copy count for recall, all pairs count for precision.
    """
    videos = [item.hashes for item in labelled]
    found = {
        (match.left, match.right)
        for match in find_matches(videos, frame_limit=frame_limit, share=share)
    }
    home = {item.source: index for index, item in enumerate(labelled) if not item.alteration}
    kinds = {item.alteration: item.group for item in labelled if item.alteration}
    for kind, group in kinds.items():
        copies = [index for index, item in enumerate(labelled) if item.alteration == kind]
        pairs = [tuple(sorted((home[labelled[index].source], index))) for index in copies]
        hits = [pair for pair in pairs if pair in found]
        yield {
            "row": "duplicate-recall",
            "group": group,
            "alteration": kind,
            "copies": len(pairs),
            "found": len(hits),
            "recall": round(len(hits) / len(pairs), 3),
            "least_share": round(
                min(_share(videos, pair[0], pair[1], frame_limit) for pair in pairs), 2
            ),
        }
    different = sum(
        one.source != other.source for i, one in enumerate(labelled) for other in labelled[:i]
    )
    wrong = [pair for pair in found if labelled[pair[0]].source != labelled[pair[1]].source]
    yield {
        "row": "duplicate-precision",
        "videos": len(videos),
        "not_comparable": sum(not comparable(video) for video in videos),
        "different_pairs": different,
        "false": len(wrong),
        "false_pairs": sorted(
            {" / ".join(sorted(labelled[index].source for index in pair)) for pair in wrong}
        ),
        "precision": round(1 - len(wrong) / len(found), 4) if found else None,
    }


def _share(videos: Sequence[VideoHashes], left: int, right: int, frame_limit: int) -> float:
    if not all(len(videos[index].hashes) for index in (left, right)):
        return 0.0
    match = compare(videos, left, right, frame_limit)
    return max(match.left_share, match.right_share)


def _words(like: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return generator.integers(0, 2**64, like.shape, np.uint64)


def _flips(shape: tuple[int, ...], bits: int, generator: np.random.Generator) -> np.ndarray:
    """Words `[..., 4]` with `bits` random bits set in each."""
    rows = int(np.prod(shape[:-1]))
    order = generator.random((rows, WORDS * 64), np.float32).argpartition(max(bits - 1, 0), axis=1)
    chosen = np.zeros((rows, WORDS * 64), np.uint8)
    np.put_along_axis(chosen, order[:, :bits], 1, axis=1)
    return np.packbits(chosen, axis=1).view(np.uint64).reshape(shape)
