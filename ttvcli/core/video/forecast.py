"""What a video claims to be, by its header and by its packets, before anything is decoded."""

from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from itertools import chain, pairwise
from typing import Any, NamedTuple

from av.error import FFmpegError

from ttvcli.core.video.timeline import LONGEST_HOLD

DEFAULT_PERIOD = Fraction(1, 25)
SLOWEST, FASTEST = Fraction(1, 60), Fraction(1000)  # frames per second that a header may claim
# Decoded time below this share of the stated length means that the rest of the file is missing.
WHOLE = Fraction(9, 10)
# Their index tells where each packet lies, so that reading them again gives the same.
_INDEXED = "mov,mp4,m4a,3gp,3g2,mj2"


class PacketMark(NamedTuple):
    """By what a packet is known again."""

    dts: int | None
    pts: int | None
    size: int

    @classmethod
    def of(cls, packet: Any) -> "PacketMark":
        """Mark a packet of PyAV."""
        return cls(packet.dts, packet.pts, packet.size)


def forecast(container: Any, stream: Any) -> tuple[Fraction | None, PacketMark | None]:
    """Seconds that the frames will last, told from the packets without decoding them.

    A forecast: packets may turn out undecodable, and damage is not looked for. None if they carry
    no usable times, or less than the header promises. Reads the stream to its end; also returns
    the mark of its first packet, if it has one.
    """
    stamps: list[tuple[int, int]] = []
    first: PacketMark | None = None
    try:
        for packet in container.demux(stream):
            first = first or PacketMark.of(packet)
            if packet.size == 0 or packet.is_discard:
                continue
            if packet.pts is None:
                return None, first
            stamps.append((packet.pts, packet.duration or 0))
    except FFmpegError:
        return None, first
    return _duration(container, stream, sorted(stamps)), first


def _duration(container: Any, stream: Any, stamps: list[tuple[int, int]]) -> Fraction | None:
    base, period = stream.time_base, 1 / (stated_rate(stream) or 1 / DEFAULT_PERIOD)
    if not stamps or not base:
        return None
    gaps = (later[0] - earlier[0] for earlier, later in pairwise(stamps))
    if not all(0 < gap * base <= LONGEST_HOLD for gap in gaps):
        return None
    last = stamps[-1][1] * Fraction(base)
    held = last if 0 < last <= LONGEST_HOLD else period
    duration = (stamps[-1][0] - stamps[0][0]) * Fraction(base) + held
    stated = stated_duration(container, stream, float(stamps[0][0] * base))
    cut_short = stated is not None and duration < Fraction(stated) * WHOLE
    return None if cut_short else duration


def rewound(container: Any, stream: Any, first: PacketMark | None) -> Iterator[Any] | None:
    """The packets of a stream from its first on; None if one has to open the file once more.

    Opening it costs as much as decoding several frames, as FFmpeg decodes a few to get to know it.
    """
    if first is None or first.dts is None or container.format.name != _INDEXED:
        return None
    try:
        container.seek(first.dts, stream=stream, backward=True)
        packets = container.demux(stream)
        again = next(packets, None)
    except FFmpegError:
        return None
    if again is None or PacketMark.of(again) != first:
        return None
    return chain([again], packets)


def stated_rate(stream: Any) -> Fraction | None:
    """Frames per second that a header claims; None if there are none, or wild ones."""
    rate = stream.average_rate or stream.guessed_rate
    return Fraction(rate) if rate and SLOWEST <= rate <= FASTEST else None


def stated_duration(container: Any, stream: Any, start: float) -> float | None:
    """Seconds that a header claims; `start` is the time of the first frame."""
    if container.format.name == "avi" and stream.frames and stream.average_rate:
        return float(stream.frames / stream.average_rate)  # its duration shrinks with the file
    if "matroska" in container.format.name:
        # It states where each stream ends, "00:00:05.000000000", not how long it is.
        with suppress(ValueError, KeyError):
            hours, minutes, seconds = stream.metadata["DURATION"].split(":")
            end = int(hours) * 3600 + int(minutes) * 60 + float(seconds)
            return end - start
        if container.duration and len(container.streams) == 1:
            return container.duration / 1_000_000 - start
        return None
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    if container.duration and len(container.streams) == 1:  # else the sound may be the longer part
        return container.duration / 1_000_000
    return None
