"""How large the picture is, without bars around it, upright and in square pixels."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ttvcli.core.filters.filter import AllMetrics, Clip, Filter, Finding, Metrics, Rule, rounded


@dataclass(frozen=True, kw_only=True)
class SizeLimits:
    """Thresholds in pixels."""

    min: float | None = field(default=480.0, metadata={"help": "pixels of the shorter side"})
    max_aspect: float | None = field(
        default=3.0, metadata={"help": "longer over shorter side, at most"}
    )


def measure_size(clip: Clip) -> Metrics:
    """Return the shown size, its shorter side and the ratio of the sides."""
    width, height = clip.info.width, clip.info.height
    short, long = sorted((width, height))
    return {"width": width, "height": height, "short": short, "aspect": rounded(long / short)}


def judge_content(metrics: AllMetrics, limits: Any) -> Iterator[Finding]:
    """Find pictures that are large enough only with their bars."""
    own, bars = metrics["size"], metrics.get("bars")
    if limits.min is None or not bars or not bars.get("share") or own["short"] < limits.min:
        return
    inside = min(
        own["width"] * (1 - bars["left"] - bars["right"]),
        own["height"] * (1 - bars["top"] - bars["bottom"]),
    )
    if inside < limits.min:
        text = f"{inside:.0f} pixels between its bars, the limit is {limits.min:.4g}"
        yield Finding("too_small", text)


FILTER = Filter(
    name="size",
    about="too small, or a strip",
    limits=SizeLimits,
    facts=measure_size,
    rules=(
        Rule("short", "below", "min", "too_small", " pixels"),
        Rule("aspect", "above", "max_aspect", "strip"),
    ),
    judge=judge_content,
)
