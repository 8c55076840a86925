"""Motion is measured in per cent of the height a second, whatever the size and the frame rate."""

from itertools import pairwise

import numpy as np
import pytest
from filter_views import metrics_of, texture

from ttvcli.core.filters import motion
from ttvcli.core.filters.motion import FILTER, MotionLimits, MotionMeter, block_flows, pyramid


def pan(speed: float, fps: int, seconds: float = 1.6, height: int = 180) -> list[np.ndarray]:
    """A texture that moves to the right by `speed` per cent of the height a second."""
    large = texture(height, 3 * height, smooth=400)
    frames = []
    for number in range(round(seconds * fps)):
        shift = round(speed / 100 * height * number / fps)
        frames.append(np.roll(large, shift, axis=1)[:, : height * 16 // 9])
    return frames


@pytest.mark.parametrize("fps", [15, 24, 60])
@pytest.mark.parametrize("speed", [5.0, 20.0, 50.0])
def test_a_pan_has_its_speed(speed: float, fps: int) -> None:
    found = metrics_of(MotionMeter(), pan(speed, fps), fps)
    # Shifts are whole pixels of 180, and a few blocks at the edge lose fast texture: 5 % at 50.
    assert found["speed"] == pytest.approx(speed, rel=0.06, abs=0.6)
    assert found["shake"] < 3


def test_the_speed_does_not_depend_on_the_size() -> None:
    small = metrics_of(MotionMeter(), pan(20, 24, height=180))
    large = metrics_of(MotionMeter(), pan(20, 24, height=360))
    assert small["speed"] == pytest.approx(large["speed"], rel=0.05)


def test_a_still_picture_with_noise_stands_still() -> None:
    base = texture(360, 640, smooth=400).astype(float)
    generator = np.random.default_rng(1)
    noisy = (np.clip(base + generator.normal(0, 4, base.shape), 0, 255) for _ in range(60))
    found = metrics_of(MotionMeter(), (frame.astype(np.uint8) for frame in noisy))
    assert found["speed"] < MotionLimits().min / 2


def test_a_plain_picture_does_not_move() -> None:
    found = metrics_of(MotionMeter(), [np.full((90, 160), 90, np.uint8)] * 30)
    assert found["speed"] == 0


def test_a_shaking_camera_is_told_from_a_pan() -> None:
    large = texture(240, 420, smooth=400)
    frames = []
    for number in range(60):
        shift = round(12 - 12 * np.cos(np.pi * number / 6))  # 24 of 180 pixels, twice a second
        frames.append(large[30 : 30 + 180, 30 + shift : 350 + shift])
    found = metrics_of(MotionMeter(), frames)
    assert found["shake"] > MotionLimits().shake


def test_a_cut_is_no_motion() -> None:
    frames = [texture(seed=number // 6) for number in range(48)]  # a still picture every 0.25 s
    assert metrics_of(MotionMeter(), frames)["speed"] in (None, 0)


def test_the_flow_is_exact_to_a_hundredth_of_a_pixel() -> None:
    large = texture(180, 320, smooth=400)
    a, b = large[10:100, 10:170], large[8:98, 16:176]
    (flow,) = block_flows([(pyramid(a), pyramid(b))])
    assert np.median(flow, axis=1) == pytest.approx([1.0, -3.0], abs=0.01)


def test_too_small_pictures_have_no_flow() -> None:
    tiny = np.zeros((9, 9), np.uint8)
    (flow,) = block_flows([(pyramid(tiny), pyramid(tiny))])
    assert flow.shape == (2, 0)


def test_flows_of_several_pairs_are_those_of_each_pair_alone() -> None:
    large = texture(180, 320, smooth=400)
    plain = np.where(np.arange(160) < 80, 9, large[:90, :160]).astype(np.uint8)  # half of it empty
    pictures = [pyramid(p) for p in (large[10:100, 10:170], large[8:98, 16:176], plain)]
    pairs = list(pairwise(pictures))
    together = block_flows(pairs)
    alone = [flow for pair in pairs for flow in block_flows([pair])]
    assert len(together) == len(alone) == 2
    for one, other in zip(together, alone, strict=True):
        assert one.size
        assert np.array_equal(one, other)


def test_a_picture_of_another_size_is_followed_all_the_same() -> None:
    large = texture(180, 320, smooth=400)
    pictures = [pyramid(large[:90, :160]), pyramid(large[:64, :160]), pyramid(large[:64, :160])]
    assert [flow.shape[0] for flow in block_flows(list(pairwise(pictures)))] == [2, 2]


def test_sums_over_blocks_are_those_of_numpy() -> None:
    pictures = np.random.default_rng(0).normal(size=(6, 24, 40)).astype(np.float32)
    wanted = pictures.reshape(6, 3, 8, 5, 8).sum(axis=(2, 4), dtype=np.float64)
    found = motion._sums(motion._blocked(pictures, (6, 3, 5))).reshape(6, 3, 5)
    # 64 values of about 1: half a unit in the last place of float32 for each addition, at most
    assert abs(found - wanted).max() < 64 * 2**-20


def test_blocks_move_as_bilinear_interpolation_says() -> None:
    generator = np.random.default_rng(0)
    pictures = generator.normal(size=(2, 19, 27)).astype(np.float32)
    shape = (2, 2, 3)
    moves = generator.uniform(-6, 6, (2, 12)).astype(np.float32)
    outside = np.full((8, 8, 12), 99.0, np.float32)
    found = motion._moved(pictures, moves, shape, outside)
    for block, (number, row, column) in enumerate(np.ndindex(shape)):
        for i, j in np.ndindex(8, 8):
            y, x = 8 * row + i + moves[0, block], 8 * column + j + moves[1, block]
            wanted = 99.0
            if 0 <= y <= 18 and 0 <= x <= 26:
                top, left = min(int(y), 17), min(int(x), 25)
                down, right = y - top, x - left
                corner = pictures[number, top : top + 2, left : left + 2]
                wanted = np.array([1 - down, down]) @ corner @ np.array([1 - right, right])
            assert found[i, j, block] == pytest.approx(wanted, abs=1e-4)


def test_a_long_video_is_measured_as_its_looks_are_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    frames = pan(speed=10.0, fps=8, seconds=12.0, height=96)
    together = metrics_of(MotionMeter(), frames, fps=8)
    monkeypatch.setattr(motion, "_TOGETHER", 1)
    assert metrics_of(MotionMeter(), frames, fps=8) == together


@pytest.mark.parametrize(
    ("metrics", "codes"),
    [
        ({"speed": 0.1, "shake": 0.0}, ["still"]),
        ({"speed": 0.7, "shake": 0.0}, ["little_motion"]),
        ({"speed": 5.0, "shake": 0.0}, []),
        ({"speed": 80.0, "shake": 50.0}, ["too_fast", "shaking"]),
        ({"speed": None, "shake": None}, []),
    ],
)
def test_verdicts(metrics: dict[str, float], codes: list[str]) -> None:
    found = FILTER.findings({"motion": metrics}, MotionLimits())
    assert [entry.code for entry in found] == codes
