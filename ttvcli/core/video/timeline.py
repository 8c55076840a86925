"""Presentation times one can rely on: from zero, strictly increasing, with missing ones filled in.

Containers deliver frames without a time (raw streams, MPEG-1), times that jump backwards (joined
recordings) or leap hours ahead (a broken clock). Everything after this module sees one clock.
"""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Protocol, TypeVar

# A longer pause between two frames is a broken clock, not a still picture.
LONGEST_HOLD = Fraction(60)


class Stamped(Protocol):
    """What a decoded frame must tell: its time and its duration in units of `time_base`."""

    @property
    def pts(self) -> int | None: ...

    @property
    def duration(self) -> int | None: ...

    @property
    def time_base(self) -> Fraction | None: ...


F = TypeVar("F", bound=Stamped)


def repaired_times(frames: Iterable[F], period: Fraction) -> Iterator[tuple[Fraction, Fraction, F]]:
    """Yield (time, duration, frame) for frames in presentation order; times in seconds from 0.

    Args:
        frames: anything with `pts`, `duration` and `time_base`, as PyAV's frames.
        period: seconds between frames where the file does not say, from its nominal rate.

    A frame's duration is what the file states if that is plausible, else `period`. It matters for
    the last frame only: every other frame is shown until the next one starts.
    """
    if period <= 0:
        raise ValueError(f"the period between frames must be positive, got {period}")
    previous: Fraction | None = None
    offset = Fraction(0)
    for frame in frames:
        stated = None
        if frame.pts is not None and frame.time_base:
            stated = frame.pts * frame.time_base
        if previous is None:
            time = Fraction(0)
            offset = -(stated or Fraction(0))
        elif stated is None:
            time = previous + period
        else:
            time = stated + offset
            if not 0 < time - previous <= LONGEST_HOLD:  # a new clock starts here
                time = previous + period
                offset = time - stated
        previous = time
        yield time, _duration(frame, period), frame


def _duration(frame: Stamped, period: Fraction) -> Fraction:
    if frame.duration and frame.time_base:
        stated = frame.duration * frame.time_base
        if 0 < stated <= LONGEST_HOLD:
            return stated
    return period
