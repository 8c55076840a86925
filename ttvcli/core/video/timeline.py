"""Presentation times one can rely on: from zero, strictly increasing, with missing ones filled in.

Containers deliver frames without a time (raw streams, MPEG-1), times that jump backwards (joined
recordings) or leap hours ahead (a broken clock). Everything after this module sees one clock.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from math import lcm
from typing import Generic, Protocol, TypeVar

# A longer pause between two frames is a broken clock, not a still picture.
LONGEST_HOLD = 60  # seconds


class Stamped(Protocol):
    """What a decoded frame must tell: its time and its duration in units of `time_base`."""

    @property
    def pts(self) -> int | None: ...

    @property
    def duration(self) -> int | None: ...

    @property
    def time_base(self) -> Fraction | None: ...


F = TypeVar("F", bound=Stamped)
P = TypeVar("P")


@dataclass(slots=True)
class TimedFrame(Generic[P]):
    """A decoded frame that is not converted yet, and when it is shown.

    Times are whole numbers of ticks: a fraction of its own for every frame costs as much as what
    some filters do with a small picture.

    Attributes:
        start: ticks from the start of the first frame.
        length: ticks that it is shown; matters for the last frame only, all others are shown until
            the next one starts.
        rate: ticks a second; it may grow from one frame to the next, to a multiple of what it was.
        picture: of PyAV.
    """

    start: int
    length: int
    rate: int
    picture: P

    @property
    def time(self) -> Fraction:
        """Seconds from the start of the first frame, exactly."""
        return Fraction(self.start, self.rate)

    @property
    def seconds(self) -> float:
        """The float next to `time`."""
        return self.start / self.rate

    @property
    def end(self) -> Fraction:
        """Seconds until it is over, exactly."""
        return Fraction(self.start + self.length, self.rate)


def repaired_times(frames: Iterable[F], period: Fraction) -> Iterator[TimedFrame[F]]:
    """Yield frames in presentation order with times from 0.

    Args:
        frames: anything with `pts`, `duration` and `time_base`, as PyAV's frames.
        period: seconds between frames where the file does not say, from its nominal rate.

    A frame's length is what the file states if that is plausible, else `period`.
    """
    if period <= 0:
        raise ValueError(f"the period between frames must be positive, got {period}")
    base: Fraction | None = None
    rate, usual, step = period.denominator, period.numerator, 0
    previous: int | None = None
    offset = 0
    for frame in frames:
        if frame.time_base != base:  # at the first frame, and hardly ever again
            base = frame.time_base
            finer = lcm(rate, base.denominator if base else 1) // rate
            rate, usual, offset = finer * rate, finer * usual, finer * offset
            previous = None if previous is None else finer * previous
            step = base.numerator * (rate // base.denominator) if base else 0
        longest = LONGEST_HOLD * rate
        stated = frame.pts * step if frame.pts is not None and step else None
        if previous is None:
            start, offset = 0, -(stated or 0)
        elif stated is None:
            start = previous + usual
        else:
            start = stated + offset
            if not 0 < start - previous <= longest:  # a new clock starts here
                start = previous + usual
                offset = start - stated
        previous = start
        length = (frame.duration or 0) * step
        yield TimedFrame(start, length if 0 < length <= longest else usual, rate, frame)
