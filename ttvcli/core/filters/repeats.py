"""Frames that repeat the one before: frozen pictures, and slow motion made of repeated frames."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ttvcli.core.filters.filter import AllMetrics, Clip, Filter, Finding, Metrics, Rule, rounded
from ttvcli.core.filters.frame_view import FrameView

_SAME = 0.3  # mean difference in levels, up to which a frame repeats the one before
_FREEZE = 0.5  # seconds from which repeats are a frozen picture


@dataclass(frozen=True, kw_only=True)
class RepeatsLimits:
    """Thresholds."""

    frozen: float | None = field(
        default=0.5, metadata={"help": "share of the time in frozen pictures, at most"}
    )
    repeated: float | None = field(
        default=0.5, metadata={"help": "share of repeated frames in a moving video, at most"}
    )
    moving: float = field(
        default=0.3, metadata={"help": "motion from which repeats are slow motion, % a second"}
    )


class RepeatsMeter:
    """Counts repeats, and adds up the runs that are long enough to be seen."""

    def __init__(self) -> None:
        self._repeats = 0
        self._frames = 0
        self._since: float | None = None  # time of the picture that is being repeated
        self._time = 0.0
        self._frozen = 0.0
        self._longest = 0.0

    def see(self, view: FrameView) -> None:
        """Compare with the frame before."""
        self._frames += 1
        if view.change is not None and view.change < _SAME:
            self._repeats += 1
            self._since = self._time if self._since is None else self._since
        else:
            self._end(view.time)
        self._time = view.time

    def finish(self, clip: Clip) -> Metrics:
        """Return shares of repeated frames and of frozen time, and the longest freeze."""
        seconds = float(clip.duration)
        self._end(seconds)
        steps = self._frames - 1
        return {
            "repeated": rounded(self._repeats / steps if steps else None),
            "frozen": rounded(self._frozen / seconds if seconds else None),
            "longest": rounded(self._longest),
        }

    def _end(self, time: float) -> None:
        if self._since is not None and time - self._since >= _FREEZE:
            self._frozen += time - self._since
            self._longest = max(self._longest, time - self._since)
        self._since = None


def judge_slow_motion(metrics: AllMetrics, limits: Any) -> Iterator[Finding]:
    """Find videos that move, and yet repeat most of their frames."""
    share = metrics["repeats"].get("repeated")
    speed = metrics.get("motion", {}).get("speed")
    if share is None or speed is None or limits.repeated is None:
        return
    if share > limits.repeated and speed > limits.moving:
        text = (
            f"{share:.0%} of the frames repeat the one before, the limit is {limits.repeated:.0%}"
        )
        yield Finding("repeated_frames", text)


FILTER = Filter(
    name="repeats",
    about="frozen pictures, slow motion by repeated frames",
    limits=RepeatsLimits,
    version=2,
    meter=RepeatsMeter,
    rules=(Rule("frozen", "above", "frozen", "frozen"),),
    judge=judge_slow_motion,
)
