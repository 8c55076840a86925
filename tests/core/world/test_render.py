"""Frames show the scene: exact places, areas and colours, at any size, as a stream."""

import numpy as np
import pytest

from ttvcli.core.world.render import (
    render_background,
    render_clip,
    render_frame,
    render_frames,
)
from ttvcli.core.world.sampling import sample_scene
from ttvcli.core.world.scene import Scene, Segment, WorldObject, track
from ttvcli.core.world.vocabulary import BACKGROUNDS, COLOURS, SHAPES


def still(shape: str, colour: str = "red", background: str = "gray", radius: float = 0.2) -> Scene:
    return Scene(
        (Segment(background, (WorldObject(0, shape, colour, "still", 0.5, 0.5, radius),)),)
    )


def test_frames_clips_and_streams_agree():
    scene = sample_scene(np.random.default_rng(1), seconds=9)
    clip = render_clip(scene, 32)
    assert clip.shape == (145, 32, 32, 3)
    assert clip.dtype == np.uint8
    assert all(map(np.array_equal, clip, render_frames(scene, 32)))
    for frame in (0, 47, 48, 100, 144):
        assert np.array_equal(render_frame(scene, frame, 32), clip[frame])


def test_a_long_clip_is_a_stream():
    scene = sample_scene(np.random.default_rng(1), seconds=63)
    stream = render_frames(scene, 16)
    assert next(stream).shape == (16, 16, 3)
    assert 1 + sum(1 for _ in stream) == 1009


@pytest.mark.parametrize("fps", [8, 24])
def test_another_frame_rate_shows_the_same_moments(fps):
    scene = sample_scene(np.random.default_rng(4), seconds=3)
    slow, plain = list(render_frames(scene, 32, fps)), render_clip(scene, 32)
    assert len(slow) == 3 * fps + 1
    assert np.array_equal(slow[fps], plain[16])


@pytest.mark.parametrize("shape", SHAPES)
def test_the_centre_of_a_shape_has_its_colour_and_a_corner_the_background(shape):
    frame = render_frame(still(shape, "blue"), 0, 64)
    column = 32 + round(0.77 * 0.2 * 64) if shape == "ring" else 32
    assert tuple(frame[32, column]) == COLOURS["blue"]
    assert tuple(frame[0, 0]) == BACKGROUNDS["gray"][0]


@pytest.mark.parametrize(
    ("shape", "area"),
    [
        ("circle", np.pi),
        ("square", 1.72**2),
        ("triangle", 1.8),  # base 2, height 1.8
        ("cross", 4 * 2 * 0.34 - 4 * 0.34**2),
        ("ring", np.pi * (1 - 0.54**2)),
        ("star", 10 * 0.5 * 0.46 * np.sin(np.pi / 5)),
    ],
)
def test_edges_are_smoothed_without_changing_the_area(shape, area):
    radius, size = 0.2, 64
    frame = render_frame(still(shape, "red", "black", radius), 0, size).astype(float)
    dark, bright = BACKGROUNDS["black"][0][0], COLOURS["red"][0]
    covered = ((frame[..., 0] - dark) / (bright - dark)).sum()
    # Half a pixel at each corner of a polygon is what a signed distance cannot tell.
    assert covered == pytest.approx(area * (radius * size) ** 2, rel=0.03)
    assert len(np.unique(frame[..., 0])) > 2


def test_the_drawn_object_is_where_the_track_says():
    scene = Scene(
        (Segment("black", (WorldObject(0, "circle", "red", "right", 0.25, 0.4, 0.18, dx=0.5),)),)
    )
    clip = render_clip(scene, 64).astype(float)[..., 0] - BACKGROUNDS["black"][0][0]
    pixels = np.arange(64) + 0.5
    weight = clip.sum(axis=(1, 2))
    x = (clip.sum(axis=1) @ pixels) / weight / 64
    y = (clip.sum(axis=2) @ pixels) / weight / 64
    assert np.abs(x - track(scene)[:, 0, 0]).max() < 0.002
    assert np.abs(y - track(scene)[:, 0, 1]).max() < 0.002


def test_an_object_outside_of_the_frame_leaves_only_the_background():
    away = WorldObject(0, "star", "pink", "left", -0.5, 0.5, 0.2)
    frame = render_frame(Scene((Segment("stripes", (away,)),)), 0, 32)
    assert np.array_equal(frame, np.rint(render_background("stripes", 32)).astype(np.uint8))


@pytest.mark.parametrize("size", [16, 50, 64, 128])
def test_backgrounds_differ_at_any_size(size):
    drawn = [render_background(name, size) for name in BACKGROUNDS]
    for i, first in enumerate(drawn):
        assert first.shape == (size, size, 3)
        for second in drawn[:i]:
            assert np.abs(first - second).mean() > 5


def test_frames_outside_of_the_clip_are_refused():
    with pytest.raises(ValueError, match="49"):
        render_frame(still("circle"), 49, 32)
