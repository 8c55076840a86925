"""Repairing presentation times."""

from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import pytest

from ttvcli.core.video.timeline import repaired_times


@dataclass
class Frame:
    pts: int | None
    duration: int | None = None
    time_base: Fraction | None = Fraction(1, 100)


def times(*stamps: int | None) -> list[float]:
    frames = [Frame(stamp) for stamp in stamps]
    return [frame.seconds for frame in repaired_times(frames, Fraction(1, 10))]


def test_the_first_frame_is_at_zero() -> None:
    assert times(54, 64, 84) == [0, 0.1, 0.3]


def test_negative_times_are_ordinary_times() -> None:
    assert times(-20, -10, 5) == [0, 0.1, 0.25]


def test_missing_times_continue_at_the_nominal_rate() -> None:
    assert times(None, None, None) == [0, 0.1, 0.2]
    assert times(10, None, 30) == [0, 0.1, 0.2]


def test_a_clock_that_jumps_back_goes_on_from_where_it_was() -> None:
    assert times(0, 10, 0, 10) == [0, 0.1, 0.2, pytest.approx(0.3)]


def test_a_clock_that_leaps_ahead_goes_on_from_where_it_was() -> None:
    assert times(0, 10, 10**9, 10**9 + 5) == [0, 0.1, 0.2, pytest.approx(0.25)]


def test_times_always_increase() -> None:
    found = times(5, 5, 4, None, 4, 100, 99)
    assert all(b > a for a, b in pairwise(found))


def test_implausible_durations_are_replaced_by_the_nominal_one() -> None:
    frames = [Frame(0, 20), Frame(10, 10**9), Frame(20, None)]
    found = [frame.end - frame.time for frame in repaired_times(frames, Fraction(1, 10))]
    assert found == [Fraction(1, 5), Fraction(1, 10), Fraction(1, 10)]


def test_times_are_exact_whatever_the_unit_of_the_file() -> None:
    base, period = Fraction(1001, 30000), Fraction(1, 24)
    frames = [Frame(7, 1, base), Frame(8, 1, base), Frame(None, None, base), Frame(99, 0, base)]
    found = [(frame.time, frame.end - frame.time) for frame in repaired_times(frames, period)]
    times = [Fraction(0), base, base + period, 92 * base]
    assert found == list(zip(times, [base, base, period, period], strict=True))


def test_a_unit_that_changes_on_the_way_changes_no_time() -> None:
    stamps = [(0, Fraction(1, 10)), (10, Fraction(1, 100)), (None, None), (60, Fraction(1, 200))]
    frames = [Frame(pts, None, base) for pts, base in stamps]
    found = list(repaired_times(frames, Fraction(1, 10)))
    assert [frame.time for frame in found] == [Fraction(n, 10) for n in range(4)]
    rates = [frame.rate for frame in found]
    assert all(later % earlier == 0 for earlier, later in pairwise(rates))


def test_a_period_must_be_positive() -> None:
    with pytest.raises(ValueError, match="positive"):
        list(repaired_times([Frame(0)], Fraction(0)))
