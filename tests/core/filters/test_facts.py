"""Filters that need no frame: duration, size, frame rate, bits."""

from fractions import Fraction
from typing import Any

import pytest
from filter_views import clip

from ttvcli.core.filters import bitrate, duration, fps, size
from ttvcli.core.filters.filter import Clip, Filter


def judged(entry: Filter, seen: Clip, others: Any = None, **limits: Any) -> dict[str, bool]:
    """Codes that a filter finds, and whether they drop the video."""
    assert entry.facts is not None
    metrics = {entry.name: entry.facts(seen), **(others or {})}
    return {f.code: f.drop for f in entry.findings(metrics, entry.limits(**limits))}


@pytest.mark.parametrize(
    ("seconds", "codes"), [("2.99", {"too_short": True}), ("3", {}), ("100", {})]
)
def test_less_than_one_segment_is_too_short(seconds: str, codes: dict[str, bool]) -> None:
    assert judged(duration.FILTER, clip(duration=Fraction(seconds))) == codes


def test_a_longest_length_may_be_set() -> None:
    assert judged(duration.FILTER, clip(duration=Fraction(61)), max=60) == {"too_long": True}


@pytest.mark.parametrize(
    ("shown", "codes"),
    [((720, 480), {}), ((480, 720), {}), ((720, 479), {"too_small": True})],
)
def test_the_shorter_side_counts(shown: tuple[int, int], codes: dict[str, bool]) -> None:
    assert judged(size.FILTER, clip(width=shown[0], height=shown[1])) == codes


def test_a_strip_is_dropped_and_none_switches_a_rule_off() -> None:
    strip = clip(width=2000, height=500)
    assert judged(size.FILTER, strip) == {"strip": True}
    assert judged(size.FILTER, strip, max_aspect=None) == {}


def test_the_rate_is_that_of_the_frames_not_of_the_header() -> None:
    assert judged(fps.FILTER, clip(frames=40, fps=Fraction(30))) == {"low_fps": True}
    assert judged(fps.FILTER, clip(frames=480)) == {"high_fps": False}


def test_uneven_gaps_are_flagged() -> None:
    uneven = clip(shortest=Fraction(33, 1000), longest=Fraction(185, 1000))
    assert judged(fps.FILTER, uneven) == {"variable_fps": False}


def test_slow_motion_of_a_phone_is_dropped_by_its_own_tag() -> None:
    assert judged(fps.FILTER, clip(capture_fps=240.0)) == {"slow_motion": True}


@pytest.mark.parametrize(
    ("size_in_bytes", "codes"),
    [(100_000, {"low_bitrate": True}), (140_000, {"low_bitrate": False}), (300_000, {})],
)
def test_few_bits_for_the_pixels(size_in_bytes: int, codes: dict[str, bool]) -> None:
    assert judged(bitrate.FILTER, clip(video_bytes=size_in_bytes)) == codes


def test_newer_codecs_need_fewer_bits() -> None:
    assert judged(bitrate.FILTER, clip(video_bytes=100_000, codec="hevc")) == {"low_bitrate": False}


def test_a_still_picture_needs_few_bits() -> None:
    few = clip(video_bytes=50_000)
    assert judged(bitrate.FILTER, few, {"motion": {"speed": 0.2}}) == {}
    assert judged(bitrate.FILTER, few, {"motion": {"speed": 3.0}}) == {"low_bitrate": True}
