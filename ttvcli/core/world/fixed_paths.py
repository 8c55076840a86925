"""A few paths for each motion, for worlds that a small model learns within hours.

Objects of one size start at nine places, a quarter of the frame apart, and straight paths, hops and
orbits lead from one of these places to another; growing and shrinking happen in the middle.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

PLACES = (0.25, 0.5, 0.75)  # of an object's centre, across and down
RADIUS = 0.23  # the largest that keeps clear of the border at the outer places
SMALL_RADIUS, LARGE_RADIUS = 0.14, 0.34  # before and after growing
_TRAVEL = PLACES[-1] - PLACES[0]
_SAME = 1e-3  # places this near are one: scenes round to 1e-4


@dataclass(frozen=True)
class Path:
    """Where a motion starts, and its numbers as `WorldObject` names them."""

    x: float
    y: float
    radius: float = RADIUS
    numbers: dict[str, float] = field(default_factory=dict)

    def starts_at(self, x: float, y: float, radius: float) -> bool:
        """Whether an object that is there can take this path without a jump."""
        ways = (self.x - x, self.y - y, self.radius - radius)
        return all(abs(way) < _SAME for way in ways)


@lru_cache(maxsize=16)
def paths_of(motion: str) -> tuple[Path, ...]:
    """Return all paths of a motion, one at least."""
    return tuple(_paths(motion))


def _paths(motion: str) -> Iterator[Path]:
    low, middle, high = PLACES
    if motion in ("left", "right"):
        start, way = (high, -_TRAVEL) if motion == "left" else (low, _TRAVEL)
        yield from (Path(start, lane, numbers={"dx": way}) for lane in PLACES)
    elif motion in ("up", "down"):
        start, way = (high, -_TRAVEL) if motion == "up" else (low, _TRAVEL)
        yield from (Path(lane, start, numbers={"dy": way}) for lane in PLACES)
    elif motion == "bounce":
        hops = {"extent": _TRAVEL, "turns": 2}
        yield from (Path(lane, high, numbers=hops) for lane in PLACES)
    elif motion == "circle":
        starts = ((high, middle), (middle, high), (low, middle), (middle, low))
        for quarter, (x, y) in enumerate(starts):
            for turns in (1, -1):
                orbit = {"extent": _TRAVEL / 2, "turns": turns, "phase": quarter / 4}
                yield Path(x, y, numbers=orbit)
    elif motion in ("grow", "shrink"):
        first, last = SMALL_RADIUS, LARGE_RADIUS
        if motion == "shrink":
            first, last = last, first
        yield Path(middle, middle, first, {"scale": round(last / first, 4)})
    else:
        yield from (Path(x, y) for x in PLACES for y in PLACES)
