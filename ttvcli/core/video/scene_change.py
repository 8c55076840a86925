"""Hard cuts by FFmpeg's `scdet`, fades through black by the brightness of the frames.

`scdet` compares the luma of neighbouring frames and asks for a difference that is large and new: in
a pan it is large but not new. On a trailer with five hard cuts it finds the five and nothing else.
Fades change no frame by much; what tells them is a black frame, with a brightness that falls
towards it and rises after it, frame by frame. Dissolves are not found.
"""

from array import array
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.filter import Graph
from av.video.reformatter import Interpolation, VideoReformatter

from ttvcli.core.video.shots import Transition

THRESHOLD = 10.0  # percent of the range of luma
_WIDTH, _HEIGHT = 320, 180  # what frames are compared at; the score does not depend on it
_BLACK = 20  # of 255: the brightest hundredth of a black frame stays below
# of 255: how much the mean of a fade changes from frame to frame; a cut to black changes it by more
_STEP, _LARGEST_STEP = 0.25, 40.0
_LONGEST_FADE = 150  # frames on either side of black
_TICK = Fraction(1, 1000)


class SceneChange:
    """Finds cuts and fades through black.

    Args:
        threshold: difference of two frames that makes a cut, in percent; 0 takes the default.
    """

    def __init__(self, threshold: float = 0.0) -> None:
        if not 0 <= threshold <= 100:
            raise ValueError(f"threshold must be 0 to 100 percent, got {threshold}")
        self.threshold = threshold or THRESHOLD
        self._scaler = VideoReformatter()
        self._graph = _graph()
        self._cuts: list[int] = []
        self._means = array("f")
        self._black = bytearray()  # 1 for a black frame

    def push(self, picture: av.VideoFrame) -> None:
        """Take the next decoded frame."""
        luma = self._scaler.reformat(
            picture,
            width=_WIDTH,
            height=_HEIGHT,
            format="gray",
            interpolation=Interpolation.AREA | Interpolation.BITEXACT,
            threads=1,
        )
        number = len(self._means)
        plane = luma.to_ndarray()
        self._means.append(float(plane.mean()))
        self._black.append(_brightest(plane) < _BLACK)
        luma.pts, luma.time_base = number, _TICK
        self._graph.push(luma)
        scored: Any = self._graph.pull()
        if float(scored.metadata["lavfi.scd.score"]) >= self.threshold:
            self._cuts.append(number)

    def finish(self) -> list[Transition]:
        """Return cuts and fades; a cut that is part of a fade counts once."""
        fades = _fades(np.frombuffer(self._black, np.uint8), np.array(self._means))
        cuts = [Transition(cut, cut) for cut in self._cuts]
        return [*fades, *(c for c in cuts if not any(f.first <= c.end <= f.end for f in fades))]


def _graph() -> Graph:
    graph = Graph()
    graph.threads = 1
    source = graph.add_buffer(
        width=_WIDTH, height=_HEIGHT, format=av.VideoFormat("gray"), time_base=_TICK
    )
    # It only has to attach its score: the threshold is ours.
    detector, sink = graph.add("scdet", "threshold=100"), graph.add("buffersink")
    source.link_to(detector)
    detector.link_to(sink)
    graph.configure()
    return graph


def _brightest(plane: np.ndarray) -> int:
    """The value that 99 % of the pixels stay at or below."""
    counts = np.cumsum(np.bincount(plane.ravel(), minlength=256))
    return int(np.searchsorted(counts, 0.99 * plane.size))


def _fades(black: np.ndarray, means: np.ndarray) -> list[Transition]:
    """Stretch every run of black frames over the fall before it and the rise after it."""
    edges = np.flatnonzero(np.diff(black, prepend=0, append=0)).tolist()
    found = []
    for first, end in zip(edges[::2], edges[1::2], strict=True):
        falls = means[max(first - _LONGEST_FADE, 0) : first + 1][::-1]
        rises = means[end - 1 : end + _LONGEST_FADE]
        found.append(Transition(first - _rise(falls), end + _rise(rises)))
    return found


def _rise(means: np.ndarray) -> int:
    """How many frames in a row get brighter at the pace of a fade."""
    steps = np.diff(means)
    steady = (steps >= _STEP) & (steps <= _LARGEST_STEP)
    return int(np.argmin(steady)) if not steady.all() else len(steps)
