"""Which of several near duplicates to keep, and which kept one each of the others is part of."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import log2

from ttvcli.core.filters.duplicate_index import (
    FRAME_LIMIT,
    SHARE,
    Match,
    compare,
    find_matches,
)
from ttvcli.core.filters.frame_hashes import VideoHashes

# Sizes and rates closer than a quarter of an octave (19 %) are the same to the eye: a copy that
# lost its bars has a few pixels less and is not worse for it.
_STEPS_PER_OCTAVE = 4


@dataclass(frozen=True)
class Quality:
    """What makes one copy better than another."""

    pixels: float  # of the picture, without bars
    bits_per_pixel: float  # of the file, per pixel and frame
    duration: float  # seconds

    def rank(self) -> tuple[int, int, float, float]:
        """Larger is better: size in steps, bits per pixel in steps, duration, pixels."""
        steps = _steps(self.pixels), _steps(self.bits_per_pixel)
        return (*steps, self.duration, self.pixels)


@dataclass(frozen=True)
class Dropped:
    """A video that is contained in one that is kept."""

    index: int
    kept: int
    share: float  # of its frames that the kept one has
    distance: float  # mean bits between those frames


def choose_best(
    qualities: Sequence[Quality], matches: Sequence[Match], *, share: float = SHARE
) -> list[Dropped]:
    """Decide which videos to drop, ordered by index; every one is contained in the kept one named.

    A video that is only a part of another gives way to the whole, however good it is; between
    copies of one length the better one stays (`Quality.rank`; the earlier of equals). What was only
    similar to a dropped video is judged again among the rest, so nothing is lost through a chain.

    Args:
        qualities: one for each video that `matches` counts.
        matches: from `duplicate_index.find_matches`, with the same `share`.
        share: of a video's frames that another must have to contain it.
    """
    inside: dict[int, dict[int, Match]] = defaultdict(dict)  # video -> those that contain it
    holds: dict[int, set[int]] = defaultdict(set)
    for match in matches:
        if match.left_share >= share:
            inside[match.left][match.right] = match
            holds[match.right].add(match.left)
        if match.right_share >= share:
            inside[match.right][match.left] = match
            holds[match.left].add(match.right)
    dropped = []
    for group in _groups(inside, holds):
        order = sorted(group, key=lambda video: (_negative(qualities[video].rank()), video))
        while order:
            kept = _next_kept(order, inside, holds)
            for video in order:
                if video != kept and kept in inside[video]:
                    match = inside[video][kept]
                    found = match.left_share if match.left == video else match.right_share
                    dropped.append(Dropped(video, kept, found, match.distance))
            order = [video for video in order if video != kept and kept not in inside[video]]
    return sorted(dropped, key=lambda drop: drop.index)


def find_copies(
    videos: Sequence[VideoHashes],
    qualities: Sequence[Quality],
    *,
    frame_limit: int = FRAME_LIMIT,
    share: float = SHARE,
) -> list[Dropped]:
    """Find near duplicates and choose: what to drop, ordered by index, each with the kept copy.

    A copy among thousands of its kind is compared with some of them only, so that several may be
    left; those are compared with each other again until one is.
    """
    judged = list(range(len(videos)))
    dropped: dict[int, Dropped] = {}
    while len(judged) > 1:
        chosen = [videos[video] for video in judged]
        matches = find_matches(chosen, frame_limit=frame_limit, share=share)
        drops = choose_best([qualities[video] for video in judged], matches, share=share)
        for drop in drops:
            video, kept = judged[drop.index], judged[drop.kept]
            dropped[video] = Dropped(video, kept, drop.share, drop.distance)
        judged = sorted({judged[drop.kept] for drop in drops})
    finals = (_final(videos, dropped, video, frame_limit, share) for video in sorted(dropped))
    return [final for final in finals if final is not None]


def _final(
    videos: Sequence[VideoHashes],
    dropped: dict[int, Dropped],
    video: int,
    frame_limit: int,
    share: float,
) -> Dropped | None:
    """The same with a copy that is really kept; None if that one does not contain the video."""
    drop = dropped[video]
    if drop.kept not in dropped:
        return drop
    kept = drop.kept
    while kept in dropped:
        kept = dropped[kept].kept
    match = compare(videos, video, kept, frame_limit)
    contained = match.left_share >= share
    return Dropped(video, kept, match.left_share, match.distance) if contained else None


def _groups(inside: dict[int, dict[int, Match]], holds: dict[int, set[int]]) -> Iterator[list[int]]:
    """Yield the videos that are connected by containment, each group once."""
    left = set(inside) | set(holds)
    while left:
        group, found = [], [left.pop()]
        while found:
            video = found.pop()
            group.append(video)
            near = (inside[video].keys() | holds[video]) & left
            left -= near
            found += near
        yield group


def _next_kept(
    order: Sequence[int], inside: dict[int, dict[int, Match]], holds: dict[int, set[int]]
) -> int:
    """The best video that is not a mere part of another one."""
    left = set(order)
    for video in order:
        if not (inside[video].keys() - holds[video]) & left:
            return video
    return order[0]  # parts of each other in a ring


def _negative(rank: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(-value for value in rank)


def _steps(value: float) -> int:
    return round(log2(max(value, 1e-9)) * _STEPS_PER_OCTAVE)
