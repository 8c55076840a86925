"""Guards that frames become the pixels that FFmpeg's own packed conversion gives."""

from fractions import Fraction

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange, Colorspace, Interpolation

from ttvcli.core.video.picture import PictureReader

EXACT = Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.BITEXACT
FORMATS = (
    "yuv420p yuvj420p yuv422p yuv444p yuv420p10le yuva420p nv12 rgb24 bgra gbrp gray gray10le "
    "rgb48le yuyv422 yuv410p yuv411p"
)


def frame_of(form: str, width: int, height: int) -> av.VideoFrame:
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 230, (height // 9 + 1, width // 9 + 1, 3), np.uint8)
    picture = coarse.repeat(9, axis=0).repeat(9, axis=1)[:height, :width]
    picture = picture + generator.integers(0, 25, picture.shape, np.uint8)
    return av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=form)


def packed(frame: av.VideoFrame, width: int, height: int) -> np.ndarray:
    shrinks = width <= frame.width and height <= frame.height
    scaled = frame.reformat(
        width=width,
        height=height,
        format="rgb24",
        src_colorspace=Colorspace.ITU601,
        dst_colorspace=Colorspace.DEFAULT,
        dst_color_range=ColorRange.JPEG,
        interpolation=(Interpolation.AREA if shrinks else Interpolation.BICUBIC) | EXACT,
    )
    return scaled.to_ndarray()


@pytest.mark.parametrize("size", [(162, 108), (108, 72), (81, 54), (243, 162)])
@pytest.mark.parametrize("form", FORMATS.split())
def test_pixels_are_those_of_a_packed_conversion(form: str, size: tuple[int, int]) -> None:
    frame = frame_of(form, 162, 108)
    picture = PictureReader(Fraction(1), size)(frame)
    assert picture.shape == (size[1], size[0], 3)
    difference = np.abs(picture.astype(int) - packed(frame, *size))
    assert difference.max() <= 1
    assert difference.mean() < 0.01


def test_a_picture_is_written_into_any_layout() -> None:
    frame = frame_of("yuv420p", 64, 48)
    reader = PictureReader(Fraction(1), (32, 32))
    wanted = reader(frame)
    planes = np.zeros((3, 32, 32), np.uint8).transpose(1, 2, 0)
    pixels = np.zeros((32, 32, 3), np.uint8)
    reader.into(frame, planes)
    reader.into(frame, pixels)
    assert np.array_equal(planes, wanted)
    assert np.array_equal(pixels, wanted)
    assert wanted.flags.c_contiguous


def test_a_picture_outlives_its_frame() -> None:
    frame = frame_of("yuv420p", 64, 48)
    reader = PictureReader(Fraction(1))
    first = reader(frame)
    kept = first.copy()
    for _ in range(3):
        reader(frame_of("gray", 64, 48))
    assert np.array_equal(first, kept)
