"""One decoded frame to an upright RGB picture with square pixels, optionally of an exact size.

Scaling and colour conversion are one pass of FFmpeg's swscale at the final size, which costs a
quarter of converting the full frame first. It writes the channels as planes: swscale has vector
code for that, and takes twice as long for the same pixels side by side.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from ttvcli.core.video.crop import Cropper, Edges
from ttvcli.core.video.errors import UnreadableVideo
from ttvcli.core.video.tonemap import HLG, PQ, hdr_to_sdr

_MAX_SCALED = 8192 * 8192
_EXACT = Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.BITEXACT
_SHRINK, _ENLARGE = (
    (method | _EXACT).value for method in (Interpolation.AREA, Interpolation.BICUBIC)
)
_RED_GREEN_BLUE = (2, 0, 1)  # planes of gbrp
_HD_HEIGHT = 720  # from here on, video that names no matrix is BT.709, below BT.601
_MATRICES = {
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,
    6: Colorspace.SMPTE170M,
    7: Colorspace.SMPTE240M,
    9: Colorspace.BT2020,
    10: Colorspace.BT2020,
}


class PictureReader:
    """Converts frames of one stream; keeps the scaler's tables between frames.

    Args:
        sample_aspect: width of a stored pixel over its height.
        size: (width, height) wanted; the picture is scaled to cover it (area averaging down,
            bicubic up) and cut to it around the centre. None keeps the shown size.
        edges: what is cut off every frame before that.
        threads: that share the lines of each picture; the pixels do not depend on it.
    """

    def __init__(
        self,
        sample_aspect: Fraction,
        size: tuple[int, int] | None = None,
        edges: Edges = Edges(),
        threads: int = 1,
    ) -> None:
        if size is not None and min(size) < 1:
            raise ValueError(f"size must be positive, got {size[0]}x{size[1]}")
        self.sample_aspect = sample_aspect
        self.size = size
        self._crop = Cropper(edges)
        self.threads = threads
        self._scaler = VideoReformatter()
        self._sizes: dict[tuple[int, int, bool], tuple[int, int]] = {}

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        """Return the picture as uint8 RGB `[H, W, 3]`."""
        channels = self._channels(frame)
        picture = np.empty((*channels[0].shape, 3), np.uint8)
        _fill(picture, channels)
        return picture

    def into(self, frame: av.VideoFrame, picture: np.ndarray) -> None:
        """Write the picture into uint8 `[H, W, 3]` of the size wanted, however it lies in memory.

        Quickest if the channels are planes: `np.empty((3, H, W)).transpose(1, 2, 0)`.
        """
        _fill(picture, self._channels(frame))

    def _channels(self, frame: av.VideoFrame) -> list[np.ndarray]:
        """Red, green and blue, uint8 `[H, W]` each, where FFmpeg put them."""
        frame = self._crop(frame)
        turns = self.rotation(frame) // 90 % 4
        width, height = self._scaled_size(frame, turned=turns % 2 == 1)
        hdr = frame.color_trc in (PQ, HLG)
        shrinks = width <= frame.width and height <= frame.height
        scaled = self._scaler.reformat(
            frame,
            width=width,
            height=height,
            format="rgb48le" if hdr else "gbrp",
            src_colorspace=_matrix(frame),
            dst_colorspace=Colorspace.DEFAULT,
            src_color_range=frame.color_range or None,
            dst_color_range=ColorRange.JPEG,
            interpolation=_SHRINK if shrinks else _ENLARGE,
            threads=self.threads,
        )
        if hdr:
            picture = hdr_to_sdr(self._upright(scaled.to_ndarray(), turns), frame.color_trc)
            return [picture[..., channel] for channel in range(3)]
        planes: Any = scaled.planes  # made anew each time it is asked for
        return [self._upright(values_of(planes[index]), turns) for index in _RED_GREEN_BLUE]

    def _upright(self, picture: np.ndarray, turns: int) -> np.ndarray:
        """Turn `[H, W, ...]` and cut it to the size wanted."""
        if turns:  # FFmpeg's angle is counter-clockwise, as NumPy's
            picture = np.rot90(picture, turns)
        return picture if self.size is None else _centre(picture, self.size)

    def rotation(self, frame: av.VideoFrame) -> int:
        """Degrees counter-clockwise that a player turns the frame by; only quarter turns count."""
        angle = int(frame.rotation) % 360
        return angle if angle % 90 == 0 else 0

    def shown_size(self, frame: av.VideoFrame) -> tuple[int, int]:
        """(width, height) of the upright picture in square pixels."""
        width = max(round(frame.width * self.sample_aspect), 1)
        turned = self.rotation(frame) % 180 == 90
        return (frame.height, width) if turned else (width, frame.height)

    def notes(self, frame: av.VideoFrame) -> list[str]:
        """What a careful user may want to know about this stream."""
        found = []
        if frame.color_trc in (PQ, HLG):
            found.append("high dynamic range, tone-mapped")
        if frame.interlaced_frame:
            found.append("interlaced")
        # A GIF is always decoded with an alpha plane, needed or not.
        if frame.format.name != "bgra" and any(p.is_alpha for p in frame.format.components):
            found.append("transparency ignored")
        if int(frame.rotation) % 90:
            found.append(f"rotation by {frame.rotation} degrees ignored")
        return found

    def _scaled_size(self, frame: av.VideoFrame, *, turned: bool) -> tuple[int, int]:
        stored = (frame.width, frame.height, turned)
        if stored not in self._sizes:
            self._sizes[stored] = self._scaled(*stored)
        return self._sizes[stored]

    def _scaled(self, stored_width: int, stored_height: int, turned: bool) -> tuple[int, int]:
        shown_width, shown_height = stored_width * self.sample_aspect, Fraction(stored_height)
        if self.size is None:
            return max(round(shown_width), 1), stored_height
        want_width, want_height = self.size[::-1] if turned else self.size
        scale = max(want_width / shown_width, want_height / shown_height)
        width = max(round(shown_width * scale), want_width)
        height = max(round(shown_height * scale), want_height)
        if width * height > _MAX_SCALED:  # a picture of one line, made to cover a square
            shape = f"{stored_width}x{stored_height} cannot cover {want_width}x{want_height}"
            raise UnreadableVideo("too_large", shape)
        return width, height


def values_of(plane: Any, dtype: Any = np.uint8) -> np.ndarray:
    """The values of a plane of a frame `[H, W]` where FFmpeg put them, without padding of rows."""
    return np.frombuffer(plane, dtype).reshape(plane.height, -1)[:, : plane.width]


def _fill(picture: np.ndarray, channels: Sequence[np.ndarray]) -> None:
    for number, channel in enumerate(channels):
        picture[..., number] = channel


def _matrix(frame: av.VideoFrame) -> Any:
    if frame.colorspace in _MATRICES:
        return _MATRICES[frame.colorspace]
    return Colorspace.ITU709 if frame.height >= _HD_HEIGHT else Colorspace.ITU601


def _centre(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    width, height = size
    top = (picture.shape[0] - height) // 2
    left = (picture.shape[1] - width) // 2
    return picture[top : top + height, left : left + width]
