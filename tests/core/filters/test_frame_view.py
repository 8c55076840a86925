"""All views of a frame are of one scale, whatever the format, range and depth of the video."""

from fractions import Fraction

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange
from filter_views import texture

from ttvcli.core.filters.frame_view import FrameView, Views

FORMATS = ("yuv420p", "yuvj420p", "yuv422p", "yuv420p10le", "gray", "rgb24", "gbrp", "nv12", "bgra")


def view(form: str, picture: np.ndarray, color_range: int | None = None) -> FrameView:
    rgb = np.repeat(picture[:, :, None], 3, axis=2)
    frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
    frame = frame.reformat(format=form, dst_color_range=color_range)
    return Views(Fraction(1)).view(0, 0.0, frame)


@pytest.mark.parametrize("form", FORMATS)
def test_luma_grid_and_small_agree_with_the_picture(form: str) -> None:
    picture = texture(180, 320, smooth=2000)
    seen = view(form, picture)
    assert seen.luma.shape == (180, 320)
    assert abs(seen.luma.astype(int) - picture).max() <= 3
    assert seen.grid.shape == (45, 80)
    assert seen.small.shape == (90, 160)
    assert abs(seen.small[1::2, 1::2].astype(int) - seen.grid).mean() < 3
    assert seen.level == pytest.approx(picture.mean(), abs=1.5)


def test_full_range_is_not_stretched() -> None:
    picture = texture(64, 64)
    seen = view("yuv420p", picture, color_range=ColorRange.JPEG)
    assert abs(seen.luma.astype(int) - picture).max() <= 3


def test_the_change_is_the_mean_difference_to_the_frame_before() -> None:
    views = Views(Fraction(1))
    frames = [av.VideoFrame.from_ndarray(np.full((90, 160), v, np.uint8), "gray") for v in (9, 29)]
    first, second = (views.view(n, float(n), frame) for n, frame in enumerate(frames))
    assert first.change is None
    assert second.change == 20


def test_a_tiny_frame_has_all_views() -> None:
    seen = view("yuv420p", np.full((2, 4), 100, np.uint8))
    assert seen.grid.shape == (2, 4)
    assert min(seen.small.shape) >= 16
    assert seen.rgb((8, 4)).shape == (4, 8, 3)
