"""Cut lines off the edges of decoded frames, before anything is scaled or turned."""

from dataclasses import astuple, dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import av

if TYPE_CHECKING:
    from ttvcli.core.video.decode import VideoInfo

_TICK = Fraction(1, 1000)


@dataclass(frozen=True)
class Edges:
    """Lines to cut off each edge of a frame as stored; all even, so that chroma stays in place."""

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0

    def __bool__(self) -> bool:
        return any(astuple(self))

    def upright(self, rotation: int) -> "Edges":
        """The same after a turn by `rotation` degrees counter-clockwise, a multiple of 90."""
        top, bottom, left, right = astuple(self)
        for _ in range(rotation // 90 % 4):
            top, bottom, left, right = right, left, top, bottom
        return Edges(top, bottom, left, right)


def shown_inside(info: "VideoInfo", edges: Edges) -> tuple[int, int]:
    """(width, height) of what is left of a video, upright and in square pixels."""
    tall, wide = edges.top + edges.bottom, round((edges.left + edges.right) * info.sample_aspect)
    if info.rotation % 180 == 90:
        return info.width - tall, info.height - wide
    return info.width - wide, info.height - tall


class Cropper:
    """Cuts frames of one video; no pixel is copied. FFmpeg's `crop` keeps all that a frame says."""

    def __init__(self, edges: Edges) -> None:
        self._edges = edges
        self._cuts = bool(edges)
        self._graph: Any = None
        self._kind: tuple[int, int, str] | None = None

    def __call__(self, frame: av.VideoFrame) -> av.VideoFrame:
        """Return the frame without its edges."""
        if not self._cuts:
            return frame
        kind = (frame.width, frame.height, frame.format.name)
        if kind != self._kind:
            self._graph, self._kind = _graph(kind, self._edges), kind
        self._graph.push(frame)
        cut: av.VideoFrame = self._graph.pull()
        return cut


def _graph(kind: tuple[int, int, str], edges: Edges) -> Any:
    width, height, form = kind
    wide, high = width - edges.left - edges.right, height - edges.top - edges.bottom
    graph: Any = av.filter.Graph()
    graph.threads = 1  # no pixel is touched
    source = graph.add_buffer(width=width, height=height, format=form, time_base=_TICK)
    crop = graph.add("crop", f"{wide}:{high}:{edges.left}:{edges.top}")
    graph.link_nodes(source, crop, graph.add("buffersink")).configure()
    return graph
