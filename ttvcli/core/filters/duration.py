"""How long a video really lasts, by the times of its decoded frames."""

from dataclasses import dataclass, field

from ttvcli.core.filters.filter import Clip, Filter, Metrics, Rule, rounded

SEGMENT_SECONDS = 3


@dataclass(frozen=True, kw_only=True)
class DurationLimits:
    """Thresholds in seconds."""

    min: float | None = field(default=3.0, metadata={"help": "seconds, at least: one segment"})
    max: float | None = field(default=None, metadata={"help": "seconds, at most"})


def measure_duration(clip: Clip) -> Metrics:
    """Return the length in seconds, and how many whole segments of 3 s it has."""
    seconds = float(clip.duration)
    return {"seconds": rounded(seconds), "segments": int(clip.duration // SEGMENT_SECONDS)}


FILTER = Filter(
    name="duration",
    about="too short",
    limits=DurationLimits,
    facts=measure_duration,
    rules=(
        Rule("seconds", "below", "min", "too_short", " s"),
        Rule("seconds", "above", "max", "too_long", " s"),
    ),
)
