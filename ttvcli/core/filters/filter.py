"""What a filter is: it measures a video while it is decoded, and rules say what to make of it.

Measuring and judging are apart. Measuring needs the frames and knows no threshold; judging needs
only the numbers, so thresholds can change without decoding again. A filter may also compare all
videos with each other, from a small record that it made of each in the one pass.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, TypeVar

from ttvcli.core.filters.frame_view import FrameView
from ttvcli.core.video.decode import VideoInfo

Metrics = dict[str, Any]  # numbers, null where there was nothing to measure, short lists
AllMetrics = Mapping[str, Mapping[str, Any]]  # name of the filter -> what it measured
T = TypeVar("T")


@dataclass(frozen=True)
class Clip:
    """What decoding a whole file showed."""

    info: VideoInfo
    frames: int
    duration: Fraction  # seconds, from the start of the first frame to the end of the last
    video_bytes: int  # of the packets of the video stream
    shortest: Fraction = Fraction(0)  # seconds between two frames, at least
    longest: Fraction = Fraction(0)  # and at most
    capture_fps: float | None = None  # rate that the camera recorded at, where it says so


class Meter(Protocol):
    """Sees every frame of one video in order, holds a bounded amount, tells numbers at the end."""

    def see(self, view: FrameView) -> None:
        """Take in a frame; `view` is valid during the call only."""

    def finish(self, clip: Clip) -> Metrics:
        """Return what was measured."""


class RecordingMeter(Meter, Protocol):
    """A meter that also keeps something compact of the video for a later comparison."""

    def record(self) -> Any:
        """Return what `Comparison` gets to see: anything that JSON can hold."""


@dataclass(frozen=True)
class Rule:
    """A threshold on one metric: what lies `side` of the limit is found."""

    metric: str
    side: Literal["below", "above"]
    limit: str  # name of the field in the filter's limits
    code: str  # what is wrong, in one word: `too_short`
    unit: str = ""
    drop: bool = True  # otherwise the video is kept and the finding is a flag
    unless: Callable[[AllMetrics], bool] | None = None  # where the number does not mean that


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a video; `text` has the measured value and the limit."""

    code: str
    text: str
    drop: bool = True
    filter: str = ""

    def __str__(self) -> str:
        return f"{self.code}: {self.text}" if self.text else self.code


@dataclass(frozen=True)
class Candidate:
    """A video that passed all other filters, as a comparison sees it."""

    name: str
    sha256: str
    record: Any  # what `RecordingMeter.record` returned; None for a filter without a meter
    quality: tuple[float, ...]  # pixels, bits per pixel and frame, seconds: larger is better


@dataclass(frozen=True)
class Copy:
    """A video that need not be kept, and the one that is kept instead of it."""

    name: str
    of: str
    text: str = ""


Comparison = Callable[[Sequence[Candidate], Any], Iterator[Copy]]


@dataclass(frozen=True)
class Filter:
    """One filter: an entry of the catalog.

    Attributes:
        name: its name in the catalog, in the settings and in `metrics`.
        about: what it is for, in a few words.
        limits: frozen dataclass of its thresholds, each with a `help`; None switches a rule off.
        version: counts up when the same video gives other metrics.
        facts: numbers from the container and the decoding as a whole; sees no frame.
        meter: makes an object that sees the frames of one video.
        rules: thresholds on its own metrics.
        judge: findings that take more than one threshold.
        compare: second stage, over all videos that are kept so far.
        default: whether it runs without being asked for.
        missing: tells why it cannot run on this machine; empty if it can.
        shown: False keeps pictures of what it drops out of every report.
        with_models: makes the same filter with models of the user's own, from folders.
    """

    name: str
    about: str
    limits: type
    version: int = 1
    facts: Callable[[Clip], Metrics] | None = None
    meter: Callable[[], Meter] | None = None
    rules: tuple[Rule, ...] = ()
    judge: Callable[[AllMetrics, Any], Iterator[Finding]] | None = None
    compare: Comparison | None = None
    default: bool = True
    missing: Callable[[], str] | None = None
    shown: bool = True
    with_models: Callable[[tuple[Path, ...]], "Filter"] | None = None

    def equipped(self, folders: tuple[Path, ...]) -> "Filter":
        """The filter with models of the user's own, if it takes any."""
        return self if self.with_models is None else self.with_models(folders)

    def findings(self, metrics: AllMetrics, limits: Any) -> Iterator[Finding]:
        """Yield what is wrong with a video by its numbers; `limits` is an instance of `limits`."""
        own = metrics.get(self.name)
        if own is None:
            return
        beyond: set[str] = set()  # metrics that are dropped for already
        for rule in self.rules:
            value, limit = own.get(rule.metric), getattr(limits, rule.limit)
            if value is None or limit is None or not _beyond(value, rule.side, limit):
                continue
            known = rule.metric in beyond and not rule.drop
            if not known and (rule.unless is None or not rule.unless(metrics)):
                beyond |= {rule.metric} if rule.drop else set()
                text = f"{_number(value)}{rule.unit}, the limit is {_number(limit)}{rule.unit}"
                yield Finding(rule.code, text, rule.drop, self.name)
        if self.judge is not None:
            for found in self.judge(metrics, limits):
                yield Finding(found.code, found.text, found.drop, self.name)


class Thinned(Generic[T]):
    """Some of many values met one by one, evenly spread over them: fewer than `bound`.

    Every other value is dropped once there are too many, so that the memory stays the same however
    many there are.
    """

    def __init__(self, bound: int = 4096) -> None:
        self.values: list[T] = []
        self._bound = bound
        self._every = 1
        self._seen = 0

    def add(self, value: T) -> None:
        """Take in a value."""
        if self._seen % self._every == 0:
            self.values.append(value)
        self._seen += 1
        if len(self.values) >= self._bound:
            del self.values[1::2]
            self._every *= 2


class Spread(Thinned[float]):
    """Numbers of a video: their mean and their quantiles."""

    def quantile(self, share: float) -> float | None:
        """Return the value that `share` of the others lie below; None if there are none."""
        if not self.values:
            return None
        ordered = sorted(self.values)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)]

    def median(self) -> float | None:
        """Return the middle value."""
        return self.quantile(0.5)

    def mean(self) -> float | None:
        """Return the mean of the values kept."""
        return sum(self.values) / len(self.values) if self.values else None


def rounded(value: float | None, digits: int = 3) -> float | None:
    """Round a metric for the manifest; None and what is no number become None."""
    if value is None or value != value or value in (float("inf"), float("-inf")):
        return None
    return round(float(value), digits) + 0.0  # no negative zero


def _beyond(value: float, side: str, limit: float) -> bool:
    return value < limit if side == "below" else value > limit


def _number(value: float) -> str:
    return f"{value:.4g}"
