"""One decoded frame as filters see it: what they share is made once, and only when it is asked for.

Legend: H, W size of the frame as stored (not rotated), h, w size of a smaller picture. Values are
luma, uint8, 0 black and 255 white whatever the range and the depth of the video.
"""

from collections.abc import Iterable
from fractions import Fraction
from functools import cached_property
from itertools import groupby
from typing import Any, NamedTuple

import av
import numpy as np
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from ttvcli.core.video.picture import PictureReader, values_of

GRID_WIDTH = 80  # points a line in `grid`, about: enough for means over the frame
SMALL_WIDTH = 160  # of `small`, exactly, or of its height if that is longer
_MOST_IN_32_BITS = 1 << 24  # values of 8 bits that can be summed up
_FULL_RANGE = ColorRange.JPEG.value
_AREA = Interpolation.AREA.value  # as a number: an enumeration's members are looked up each time
_LIMITED = np.clip((np.arange(256) - 16) * 255 / 219 + 0.5, 0, 255).astype(np.uint8).tobytes()


class Layout(NamedTuple):
    """How frames of a pixel format hold their luma."""

    dtype: Any  # of the plane of luma; None if there is no such plane
    shift: int  # bits beyond 8
    full_range: bool  # whatever the frame says

    @classmethod
    def of(cls, form: av.VideoFormat) -> "Layout":
        """Look at a format."""
        first = form.components[0]
        full = form.name.startswith(("yuvj", "gray"))
        if not first.is_luma or not form.is_planar or first.plane != 0 or form.is_big_endian:
            return cls(None, 0, full)
        if first.bits == 8:
            return cls(np.uint8, 0, full)
        return cls(np.uint16 if 8 < first.bits <= 16 else None, first.bits - 8, full)


class Views:
    """Makes the views of one video; keeps the scalers' tables between frames."""

    def __init__(self, sample_aspect: Fraction) -> None:
        self.gray = VideoReformatter()
        self.small = VideoReformatter()
        self.picture = PictureReader(sample_aspect)
        self.sized: dict[tuple[int, int], PictureReader] = {}
        self.sample_aspect = sample_aspect
        self._before: np.ndarray | None = None
        self._layouts: dict[str, Layout] = {}

    def view(self, index: int, time: float, frame: av.VideoFrame) -> "FrameView":
        """Return the view of the next frame, at `time` seconds."""
        return self.views(index, [(time, frame)])[0]

    def views(self, first: int, frames: Iterable[tuple[float, av.VideoFrame]]) -> list["FrameView"]:
        """Return the views of the next frames, which come with their seconds."""
        made = [
            FrameView(self, number, time, frame)
            for number, (time, frame) in enumerate(frames, first)
        ]
        for _, alike in groupby(made, key=lambda view: view.grid.shape):
            self._compare(list(alike))
        return made

    def _compare(self, views: list["FrameView"]) -> None:
        """Tell views of one size their level and change; together, as each is little work."""
        grids = np.stack([view.grid for view in views])
        points = grids[0].size
        for view, total in zip(views, _totals(grids), strict=True):
            view.level = total / points
        before, self._before = self._before, grids[-1]
        if before is not None and before.shape == grids[0].shape:
            grids = np.concatenate([before[None], grids])
        earlier, later = grids[:-1], grids[1:]
        changes = _totals(np.maximum(earlier, later) - np.minimum(earlier, later))
        for view, total in zip(views[len(views) - len(changes) :], changes, strict=True):
            view.change = total / points

    def layout(self, frame: av.VideoFrame) -> Layout:
        """Return how a frame holds its luma; looked up once for each format."""
        form = frame.format
        name = form.name
        if name not in self._layouts:
            self._layouts[name] = Layout.of(form)
        return self._layouts[name]

    def reader(self, size: tuple[int, int]) -> PictureReader:
        """Return the converter to RGB of a size."""
        if size not in self.sized:
            self.sized[size] = PictureReader(self.sample_aspect, size)
        return self.sized[size]


class FrameView:
    """A frame at `time` seconds, the `index`-th of its video.

    Attributes:
        grid: every n-th point of every n-th line `[h, w]`: costs next to nothing, noise stays in.
        level: mean of `grid`, how bright the frame is.
        change: mean absolute difference of `grid` to the frame before, in levels of 0 to 255; None
            at the first frame.
        shape: (H, W) of the frame as stored.
    """

    def __init__(self, views: Views, index: int, time: float, frame: av.VideoFrame) -> None:
        self._views = views
        self.index = index
        self.time = time
        self.frame = frame
        self.level = 0.0
        self.change: float | None = None
        self.shape = (frame.height, frame.width)
        self._layout = layout = views.layout(frame)
        # The luma plane as stored `[H, W]`, a view; None if the format has no such plane.
        self._plane = values_of(frame.planes[0], layout.dtype) if layout.dtype is not None else None
        self._stretched = not layout.full_range and frame.color_range != _FULL_RANGE
        step = max(max(self.shape) // GRID_WIDTH, 1)
        self.grid = self.part(np.s_[step // 2 :: step, step // 2 :: step])

    @property
    def turns(self) -> int:
        """Quarter turns counter-clockwise that bring the frame upright."""
        return self._views.picture.rotation(self.frame) // 90

    def part(self, where: Any) -> np.ndarray:
        """The points `where` of `luma`, as an index of two slices; the others are not touched."""
        plane = self._plane
        return self._gray[where] if plane is None else self._levels(plane[where])

    @property
    def luma(self) -> np.ndarray:
        """The frame at its full size `[H, W]`; `part` is cheaper where not all of it is needed."""
        return self.part(np.s_[:, :])

    @cached_property
    def small(self) -> np.ndarray:
        """The frame reduced by area averaging to a longer side of 160 `[h, w]`."""
        width, height = self.frame.width, self.frame.height
        scale = SMALL_WIDTH / max(width, height)
        gray = self._views.small.reformat(
            self.frame,
            width=max(round(width * scale), 16),
            height=max(round(height * scale), 16),
            format="gray",
            dst_color_range=ColorRange.JPEG,
            interpolation=_AREA,
            threads=1,
        )
        return values_of(gray.planes[0])

    def rgb(self, size: tuple[int, int]) -> np.ndarray:
        """The upright frame cut and scaled to (width, height), uint8 RGB `[h, w, 3]`."""
        return self._views.reader(size)(self.frame)

    @cached_property
    def _gray(self) -> np.ndarray:
        """The frame as grey levels, for formats without a plane of luma."""
        gray = self._views.gray.reformat(
            self.frame,
            format="gray",
            dst_color_range=ColorRange.JPEG,
            interpolation=Interpolation.POINT,
            threads=1,
        )
        return values_of(gray.planes[0])

    def _levels(self, plane: np.ndarray) -> np.ndarray:
        if plane.dtype == np.uint16:
            plane = (plane >> self._layout.shift).astype(np.uint8)
        if not self._stretched:
            return plane
        # Half the time of `take`, which makes numbers of 64 bits of all values first.
        return np.frombuffer(plane.tobytes().translate(_LIMITED), np.uint8).reshape(plane.shape)


def _totals(pictures: np.ndarray) -> list[int]:
    """Sums of the values of uint8 pictures `[N, h, w]`."""
    count, height, width = pictures.shape
    wide = np.uint32 if height * width < _MOST_IN_32_BITS else np.uint64
    flat = pictures.reshape(count, height * width)
    totals: list[int] = np.add.reduce(flat, axis=1, dtype=wide).tolist()
    return totals
