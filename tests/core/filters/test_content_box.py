"""Bars are found where there are bars, and nowhere else."""

import numpy as np
import pytest

from ttvcli.core.filters.content_box import ContentBox


def box_of(*frames: np.ndarray) -> tuple[slice, slice]:
    box = ContentBox()
    for frame in frames:
        box.add(frame)
    return box.box()


def framed(top: int, bottom: int, side: int = 0) -> np.ndarray:
    frame = np.full((90, 160), 5, np.uint8)
    frame[top : 90 - bottom, side : 160 - side] = 120
    return frame


def test_bars_above_and_below_are_left_out() -> None:
    assert box_of(framed(11, 11)) == (slice(11, 79), slice(0, 160))


def test_bars_at_the_sides_are_left_out() -> None:
    assert box_of(framed(0, 0, side=20)) == (slice(0, 90), slice(20, 140))


def test_one_bright_frame_widens_the_box_for_good() -> None:
    assert box_of(framed(20, 20), framed(0, 0), framed(20, 20)) == (slice(0, 90), slice(0, 160))


@pytest.mark.parametrize(
    "frame",
    [framed(20, 3), framed(30, 30), np.zeros((90, 160), np.uint8)],
    ids=["a dark edge on one side", "an object on black", "black"],
)
def test_dark_pictures_are_not_taken_for_bars(frame: np.ndarray) -> None:
    assert box_of(frame)[0] == slice(0, 90)


def test_planes_of_two_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(45, 80\)"):
        box_of(np.zeros((90, 160), np.uint8), np.zeros((45, 80), np.uint8))
