"""Repeated frames: frozen pictures, and slow motion made by repeating."""

import numpy as np
from filter_views import metrics_of, texture

from ttvcli.core.filters.repeats import FILTER, RepeatsLimits, RepeatsMeter


def moving(count: int) -> list[np.ndarray]:
    large = texture(90, 400)
    return [large[:, 2 * n : 2 * n + 160] for n in range(count)]


def test_moving_frames_repeat_nothing() -> None:
    found = metrics_of(RepeatsMeter(), moving(48))
    assert found == {"repeated": 0, "frozen": 0, "longest": 0}


def test_a_freeze_is_measured_in_seconds() -> None:
    frames = moving(48)
    found = metrics_of(RepeatsMeter(), [*frames[:24], *[frames[24]] * 24, *frames[24:]], fps=24)
    # shown at 1 s and repeated up to 2 s, when frame 24 comes once more and then the next
    assert found["longest"] == 25 / 24 or found["longest"] == round(25 / 24, 3)
    assert found["frozen"] == round(25 / 24 / 3, 3)


def test_a_freeze_at_the_end_counts() -> None:
    frames = moving(24)
    found = metrics_of(RepeatsMeter(), [*frames, *[frames[-1]] * 24], fps=24)
    assert found["frozen"] > 0.5
    assert [f.code for f in FILTER.findings({"repeats": found}, RepeatsLimits())] == ["frozen"]


def test_frames_shown_four_times_are_slow_motion_if_something_moves() -> None:
    frames = [frame for frame in moving(24) for _ in range(4)]
    found = metrics_of(RepeatsMeter(), frames)
    assert 0.7 < found["repeated"] < 0.8
    assert found["frozen"] == 0  # no repeat lasts long enough to be a freeze

    def codes(speed: float | None) -> list[str]:
        metrics = {"repeats": found, "motion": {"speed": speed}}
        return [entry.code for entry in FILTER.findings(metrics, RepeatsLimits())]

    assert codes(5.0) == ["repeated_frames"]
    assert codes(0.1) == []
    assert codes(None) == []


def test_one_frame_has_no_share() -> None:
    assert metrics_of(RepeatsMeter(), moving(1))["repeated"] is None
