"""Shots: what transitions leave of a video, and which frame is shown when."""

from fractions import Fraction
from pathlib import Path

import pytest
from numbered_video import write_numbered
from video_files import cut_short

from ttvcli.core.video.errors import UnreadableVideo
from ttvcli.core.video.shots import Clock, NoDetector, Shot, Transition, find_shots, split_at
from ttvcli.core.video.timeline import TimedFrame


def test_a_cut_ends_one_shot_and_begins_the_next() -> None:
    assert split_at(10, [Transition(4, 4)]) == [Shot(0, 4), Shot(4, 10)]


def test_frames_of_a_transition_belong_to_no_shot() -> None:
    assert split_at(10, [Transition(0, 2), Transition(5, 7), Transition(9, 10)]) == [
        Shot(2, 5),
        Shot(7, 9),
    ]


def test_transitions_may_come_in_any_order_overlap_and_repeat() -> None:
    found = [Transition(6, 8), Transition(2, 7), Transition(6, 8), Transition(3, 4)]
    assert split_at(10, found) == [Shot(0, 2), Shot(8, 10)]


def test_a_video_that_is_all_transition_has_no_shot() -> None:
    assert split_at(5, [Transition(0, 5)]) == []


@pytest.mark.parametrize("bad", [Transition(4, 11), Transition(-1, 2), Transition(5, 3)])
def test_a_transition_outside_the_video_is_refused(bad: Transition) -> None:
    with pytest.raises(ValueError, match="outside a video of 10"):
        split_at(10, [bad])


def test_the_nearest_frame_never_leaves_the_shot() -> None:
    clock = Clock([0, 100, 200, 300], 400)
    assert [clock.nearest(Fraction(t), Shot(1, 3)) for t in (0, 140, 160, 390)] == [1, 1, 2, 2]


def test_the_earlier_frame_wins_a_tie_whichever_way_times_were_rounded() -> None:
    shot = Shot(0, 3)
    for times in ([0, 33_333, 66_667], [0, 33_334, 66_666]):
        clock = Clock(times, 100_000)
        assert clock.nearest(Fraction(50_000), shot) == 1


def test_a_clock_that_ends_before_its_last_frame_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot end"):
        Clock([0, 100], 100)


def test_one_pass_gives_times_and_length(tmp_path: Path) -> None:
    path = write_numbered(tmp_path / "a.mp4", [5], times=[0, 40, 120, 130, 300], fps=25)
    seen = 0

    def count(frame: TimedFrame) -> None:
        nonlocal seen
        seen += 1

    found = find_shots(path, NoDetector(), count)
    assert list(found.clock.times) == [0, 40_000, 120_000, 130_000, 300_000]
    assert found.clock.end > 300_000
    assert found.shots == [Shot(0, 5)]
    assert seen == 5


def test_damage_is_found_before_anything_is_cut(tmp_path: Path) -> None:
    whole = write_numbered(tmp_path / "a.mkv", [40])
    with pytest.raises(UnreadableVideo):
        find_shots(cut_short(whole, tmp_path / "b.mkv", 0.5), NoDetector())
