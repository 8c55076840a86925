"""Scenes to segments to clips: the rules, on clocks without a video."""

from fractions import Fraction
from itertools import pairwise

import pytest

from ttvcli.core.video.segments import (
    Segment,
    SegmentRule,
    assemble,
    clip_frames,
    cut_scenes,
    held_frames,
)
from ttvcli.core.video.shots import MICRO, Clock, Shot

RULE = SegmentRule(frames=48, fps=Fraction(16))


def clock(frames: int, fps: Fraction | int = 16) -> Clock:
    times = [round(n * MICRO / Fraction(fps)) for n in range(frames + 1)]
    return Clock(times[:-1], times[-1])


def starts(segments: list[Segment]) -> list[float]:
    return [round(float(segment.start) / MICRO, 4) for segment in segments]


def test_what_is_over_is_cut_away_evenly_at_both_ends() -> None:
    segments, dropped = cut_scenes(clock(116), [Shot(0, 116)], RULE)  # 7.25 s
    assert starts(segments) == [0.625, 3.625]
    assert [(s.scene, s.number, s.of) for s in segments] == [(0, 0, 2), (0, 1, 2)]
    assert dropped == []


def test_segments_of_a_scene_follow_each_other_without_a_gap() -> None:
    time = clock(116)
    segments, _ = cut_scenes(time, [Shot(0, 116)], RULE)
    shown = [clip_frames(time, [segment], RULE)[:48] for segment in segments]
    assert shown[0] + shown[1] == list(range(10, 106))


def test_an_odd_surplus_starts_at_a_frame() -> None:
    time = clock(53)
    ((segment,), _) = cut_scenes(time, [Shot(0, 53)], RULE)
    assert clip_frames(time, [segment], RULE) == list(range(2, 51))


def test_short_scenes_are_dropped_with_their_reason() -> None:
    shots = [Shot(0, 20), Shot(20, 60), Shot(60, 120)]
    segments, dropped = cut_scenes(clock(120), shots, SegmentRule(48, Fraction(16), shortest=2.0))
    assert [segment.scene for segment in segments] == [2]
    assert [(d.scene, d.length, d.reason) for d in dropped] == [
        (0, 1_250_000, "under_shortest"),
        (1, 2_500_000, "under_one_segment"),
    ]


def test_a_scene_under_a_segment_can_hold_its_last_frame() -> None:
    rule = SegmentRule(48, Fraction(16), shortest=2.0, hold=True)
    time = clock(60)
    segments, dropped = cut_scenes(time, [Shot(0, 20), Shot(20, 60)], rule)
    assert [d.scene for d in dropped] == [0]
    assert clip_frames(time, segments, rule) == [*range(20, 60), *[59] * 9]
    assert held_frames(time, segments, rule) == 9


@pytest.mark.parametrize(("frames", "held"), [(48, 1), (49, 0), (50, 0), (60, 0)])
def test_the_frame_after_a_segment_is_of_its_scene_or_the_last_one_held(
    frames: int, held: int
) -> None:
    time = clock(frames + 10)
    ((segment,), _) = cut_scenes(time, [Shot(0, frames)], RULE)
    shown = clip_frames(time, [segment], RULE)
    assert len(shown) == 49
    assert max(shown) < frames
    assert held_frames(time, [segment], RULE) == held == 49 - len(set(shown))


def test_no_frame_of_another_scene_is_shown_at_any_frame_rate() -> None:
    for fps in (Fraction(24000, 1001), Fraction(25), Fraction(30), Fraction(60), Fraction(10)):
        cut = round(4 * fps)
        time = clock(2 * cut, fps)
        shots = [Shot(0, cut), Shot(cut, 2 * cut)]
        segments, _ = cut_scenes(time, shots, RULE)
        for segment in segments:
            shown = clip_frames(time, [segment], RULE)
            shot = shots[segment.scene]
            assert shot.first <= min(shown)
            assert max(shown) < shot.end
            assert shown == sorted(shown)


def test_a_higher_rate_is_thinned_evenly() -> None:
    time = clock(200, 32)
    ((segment, _), _) = cut_scenes(time, [Shot(0, 200)], RULE)
    shown = clip_frames(time, [segment], RULE)
    assert {b - a for a, b in pairwise(shown)} == {2}


def test_a_variable_rate_is_shown_by_time() -> None:
    times = [0, 500_000, 600_000, 2_900_000]
    time = Clock(times, 3_000_000)
    rule = SegmentRule(frames=6, fps=Fraction(2))
    ((segment,), _) = cut_scenes(time, [Shot(0, 4)], rule)
    assert clip_frames(time, [segment], rule) == [0, 1, 2, 2, 3, 3, 3]


def test_a_margin_keeps_away_from_cuts_and_not_from_the_ends_of_the_video() -> None:
    rule = SegmentRule(48, Fraction(16), margin=0.5)
    segments, _ = cut_scenes(clock(112), [Shot(0, 56), Shot(56, 112)], rule)
    assert starts(segments) == [0.0, 4.0]
    assert [(s.shot.first, s.shot.end) for s in segments] == [(0, 48), (64, 112)]


def test_clips_are_made_of_consecutive_segments() -> None:
    segments, _ = cut_scenes(clock(480), [Shot(0, 240), Shot(240, 480)], RULE)
    assert len(segments) == 10
    across = assemble(segments, 3, within_scene=False)
    assert [[s.scene for s in clip] for clip in across] == [[0] * 3, [0, 0, 1], [1] * 3]
    within = assemble(segments, 3, within_scene=True)
    assert [[(s.scene, s.number) for s in clip] for clip in within] == [
        [(0, 0), (0, 1), (0, 2)],
        [(1, 0), (1, 1), (1, 2)],
    ]


def test_a_long_clip_shows_each_segment_from_its_own_place() -> None:
    time = clock(160)
    shots = [Shot(0, 60), Shot(60, 90), Shot(90, 160)]
    segments, _ = cut_scenes(time, shots, RULE)
    (clip,) = assemble(segments, 2, within_scene=False)
    assert clip_frames(time, clip, RULE) == [*range(6, 54), *range(101, 150)]
    assert held_frames(time, clip, RULE) == 0


@pytest.mark.parametrize(("frames", "fps"), [(0, 16), (48, 0)])
def test_an_empty_segment_is_refused(frames: int, fps: int) -> None:
    with pytest.raises(ValueError, match="needs frames"):
        SegmentRule(frames, Fraction(fps))


def test_a_clip_without_segments_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        assemble([], 0, within_scene=False)
