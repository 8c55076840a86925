"""Bars are found on all sides, in every orientation; dark pictures are not taken for bars."""

from pathlib import Path

import numpy as np
import pytest
from filter_views import clip, metrics_of, texture
from video_files import make_video

from ttvcli.core.filters.bars import FILTER, BarsLimits, BarsMeter
from ttvcli.core.filters.decode_pass import measure
from ttvcli.core.filters.size import FILTER as SIZE
from ttvcli.core.filters.size import SizeLimits


def boxed(top: int, bottom: int, left: int, right: int, level: int = 0) -> list[np.ndarray]:
    frames = []
    for seed in range(5):
        frame = np.full((180, 320), level, np.uint8)
        inside = texture(180 - top - bottom, 320 - left - right, seed)
        frame[top : 180 - bottom, left : 320 - right] = inside
        frames.append(frame)
    return frames


def test_letterbox_and_pillarbox_have_their_sizes() -> None:
    found = metrics_of(BarsMeter(), boxed(24, 24, 0, 0), fps=1)
    assert found == {
        **{"top": 0.1333, "bottom": 0.1333, "left": 0, "right": 0},
        "share": pytest.approx(48 / 180, abs=1e-3),
    }
    found = metrics_of(BarsMeter(), boxed(0, 0, 100, 100, level=255), fps=1)
    assert (found["left"], found["top"]) == (0.3125, 0)
    assert [f.code for f in FILTER.findings({"bars": found}, BarsLimits())] == ["bars"]


def test_a_frame_on_all_sides_is_found() -> None:
    found = metrics_of(BarsMeter(), boxed(20, 20, 40, 40), fps=1)
    assert found["share"] == pytest.approx(1 - 140 / 180 * 240 / 320, abs=1e-3)


def test_bars_on_one_side_or_in_some_frames_are_none() -> None:
    assert metrics_of(BarsMeter(), boxed(40, 0, 0, 0), fps=1)["share"] == 0
    frames = [*boxed(24, 24, 0, 0), *boxed(0, 0, 0, 0)]
    assert metrics_of(BarsMeter(), frames, fps=1)["share"] == 0


def test_dark_frames_between_do_not_matter() -> None:
    frames = [np.zeros((180, 320), np.uint8), *boxed(24, 24, 0, 0), np.zeros((180, 320), np.uint8)]
    assert metrics_of(BarsMeter(), frames, fps=1)["top"] == 0.1333


def test_a_ball_on_black_has_no_bars() -> None:
    y, x = np.mgrid[:180, :320]
    ball = ((y - 90) ** 2 + (x - 160) ** 2 < 60**2) * texture()
    assert metrics_of(BarsMeter(), [ball.astype(np.uint8)] * 5, fps=1)["share"] == 0


def test_bars_of_a_turned_video_are_told_as_shown(tmp_path: Path) -> None:
    frames = boxed(24, 24, 0, 0)
    path = make_video(tmp_path / "v.mp4", frames=1, rotation=90, size=(320, 180))
    meter = BarsMeter()
    metrics_of(meter, frames, fps=1)
    turned = measure(path, [FILTER]).metrics["bars"]
    assert turned["share"] == 0
    meter._turns = 1
    assert meter.finish(clip())["left"] == 0.1333


def test_the_size_counts_without_bars() -> None:
    metrics = {
        "size": {"short": 720, "width": 1280, "height": 720, "aspect": 1.78},
        "bars": {"top": 0.2, "bottom": 0.2, "left": 0, "right": 0, "share": 0.4},
    }
    (found,) = SIZE.findings(metrics, SizeLimits())
    assert (found.code, found.text) == (
        "too_small",
        "432 pixels between its bars, the limit is 480",
    )
    assert not list(SIZE.findings(metrics, SizeLimits(min=400)))
