"""Copies of a video that are not the same file: encoded again, scaled, cropped, trimmed, boxed.

The one decode pass leaves a record of hashes for each video (`frame_hashes`); the second stage
searches all of them (`duplicate_index`), and keeps the best of each group (`duplicate_groups`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ttvcli.core.filters.duplicate_groups import Quality, find_copies
from ttvcli.core.filters.duplicate_index import FRAME_LIMIT, SHARE, comparable
from ttvcli.core.filters.filter import AllMetrics, Candidate, Clip, Copy, Filter, Finding, Metrics
from ttvcli.core.filters.frame_hashes import FrameHasher, VideoHashes
from ttvcli.core.filters.frame_view import FrameView


@dataclass(frozen=True, kw_only=True)
class NearDuplicateLimits:
    """Thresholds."""

    share: float = field(
        default=SHARE, metadata={"help": "share of a video's pictures that make it a copy"}
    )
    bits: int = field(
        default=FRAME_LIMIT, metadata={"help": "bits of 256 that one picture may differ by"}
    )

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1 or not 0 <= self.bits <= 64:
            got = f"{self.share} and {self.bits}"
            raise ValueError(f"share must be above 0 to 1 and bits 0 to 64, got {got}")


class NearDuplicateMeter:
    """Hashes the upright picture."""

    def __init__(self) -> None:
        self._hasher = FrameHasher()
        self._record: VideoHashes | None = None

    def see(self, view: FrameView) -> None:
        """Look at twelve frames a second."""
        if self._hasher.wants(view.time):
            turns = view.turns
            upright = np.rot90(view.small, turns) if turns else view.small
            self._hasher.add(upright, view.time)

    def finish(self, clip: Clip) -> Metrics:
        """Return how much could be hashed."""
        self._record = record = self._hasher.finish()
        return {
            "hashed": int(record.counts.sum()),
            "plain": record.flat,
            "compared": int(comparable(record)),
        }

    def record(self) -> Any:
        """Return the hashes."""
        assert self._record is not None
        return self._record.to_json()


def find_near(candidates: Sequence[Candidate], limits: Any) -> Iterator[Copy]:
    """Yield the videos whose pictures a better one has too."""
    videos = [VideoHashes.from_json(candidate.record) for candidate in candidates]
    qualities = [
        Quality(candidate.quality[0] * video.content, *candidate.quality[1:])
        for candidate, video in zip(candidates, videos, strict=True)
    ]
    for drop in find_copies(videos, qualities, frame_limit=limits.bits, share=limits.share):
        text = f"the same pictures ({drop.share:.0%}, {drop.distance:.0f} bits apart)"
        yield Copy(candidates[drop.index].name, candidates[drop.kept].name, text)


def judge_detail(metrics: AllMetrics, limits: Any) -> Iterator[Finding]:
    """Flag a video that could not be compared."""
    if not metrics["near_duplicate"]["compared"]:
        text = "too plain or too short to be compared with others"
        yield Finding("uncompared", text, drop=False)


FILTER = Filter(
    name="near_duplicate",
    about="the same pictures in another file",
    limits=NearDuplicateLimits,
    meter=NearDuplicateMeter,
    judge=judge_detail,
    compare=find_near,
)
