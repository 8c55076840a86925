"""The record of a video: steady in time, small, the same with and without bars."""

import json

import numpy as np
import pytest

from ttvcli.core.filters.frame_hashes import FrameHasher, VideoHashes
from ttvcli.core.filters.perceptual_hash import distances


def scene(time: float, height: int = 90, width: int = 160) -> np.ndarray:
    """A picture with detail that changes with the seconds."""
    y, x = np.mgrid[:height, :width] / np.array([height, width])[:, None, None]
    waves = np.sin(9 * x + 2 * time) + np.cos(13 * y - 5 * x * x - time) + np.sin(23 * x * y)
    return (128 + 40 * waves).clip(0, 255).astype(np.uint8)


def record(frames: list[np.ndarray], fps: int = 24) -> VideoHashes:
    hasher = FrameHasher()
    for index, frame in enumerate(frames):
        hasher.add(frame, index / fps)
    return hasher.finish()


def test_a_window_each_quarter_of_a_second_whatever_the_frame_rate() -> None:
    for fps in (12, 24, 30, 50):
        found = record([scene(index / fps) for index in range(2 * fps)], fps)
        assert found.counts.sum() + found.flat == 7  # the last window ends with the video


def test_a_copy_that_starts_elsewhere_has_nearly_the_same_hashes() -> None:
    def moving(start: float, fps: int) -> VideoHashes:
        return record([scene(6 * (start + index / fps)) for index in range(2 * fps)], fps)

    source, later = moving(0, 24), moving(0.11, 30)
    nearest = distances(later.hashes[:, None, 0], source.hashes[None, :, 0]).min(axis=1)
    assert np.median(nearest) <= 31


def test_the_whole_of_a_cropped_copy_is_a_middle_of_the_source() -> None:
    picture = scene(0, 180, 320)
    source = record([picture] * 24).hashes[0]
    for entry, share in ((1, 0.025), (2, 0.05)):
        top, left = round(180 * share), round(320 * share)
        cropped = record([picture[top:-top, left:-left]] * 24).hashes[0, 0]
        assert distances(cropped, source[entry]) == 0
        assert distances(cropped, source[0]) > 8


def test_a_picture_held_for_long_counts_for_its_time() -> None:
    hasher = FrameHasher()
    for time in (0.0, 0.1, 5.0, 5.1):
        hasher.add(scene(0), time)
    assert hasher.finish().counts.tolist() == [20]


def test_a_still_picture_is_one_hash() -> None:
    found = record([scene(1.0)] * 240)
    assert found.counts.tolist() == [39]


def test_plain_frames_are_counted_and_left_out() -> None:
    found = record([np.full((90, 160), 90, np.uint8)] * 24 + [scene(1.0)] * 24)
    assert (found.flat, found.counts.sum()) == (3, 4)


def test_black_bars_change_no_hash() -> None:
    pictures = [scene(index / 24) for index in range(48)]
    barred = [np.pad(picture, ((14, 14), (0, 0)), constant_values=2) for picture in pictures]
    plain, found = record(pictures), record(barred)
    assert distances(plain.hashes, found.hashes).max() == 0
    assert found.content == pytest.approx(90 / 118, abs=1e-4)


def test_bars_are_known_before_the_first_frame_is_hashed() -> None:
    # An opening that is dark below looks like it had a bar there.
    opening = scene(0)
    opening[:14] = opening[76:] = 0
    found = record([opening] * 12 + [scene(0)] * 12)
    assert found.content == 1.0


def test_a_joined_recording_has_the_hashes_of_both_its_sizes() -> None:
    wide, high = [scene(1.0)] * 12, [scene(2.0, 160, 90)] * 12
    hasher = FrameHasher()
    for index, picture in enumerate(wide + high):
        hasher.add(picture, index / 24)
    found = hasher.finish()
    expected = np.concatenate([record(wide).hashes, record(high).hashes])
    assert np.array_equal(found.hashes, expected)


def test_a_record_goes_through_json() -> None:
    found = record([scene(index / 24) for index in range(48)])
    again = VideoHashes.from_json(json.loads(json.dumps(found.to_json())))
    assert np.array_equal(again.hashes, found.hashes)
    assert (again.counts.tolist(), again.flat) == (found.counts.tolist(), found.flat)


def test_memory_does_not_grow_with_a_long_film() -> None:
    hasher = FrameHasher()
    for index in range(400):
        hasher.add(scene(0), index / 4)
    assert hasher._waiting is None
    assert len(hasher._hashes) == 1


def test_a_video_without_frames_has_an_empty_record() -> None:
    assert FrameHasher().finish().hashes.shape == (0, 3, 4)
