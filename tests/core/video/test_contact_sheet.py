"""The contact sheet."""

import io

import numpy as np
import pytest
from PIL import Image

from ttvcli.core.video.contact_sheet import contact_sheet, evenly_spaced


def plain(*shades: int) -> list[np.ndarray]:
    return [np.full((48, 64, 3), shade, np.uint8) for shade in shades]


def open_sheet(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def test_frames_are_in_reading_order_and_not_altered() -> None:
    sheet = open_sheet(contact_sheet(plain(50, 100, 150), [0, 1, 2], columns=2, padding=4))
    width, height = 64, 48 + 13
    for shade, column, row in ((50, 0, 0), (100, 1, 0), (150, 0, 1)):
        x, y = 4 + column * (width + 4), 4 + row * (height + 4)
        assert (sheet[y : y + 48, x : x + 64] == shade).all()


def test_small_frames_can_be_enlarged() -> None:
    once = open_sheet(contact_sheet(plain(50), [0]))
    twice = open_sheet(contact_sheet(plain(50), [0], scale=2))
    assert twice.shape[1] - once.shape[1] == 64


def test_each_frame_has_its_time_below_it() -> None:
    first = open_sheet(contact_sheet(plain(50), [0.0]))
    second = open_sheet(contact_sheet(plain(50), [1.5]))
    assert (first[:52] == second[:52]).all()
    assert (first[52:] != second[52:]).any()


def test_equal_frames_give_equal_bytes() -> None:
    assert contact_sheet(plain(1, 2), [0, 1]) == contact_sheet(plain(1, 2), [0, 1])


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="one time a frame"):
        contact_sheet(plain(1, 2), [0])
    with pytest.raises(ValueError, match="one time a frame"):
        contact_sheet([], [])
    with pytest.raises(ValueError, match="one size"):
        contact_sheet([*plain(1), np.zeros((2, 2, 3), np.uint8)], [0, 1])


@pytest.mark.parametrize(
    ("total", "count", "expected"),
    [(49, 7, [0, 8, 16, 24, 32, 40, 48]), (3, 8, [0, 1, 2]), (10, 1, [0]), (1, 4, [0])],
)
def test_evenly_spaced_frames_include_both_ends(
    total: int, count: int, expected: list[int]
) -> None:
    assert evenly_spaced(total, count) == expected
