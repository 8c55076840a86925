"""The copy that is kept is the best one, and every dropped video is contained in a kept one."""

from ttvcli.core.filters.duplicate_groups import Quality, choose_best, find_copies
from ttvcli.core.filters.duplicate_index import Match
from ttvcli.workflows.bench_data_duplicates import altered, random_videos

HD = Quality(1280 * 720, 0.1, 5.0)


def match(left: int, right: int, left_share: float = 1.0, right_share: float = 1.0) -> Match:
    return Match(left, right, left_share, right_share, 6.0)


def kept_for(qualities: list[Quality], *matches: Match) -> dict[int, int]:
    return {drop.index: drop.kept for drop in choose_best(qualities, matches)}


def test_the_larger_copy_stays() -> None:
    assert kept_for([Quality(640 * 360, 0.3, 5.0), HD], match(0, 1)) == {0: 1}


def test_among_equal_sizes_the_one_with_more_bits_stays() -> None:
    assert kept_for([HD, Quality(HD.pixels, 0.2, 5.0)], match(0, 1)) == {0: 1}


def test_a_few_pixels_more_do_not_outweigh_bits() -> None:
    assert kept_for([Quality(1300 * 730, 0.02, 5.0), HD], match(0, 1)) == {0: 1}


def test_the_longer_one_of_two_equals_stays() -> None:
    assert kept_for([HD, Quality(HD.pixels, 0.1, 5.5)], match(0, 1)) == {0: 1}


def test_the_first_of_exact_equals_stays() -> None:
    assert kept_for([HD, HD, HD], match(0, 1), match(0, 2), match(1, 2)) == {1: 0, 2: 0}


def test_a_whole_film_is_never_dropped_for_a_better_looking_part_of_it() -> None:
    film, part = Quality(640 * 360, 0.05, 60.0), Quality(1920 * 1080, 0.3, 3.0)
    assert kept_for([film, part], match(0, 1, left_share=0.05)) == {1: 0}


def test_two_different_parts_of_one_film_give_way_to_the_film() -> None:
    film = Quality(HD.pixels, 0.1, 60.0)
    parts = [match(0, 1, 0.1, 1.0), match(0, 2, 0.1, 1.0)]
    assert kept_for([film, HD, HD], *parts) == {1: 0, 2: 0}


def test_what_is_only_like_a_dropped_video_stays() -> None:
    # 0 and 1 are copies, 1 and 2 too, but 2 has nothing in common with 0.
    best = Quality(1920 * 1080, 0.1, 5.0)
    assert kept_for([best, HD, HD], match(0, 1), match(1, 2)) == {1: 0}


def test_a_ring_of_parts_is_resolved() -> None:
    ring = [match(0, 1, 1.0, 0.1), match(1, 2, 1.0, 0.1), match(0, 2, 0.1, 1.0)]
    dropped = kept_for([HD, HD, HD], *ring)
    assert set(dropped.values()).isdisjoint(dropped)


def test_the_share_and_distance_of_a_dropped_video_are_told() -> None:
    (drop,) = choose_best([HD, Quality(100, 0.1, 5.0)], [match(0, 1, 0.8, 0.9)])
    assert (drop.index, drop.kept, drop.share, drop.distance) == (1, 0, 0.9, 6.0)


def test_of_hundreds_of_copies_one_stays_and_every_other_names_it() -> None:
    (video,) = random_videos(1, seed=0, frames=4)
    copies = [altered(video, 3, seed=index) for index in range(300)]
    others = random_videos(20, seed=1, frames=4)
    qualities = [HD] * 320
    qualities[217] = Quality(1920 * 1080, 0.1, 5.0)
    drops = find_copies(copies + others, qualities)
    assert [drop.index for drop in drops] == [index for index in range(300) if index != 217]
    assert {drop.kept for drop in drops} == {217}
