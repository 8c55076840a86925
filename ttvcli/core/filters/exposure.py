"""Black, white and flashing pictures, by the brightness of whole frames."""

from collections import deque
from dataclasses import dataclass, field

from ttvcli.core.filters.filter import Clip, Filter, Metrics, Rule, Spread, rounded
from ttvcli.core.filters.frame_view import FrameView

_BLACK, _WHITE = 16.0, 240.0  # mean level
# A flash is a pair of opposite changes by a tenth of the range, the darker state not itself bright
# (WCAG 2, general flash); here of the frame as a whole, so that smaller flashes are not seen.
_SWING = 25.5
_BRIGHT = 204.0


@dataclass(frozen=True, kw_only=True)
class ExposureLimits:
    """Thresholds."""

    black: float | None = field(default=0.5, metadata={"help": "share of black frames, at most"})
    white: float | None = field(default=0.5, metadata={"help": "share of white frames, at most"})
    flashes: float | None = field(
        default=3.0, metadata={"help": "flashes in any one second, at most"}
    )


class ExposureMeter:
    """Follows the mean level of the frames."""

    def __init__(self) -> None:
        self._black = self._white = self._frames = 0
        self._levels = Spread()
        self._turn: float | None = None  # the level at the last extreme
        self._rising: bool | None = None
        self._swings: deque[float] = deque()  # times of the swings in the last second
        self._most = 0

    def see(self, view: FrameView) -> None:
        """Take in the level of a frame."""
        level = view.level
        self._frames += 1
        self._black += level < _BLACK
        self._white += level > _WHITE
        self._levels.add(level)
        self._follow(level, view.time)

    def finish(self, clip: Clip) -> Metrics:
        """Return mean level, shares of black and white frames, most flashes in one second."""
        return {
            "level": rounded(self._levels.mean(), 1),
            "black": rounded(self._black / self._frames if self._frames else None),
            "white": rounded(self._white / self._frames if self._frames else None),
            "flashes": self._most,
        }

    def _follow(self, level: float, time: float) -> None:
        """Count swings: changes from one extreme to the next that are large enough."""
        if self._turn is None:
            self._turn = level
            return
        change = level - self._turn
        if self._rising is not None and (change > 0) == self._rising:
            self._turn = level  # further the same way
            return
        if abs(change) >= _SWING and min(level, self._turn) < _BRIGHT:
            self._rising, self._turn = change > 0, level
            self._swings.append(time)
            while self._swings[0] <= time - 1.0:
                self._swings.popleft()
            self._most = max(self._most, len(self._swings) // 2)


FILTER = Filter(
    name="exposure",
    about="black, white or flashing",
    limits=ExposureLimits,
    version=2,
    meter=ExposureMeter,
    rules=(
        Rule("black", "above", "black", "black"),
        Rule("white", "above", "white", "white"),
        Rule("flashes", "above", "flashes", "flashing", " a second"),
    ),
)
