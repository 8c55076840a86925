"""Edges are cut off frames without touching what is left, in every format and orientation."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from video_files import make_video

from ttvcli.core.video.crop import Cropper, Edges, shown_inside
from ttvcli.core.video.decode import open_video
from ttvcli.core.video.picture import PictureReader

EDGES = Edges(4, 6, 8, 10)


@pytest.mark.parametrize("form", ["gray", "yuv420p", "yuv444p", "yuv420p10le", "nv12", "rgb24"])
def test_what_is_left_has_the_same_pixels(form: str) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (48, 64, 3)).astype(np.uint8)
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=form)
    cut = Cropper(EDGES)(frame)
    assert (cut.width, cut.height, cut.format.name) == (46, 38, form)
    whole, left = frame.to_ndarray(format="gray"), cut.to_ndarray(format="gray")
    off = np.abs(left.astype(int) - whole[4:-6, 8:-10]).max()
    assert off <= (form == "yuv420p10le")  # to 8 bits with a dither of its own


def test_no_edges_give_the_frame_itself() -> None:
    frame = av.VideoFrame(64, 48, "yuv420p")
    assert Cropper(Edges())(frame) is frame


def test_colours_rotation_and_range_of_a_frame_survive(tmp_path: Path) -> None:
    path = make_video(
        tmp_path / "v.mp4", frames=3, rotation=90, matrix=1, color_range=2, transfer=1
    )
    crop = Cropper(EDGES)
    with open_video(path) as video:
        frames = [frame.picture for frame in video.frames()]
    for frame in frames:
        cut = crop(frame)
        for name in ("rotation", "colorspace", "color_range", "color_trc", "pts"):
            assert getattr(cut, name) == getattr(frame, name), name


def test_sides_turn_with_the_picture(tmp_path: Path) -> None:
    assert EDGES.upright(0) == EDGES
    assert EDGES.upright(180) == Edges(6, 4, 10, 8)
    path = make_video(tmp_path / "v.mp4", frames=1, rotation=90)
    with open_video(path) as video:
        frame = next(video.frames()).picture
        whole = PictureReader(Fraction(1))(frame)
        cut = PictureReader(Fraction(1), edges=EDGES)(frame)
        up = EDGES.upright(video.info.rotation)
        assert shown_inside(video.info, EDGES) == (cut.shape[1], cut.shape[0])
    height, width = whole.shape[:2]
    inside = whole[up.top : height - up.bottom, up.left : width - up.right]
    assert cut.shape == inside.shape
    # chroma at the new border is interpolated from one side only
    assert np.abs(cut.astype(int) - inside)[2:-2, 2:-2].max() <= 2


def test_what_is_left_is_told_in_square_pixels(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mp4", frames=1, aspect=Fraction(2))
    with open_video(path) as video:
        assert (video.info.width, video.info.height) == (128, 48)
        assert shown_inside(video.info, EDGES) == (128 - 36, 48 - 10)
