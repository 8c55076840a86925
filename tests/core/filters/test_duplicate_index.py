"""The index finds what a comparison of everything with everything finds, for less work."""

import numpy as np
import pytest

from ttvcli.core.filters import duplicate_index
from ttvcli.core.filters.duplicate_index import (
    candidate_pairs,
    comparable,
    find_matches,
    key_bits,
    table_count,
)
from ttvcli.core.filters.frame_hashes import VideoHashes
from ttvcli.workflows.bench_data_duplicates import altered, random_videos


def pairs_of(videos: list[VideoHashes]) -> set[tuple[int, int]]:
    return {(match.left, match.right) for match in find_matches(videos)}


@pytest.mark.parametrize("bits", [0, 8, 16, 24])
def test_copies_are_found_up_to_the_design_distance(bits: int) -> None:
    videos = random_videos(200, seed=0)
    copies = [altered(video, bits, seed=index) for index, video in enumerate(videos)]
    assert pairs_of(videos + copies) == {(index, index + 200) for index in range(200)}


def test_nothing_is_found_among_different_videos() -> None:
    assert pairs_of(random_videos(500, seed=1)) == set()


def test_every_near_pair_of_a_full_comparison_is_a_candidate() -> None:
    videos = random_videos(60, seed=2, frames=4)
    videos += [altered(video, bits, seed=7) for bits, video in enumerate(videos[:28])]
    expected = set()
    for left in range(len(videos)):
        for right in range(left + 1, len(videos)):
            match = duplicate_index.compare(videos, left, right, 31)
            if match.left_share or match.right_share:
                expected.add((left, right))
    assert {tuple(pair) for pair in candidate_pairs(videos).tolist()} == expected


def test_a_trimmed_copy_is_contained_in_its_source_and_not_the_other_way() -> None:
    video = random_videos(1, seed=3, frames=20)[0]
    part = VideoHashes(video.hashes[6:12], video.counts[6:12])
    (match,) = find_matches([video, part])
    assert (match.left_share, match.right_share) == (0.3, 1.0)


def test_videos_with_a_common_title_card_are_not_duplicates() -> None:
    videos = random_videos(300, seed=4)
    card = videos[0].hashes[:1]
    carded = [
        VideoHashes(np.concatenate([card, video.hashes]), np.insert(video.counts, 0, 4))
        for video in videos[1:]
    ]
    assert pairs_of(carded) == set()


def test_plain_videos_are_not_comparable() -> None:
    one = random_videos(1, seed=5, frames=3)[0]
    mostly_plain = VideoHashes(one.hashes, one.counts, flat=7)
    assert not comparable(mostly_plain)
    assert pairs_of([mostly_plain, mostly_plain]) == set()


def test_shares_count_the_time_a_hash_stands_for() -> None:
    video = random_videos(1, seed=6, frames=4)[0]
    still = VideoHashes(video.hashes[:2], np.array([30, 1], np.uint16))
    other = VideoHashes(video.hashes[:1], np.array([5], np.uint16))
    (match,) = find_matches([still, other])
    assert match.left_share == pytest.approx(30 / 31)


def test_work_grows_with_the_collection_and_not_with_its_square() -> None:
    # members of a random bucket, and tables by n^0.14
    for hashes in (10_000, 100_000, 1_000_000):
        assert hashes / 2 ** key_bits(hashes) <= 1
    assert table_count(key_bits(1_000_000)) <= 2 * table_count(key_bits(10_000))


def test_a_picture_in_every_video_does_not_make_every_pair_a_candidate() -> None:
    video = random_videos(1, seed=8, frames=3)[0]
    found = candidate_pairs([video] * 400)
    assert len(found) < 400 * duplicate_index.MOST_NEIGHBOURS
    assert {0} | set(found[:, 1].tolist()) == set(range(400))


def test_wrong_limits_are_refused() -> None:
    with pytest.raises(ValueError, match="got 65"):
        find_matches([], frame_limit=65)
    with pytest.raises(ValueError, match="got 0"):
        find_matches([], share=0)
