"""Picking frames by number: the right ones, converted once, one at a time."""

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from ttvcli.core.video.errors import UnreadableVideo
from ttvcli.core.video.frame_picker import FramePicker
from ttvcli.core.video.timeline import TimedFrame


def frames(count: int) -> Iterator[TimedFrame[Any]]:
    for number in range(count):
        picture: Any = number
        yield TimedFrame(number, 1, 1, picture)


def as_array(picture: Any) -> np.ndarray:
    return np.full((2, 2, 3), picture % 256, np.uint8)


def test_frames_come_by_their_numbers_and_may_repeat() -> None:
    picker = FramePicker(frames(9), as_array)
    assert [int(f[0, 0, 0]) for f in picker.pick([1, 1, 4, 5, 8, 8])] == [1, 1, 4, 5, 8, 8]
    assert int(picker(8)[0, 0, 0]) == 8  # a second clip may begin with it


def test_only_frames_that_are_shown_are_converted() -> None:
    converted, decoded = [], []

    def convert(picture: Any) -> np.ndarray:
        converted.append(picture)
        return as_array(picture)

    picker = FramePicker(frames(9), convert, lambda: decoded.append(1))
    list(picker.pick([2, 2, 5]))
    assert converted == [2, 5]
    assert len(decoded) == 6


def test_one_picture_is_held_however_long_the_video_is() -> None:
    alive = most = 0

    def gone() -> None:
        nonlocal alive
        alive -= 1

    def convert(picture: Any) -> np.ndarray:
        nonlocal alive, most
        array = as_array(picture)
        alive += 1
        most = max(most, alive)
        weakref.finalize(array, gone)
        return array

    for _ in FramePicker(frames(500), convert).pick(range(0, 500, 2)):
        pass
    gc.collect()
    assert most <= 2  # the one that is shown, and the one being made


def test_going_back_is_a_mistake() -> None:
    picker = FramePicker(frames(9), as_array)
    picker(4)
    with pytest.raises(ValueError, match="frame 3 was asked for after frame 4"):
        picker(3)


def test_a_file_that_lost_frames_since_the_first_pass_is_an_error() -> None:
    with pytest.raises(UnreadableVideo, match="first pass"):
        list(FramePicker(frames(3), as_array).pick([0, 3]))
