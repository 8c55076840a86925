"""Frames per second as they really come, and whether they come evenly."""

from dataclasses import dataclass, field

from ttvcli.core.filters.filter import Clip, Filter, Metrics, Rule, rounded


@dataclass(frozen=True, kw_only=True)
class FpsLimits:
    """Thresholds."""

    min: float | None = field(default=15.0, metadata={"help": "frames per second, at least"})
    slow_motion: float | None = field(
        default=100.0, metadata={"help": "from here on slow motion is suspected (a flag)"}
    )
    unevenness: float | None = field(
        default=1.5, metadata={"help": "longest over shortest gap between frames (a flag)"}
    )
    max_slowdown: float | None = field(
        default=1.5, metadata={"help": "rate of the camera over rate of the file, at most"}
    )


def measure_fps(clip: Clip) -> Metrics:
    """Return the mean rate, the ratio of the extreme gaps, and the slow-down a camera wrote."""
    mean = float(clip.frames / clip.duration) if clip.duration else None
    gaps = float(clip.longest / clip.shortest) if clip.shortest else None
    slow = clip.capture_fps / mean if clip.capture_fps and mean else None
    return {"mean": rounded(mean), "unevenness": rounded(gaps), "slowdown": rounded(slow)}


FILTER = Filter(
    name="fps",
    about="too few frames a second, slow motion by the camera's own word",
    limits=FpsLimits,
    facts=measure_fps,
    rules=(
        Rule("mean", "below", "min", "low_fps", " fps"),
        Rule("slowdown", "above", "max_slowdown", "slow_motion", " times"),
        Rule("mean", "above", "slow_motion", "high_fps", " fps", drop=False),
        Rule("unevenness", "above", "unevenness", "variable_fps", drop=False),
    ),
)
