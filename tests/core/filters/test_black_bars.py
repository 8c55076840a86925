"""Bars are cut off when they surely are some; dark pictures and things on black stay whole."""

from collections.abc import Iterable

import av
import numpy as np
import pytest
from filter_views import texture

from ttvcli.core.filters.black_bars import BlackBars
from ttvcli.core.video.crop import Edges
from ttvcli.core.video.timeline import TimedFrame

HIGH, WIDE = 180, 320


def edges_of(pictures: Iterable[np.ndarray], fps: int = 2) -> Edges:
    """What is found on pictures: uint8 grey `[H, W]`."""
    bars = BlackBars()
    for number, picture in enumerate(pictures):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="gray")
        bars.see(TimedFrame(number, 1, fps, frame))
    return bars.edges()


def boxed(top: int, bottom: int, left: int, right: int, count: int = 6) -> list[np.ndarray]:
    """Pictures of random structure inside black bars with some noise, as encoders leave it."""
    frames = []
    for seed in range(count):
        frame = np.random.default_rng(seed).integers(0, 9, (HIGH, WIDE)).astype(np.uint8)
        inside = texture(HIGH - top - bottom, WIDE - left - right, seed)
        frame[top : HIGH - bottom, left : WIDE - right] = np.maximum(inside, 50)
        frames.append(frame)
    return frames


@pytest.mark.parametrize(
    ("bars", "cut"),
    [
        ((24, 24, 0, 0), Edges(26, 26, 0, 0)),
        ((0, 0, 39, 41), Edges(0, 0, 40, 42)),
        ((20, 21, 40, 40), Edges(22, 22, 42, 42)),
        ((44, 44, 0, 0), Edges(46, 46, 0, 0)),
        ((0, 0, 0, 0), Edges()),
    ],
)
def test_bars_are_cut_to_even_lines_with_the_line_that_blends(
    bars: tuple[int, int, int, int], cut: Edges
) -> None:
    assert edges_of(boxed(*bars)) == cut


@pytest.mark.parametrize(
    "bars",
    [
        (24, 0, 0, 0),  # on one side only
        (24, 30, 0, 0),  # not alike
        (50, 50, 0, 0),  # over a quarter of the side
        (1, 1, 0, 0),
    ],
)
def test_what_is_no_pair_of_bars_stays(bars: tuple[int, int, int, int]) -> None:
    assert not edges_of(boxed(*bars))


def test_bars_that_are_gone_in_one_frame_stay() -> None:
    assert not edges_of([*boxed(24, 24, 0, 0), *boxed(0, 0, 0, 0, count=1)])


def test_bars_have_to_be_seen_in_five_frames() -> None:
    assert not edges_of(boxed(24, 24, 0, 0, count=4))
    assert edges_of(boxed(24, 24, 0, 0, count=5))
    assert not edges_of(boxed(24, 24, 0, 0, count=8), fps=4)  # two frames a second are looked at


def test_frames_that_show_more_black_than_the_bars_do_not_count() -> None:
    closing = [frame for n in range(10) for frame in boxed(24 + 5 * n, 24 + 5 * n, 0, 0, count=1)]
    assert not edges_of(closing)  # an iris that opens, not bars
    assert edges_of([*closing, *boxed(24, 24, 0, 0)]) == Edges(26, 26, 0, 0)


def test_black_frames_between_do_not_matter() -> None:
    black = np.zeros((HIGH, WIDE), np.uint8)
    assert edges_of([black, *boxed(24, 24, 0, 0), black]) == Edges(26, 26, 0, 0)
    assert not edges_of([black] * 9)


def test_a_dark_scene_with_soft_edges_stays() -> None:
    y, x = np.mgrid[:HIGH, :WIDE]
    glow = 255 * np.exp(-(((y - 90) / 45) ** 2) - ((x - 160) / 90) ** 2)
    assert not edges_of([glow.astype(np.uint8)] * 8)


def test_the_earth_on_black_stays() -> None:
    y, x = np.mgrid[:HIGH, :WIDE]
    for centre, radius in ((160, 60), (160, 80), (110, 60)):
        disc = (y - 90) ** 2 + (x - centre) ** 2 < radius**2
        assert not edges_of([disc * np.maximum(texture(), 60)] * 8)


def test_a_lit_window_in_the_dark_stays() -> None:
    frame = np.zeros((HIGH, WIDE), np.uint8)
    frame[50:130, 60:140] = np.maximum(texture(80, 80), 60)
    assert not edges_of([frame] * 8)


def test_the_picture_may_be_dark_at_one_of_its_edges() -> None:
    for dark, found in ((210, True), (300, False)):  # of 320 points beside the lower bar
        frames = boxed(24, 24, 0, 0)
        for frame in frames:
            frame[140:156, :dark] = 10
        assert bool(edges_of(frames)) == found


def test_a_thin_dark_strip_on_one_side_is_no_bar() -> None:
    frames = boxed(0, 0, 0, 0)
    for frame in frames:
        frame[-3:] = 0
        frame[-10:-3, :210] = 10
    assert not edges_of(frames)


def test_lines_that_flicker_into_the_bars_go_with_them() -> None:
    frames = boxed(24, 24, 0, 0, count=9)
    for frame in frames[:3]:
        frame[22:24, 40:60] = frame[156:158, 40:60] = 60  # what strong compression leaves
    assert edges_of(frames) == Edges(26, 26, 0, 0)
    for frame in frames:
        frame[22:24, 40:60] = 60  # always there: it is part of the picture
    assert edges_of(frames) == Edges(24, 26, 0, 0)


def test_titles_in_the_bars_keep_them() -> None:
    frames = boxed(24, 24, 0, 0)
    for frame in frames[2:4]:
        frame[165:172, 100:220:3] = 230
    assert not edges_of(frames)


def test_a_video_that_changes_its_size_stays() -> None:
    assert not edges_of([*boxed(24, 24, 0, 0), *(np.zeros((90, 160), np.uint8),)])
