"""Hard cuts, by the difference of neighbouring frames: is any shot long enough for a segment?

Fades and dissolves are not found here; `ttv prep split` looks for them where the video is used.
"""

from dataclasses import dataclass, field

from ttvcli.core.filters.filter import AllMetrics, Clip, Filter, Metrics, Rule, rounded
from ttvcli.core.filters.frame_view import FrameView

_JUMP = 20.0  # levels of mean difference
_OVER = 3.0  # times the differences around it: fast motion is no cut


def is_jump(before: float, here: float, after: float = 0.0) -> bool:
    """Whether a difference of frames stands out from those around it as that of a cut does."""
    return here > _JUMP and here > _OVER * max(before, after, 1.0)


@dataclass(frozen=True, kw_only=True)
class CutsLimits:
    """Thresholds."""

    shot: float | None = field(
        default=3.0, metadata={"help": "seconds that the longest shot lasts, at least"}
    )
    max: float | None = field(default=30.0, metadata={"help": "cuts a minute, at most"})


class CutsMeter:
    """Compares each difference with those before and after it."""

    def __init__(self) -> None:
        self._before = self._here = 0.0  # the last two differences
        self._time = 0.0  # of the frame that `_here` leads to
        self._began = 0.0
        self._cuts = 0
        self._longest = 0.0

    def see(self, view: FrameView) -> None:
        """Take in the difference to the frame before."""
        change = view.change or 0.0
        self._decide(change)
        self._before, self._here, self._time = self._here, change, view.time

    def finish(self, clip: Clip) -> Metrics:
        """Return the number of cuts, cuts a minute, and the longest shot in seconds."""
        self._decide(0.0)
        seconds = float(clip.duration)
        longest = max(self._longest, seconds - self._began)
        return {
            "cuts": self._cuts,
            "per_minute": rounded(60 * self._cuts / seconds if seconds else None, 2),
            "longest_shot": rounded(longest),
        }

    def _decide(self, after: float) -> None:
        if is_jump(self._before, self._here, after):
            self._cuts += 1
            self._longest = max(self._longest, self._time - self._began)
            self._began = self._time


def no_longer_than_a_shot(metrics: AllMetrics) -> bool:
    """Whether the whole video is too short anyway, which is said elsewhere."""
    return not metrics["cuts"]["cuts"]


FILTER = Filter(
    name="cuts",
    about="too many cuts",
    limits=CutsLimits,
    version=2,
    meter=CutsMeter,
    rules=(
        Rule("longest_shot", "below", "shot", "short_shots", " s", unless=no_longer_than_a_shot),
        Rule("per_minute", "above", "max", "many_cuts", " a minute"),
    ),
)
