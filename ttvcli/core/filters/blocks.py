"""Blockiness: jumps of brightness along the grid in which old codecs cut up the picture.

FFmpeg's `blockdetect` at the size as stored. H.264 and later smooth these edges away; there the
bitrate and the fine detail tell more.
"""

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import av
import numpy as np

from ttvcli.core.filters.filter import Clip, Filter, Metrics, Rule, Spread, rounded
from ttvcli.core.filters.frame_view import FrameView

_EVERY = 3.0  # seconds between frames looked at: one for each segment that may be cut
_KEY = "lavfi.block"
_LARGEST = 320  # pixels a side that are looked at, around the centre: 20 blocks of old codecs
_DARK = 24  # level up to which a whole line is a bar


@dataclass(frozen=True, kw_only=True)
class BlocksLimits:
    """Thresholds in the unit of `blockdetect`: clean video is at 1.1 to 2.4."""

    max: float | None = field(default=5.0, metadata={"help": "blockiness, at most"})
    flag: float | None = field(default=3.0, metadata={"help": "blockiness, flagged above"})


class BlocksMeter:
    """Sends a frame through FFmpeg's filter now and then."""

    def __init__(self) -> None:
        self._next = 0.0
        self._values = Spread()
        self._graph: Any = None
        self._shape: tuple[int, ...] = ()

    def see(self, view: FrameView) -> None:
        """Look at one frame every three seconds."""
        if view.time < self._next:
            return
        picture = _inside(view)
        if min(picture.shape) < 32:
            return
        self._next = view.time + _EVERY
        if picture.shape != self._shape:
            self._graph, self._shape = _graph(picture.shape), picture.shape
        value = _blockiness(self._graph, picture)
        if value is not None:
            self._values.add(value)

    def finish(self, clip: Clip) -> Metrics:
        """Return the median over the frames."""
        return {"blockiness": rounded(self._values.median(), 2)}


def _inside(view: FrameView) -> np.ndarray:
    """The middle of a frame without its black bars, whose edge would count as a block's."""
    height, width = view.shape
    rows = view.part(np.s_[:, :: max(width // 64, 1)]).max(axis=1) > _DARK
    columns = view.part(np.s_[:: max(height // 64, 1), :]).max(axis=0) > _DARK
    top, bottom = _first_and_last(rows)
    left, right = _first_and_last(columns)
    high, wide = min(bottom - top, _LARGEST), min(right - left, _LARGEST)
    # The grid stays where it is: blocks begin at multiples of 8 of the stored picture.
    top = -(-(top + (bottom - top - high) // 2) // 16) * 16
    left = -(-(left + (right - left - wide) // 2) // 16) * 16
    inside = np.s_[top : min(top + high, bottom), left : min(left + wide, right)]
    return np.ascontiguousarray(view.part(inside))


def _first_and_last(lit: np.ndarray) -> tuple[int, int]:
    if not lit.any():
        return 0, 0
    return int(lit.argmax()), len(lit) - int(lit[::-1].argmax())


def _graph(shape: tuple[int, ...]) -> Any:
    graph: Any = av.filter.Graph()
    graph.threads = 1  # else each makes as many as there are cores, for one small picture
    height, width = shape
    source = graph.add_buffer(
        width=width, height=height, format="gray", time_base=Fraction(1, 1000)
    )
    graph.link_nodes(source, graph.add("blockdetect"), graph.add("buffersink")).configure()
    return graph


def _blockiness(graph: Any, picture: np.ndarray) -> float | None:
    frame = av.VideoFrame.from_ndarray(picture, format="gray")
    frame.pts, frame.time_base = 0, Fraction(1, 1000)
    graph.push(frame)
    return rounded(float(graph.pull().metadata.get(_KEY, "nan")), 3)


FILTER = Filter(
    name="blocks",
    about="blocks of strong compression",
    limits=BlocksLimits,
    version=2,
    meter=BlocksMeter,
    rules=(
        Rule("blockiness", "above", "max", "blocky"),
        Rule("blockiness", "above", "flag", "blocky", drop=False),
    ),
)
