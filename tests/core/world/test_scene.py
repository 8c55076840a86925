"""Scenes are exact ground truth: they survive JSON, move as named and stay continuous."""

import json
from itertools import pairwise

import numpy as np
import pytest

from ttvcli.core.world.fixed_paths import paths_of
from ttvcli.core.world.sampling import MARGIN, MIN_ORBIT, MIN_TRAVEL, PATHS, sample_scene
from ttvcli.core.world.scene import SEGMENT_FRAMES, Scene, Segment, WorldObject, track
from ttvcli.core.world.vocabulary import MOTIONS, held_out


def scenes(count: int, **settings) -> list[Scene]:
    return [sample_scene(np.random.default_rng([1, i]), **settings) for i in range(count)]


def test_a_scene_survives_json_exactly():
    scene = sample_scene(np.random.default_rng(3), seconds=30)
    assert Scene.from_json(json.loads(json.dumps(scene.to_json()))) == scene


@pytest.mark.parametrize("seconds", [3, 9, 18, 30, 63])
def test_a_clip_has_48_frames_a_segment_and_one_more(seconds):
    scene = sample_scene(np.random.default_rng(0), seconds=seconds)
    assert scene.frames == 16 * seconds + 1
    assert track(scene).shape == (scene.frames, len(scene.identities), 4)


def test_the_same_generator_gives_the_same_scene():
    assert scenes(3, seconds=18) == scenes(3, seconds=18)


def test_training_scenes_hold_no_held_out_combination():
    for scene in [*scenes(100), *scenes(8, seconds=63)]:
        for segment in scene.segments:
            assert not any(held_out(o.shape, o.colour, o.motion) for o in segment.objects)


def test_held_out_scenes_hold_nothing_else():
    for scene in [*scenes(60, split="heldout"), *scenes(5, split="heldout", seconds=9)]:
        for segment in scene.segments:
            assert all(held_out(o.shape, o.colour, o.motion) for o in segment.objects)


def test_short_clips_show_every_motion_in_one_or_two_objects():
    many = scenes(300)
    counts = [len(scene.segments[0].objects) for scene in many]
    assert 0.1 < np.mean(np.array(counts) == 2) < 0.2
    assert {o.motion for scene in many for o in scene.segments[0].objects} == set(MOTIONS)


def test_objects_of_short_clips_stay_inside_and_apart():
    for scene in scenes(150, split="all"):
        x, y, radius, visible = np.moveaxis(track(scene), -1, 0)
        assert (np.minimum(x, y) - radius >= 0).all()
        assert (np.maximum(x, y) + radius <= 1).all()
        assert np.allclose(visible, 1)
        if x.shape[1] == 2:
            distance = np.hypot(x[:, 0] - x[:, 1], y[:, 0] - y[:, 1])
            assert (distance > 0.9 * radius.sum(axis=1)).all()


def test_motions_are_plain_to_see():
    for scene in scenes(200, objects=1):
        (item,) = scene.segments[0].objects
        x, y, radius = track(scene)[:, 0, :3].T
        if item.motion in ("left", "right"):
            sign = 1 if item.motion == "right" else -1
            assert sign * (x[-1] - x[0]) >= MIN_TRAVEL - 1e-9
            assert np.ptp(y) == 0
        elif item.motion in ("up", "down"):
            sign = 1 if item.motion == "down" else -1
            assert sign * (y[-1] - y[0]) >= MIN_TRAVEL - 1e-9
            assert np.ptp(x) == 0
        elif item.motion == "circle":
            assert min(np.ptp(x), np.ptp(y)) >= 2 * MIN_ORBIT * 0.99
        elif item.motion == "grow":
            assert radius[-1] > 2 * radius[0]
        elif item.motion == "shrink":
            assert radius[-1] < 0.5 * radius[0]
        elif item.motion == "still":
            assert np.ptp(x) == np.ptp(y) == np.ptp(radius) == 0


def test_motion_is_continuous_across_segments_of_a_scene():
    for scene in scenes(8, seconds=63):
        for before, after in zip(scene.segments, scene.segments[1:], strict=False):
            if after.scene_start:
                assert before.scene_end
                assert before.background != after.background
                continue
            assert before.background == after.background
            last = {o.identity: o for o in before.objects if o.event != "leave"}
            for item in after.objects:
                if item.identity in last:
                    start = (item.x, item.y, item.radius)
                    assert last[item.identity].end() == pytest.approx(start, abs=1e-12)


def test_in_long_clips_objects_leave_and_come_back_the_same():
    returns = 0
    for scene in scenes(8, seconds=63):
        looks: dict[int, set[tuple[str, str]]] = {}
        for segment in scene.segments:
            for item in segment.objects:
                looks.setdefault(item.identity, set()).add((item.shape, item.colour))
                returns += item.event == "return"
        assert all(len(look) == 1 for look in looks.values())
    assert returns > 3


def test_an_object_that_leaves_is_out_of_sight_at_the_end():
    for scene in scenes(8, seconds=63):
        table = track(scene)
        for index, segment in enumerate(scene.segments[:-1]):
            for item in segment.objects:
                if item.event == "leave":
                    column = scene.identities.index(item.identity)
                    assert table[(index + 1) * SEGMENT_FRAMES - 1, column, 3] == 0


@pytest.mark.parametrize(
    "settings",
    [{"split": "test"}, {"paths": "few"}, {"seconds": 4}, {"seconds": 0}, {"objects": 3}],
)
def test_impossible_requests_are_refused(settings):
    with pytest.raises(ValueError, match=str(next(iter(settings.values())))):
        sample_scene(np.random.default_rng(0), **settings)


def test_fixed_paths_are_few_and_stay_inside():
    one = {"objects": 1, "paths": "fixed", "split": "all"}
    many = scenes(400, **one)
    assert {s.segments[0].objects[0].motion for s in many} == set(MOTIONS)
    for scene in many:
        x, y, radius, _ = np.moveaxis(track(scene), -1, 0)
        assert (np.minimum(x, y) - radius >= MARGIN).all()
        assert (np.maximum(x, y) + radius <= 1 - MARGIN).all()
    different = {track(scene).round(6).tobytes() for scene in many}
    assert len(different) == sum(len(paths_of(motion)) for motion in MOTIONS) == 34


def test_long_clips_on_fixed_paths_go_on_where_they_were():
    for scene in scenes(10, seconds=63, objects=1, paths="fixed"):
        for before, after in pairwise(scene.segments):
            if after.scene_start or not (before.objects and after.objects):
                continue
            last, first = before.objects[0], after.objects[0]
            if last.event != "leave":
                assert np.allclose(last.end(), (first.x, first.y, first.radius), atol=1e-3)


def test_two_objects_move_freely_whatever_the_paths():
    rngs = np.random.default_rng(4), np.random.default_rng(4)
    free, fixed = (sample_scene(r, objects=2, paths=p) for r, p in zip(rngs, PATHS, strict=True))
    assert free == fixed


def test_unknown_names_cannot_enter_a_scene():
    with pytest.raises(ValueError, match="mauve"):
        WorldObject(0, "circle", "mauve", "still", 0.5, 0.5, 0.2)
    with pytest.raises(ValueError, match="plaid"):
        Segment("plaid", ())
