"""The checker sees what is there, also after lossy video, blur and noise, and only that."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ttvcli.core.video.decode import read_frames
from ttvcli.core.video.encode import write_video
from ttvcli.core.world.checker import CheckResult, check_clip, check_segments, summarise
from ttvcli.core.world.render import render_clip
from ttvcli.core.world.sampling import sample_scene
from ttvcli.core.world.scene import Scene, Segment, WorldObject, track
from ttvcli.core.world.vocabulary import BACKGROUNDS, COLOURS, MOTIONS, SHAPES


def truth(segment: Segment) -> dict[str, Any]:
    keys = ("shape", "colour", "motion", "event")
    objects = [{key: getattr(item, key) for key in keys} for item in segment.objects]
    return {"objects": objects, "background": segment.background}


def through_h264(frames: np.ndarray, folder: Path) -> np.ndarray:
    path = folder / "clip.mp4"
    write_video(path, frames, 16, crf=10)
    return np.stack([frame for _, frame in read_frames(path)])


def blurred_and_noisy(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gaussian blur of 0.8 pixels and noise of 6/255."""
    kernel = np.exp(-(np.arange(-3, 4) ** 2) / (2 * 0.8**2))
    kernel /= kernel.sum()
    size = frames.shape[1]
    padded = np.pad(frames.astype(float), ((0, 0), (3, 3), (3, 3), (0, 0)), mode="edge")
    rows = sum(weight * padded[:, i : i + size] for i, weight in enumerate(kernel))
    both = sum(weight * rows[:, :, i : i + size] for i, weight in enumerate(kernel))
    return np.clip(np.rint(both + rng.normal(0, 6, both.shape)), 0, 255).astype(np.uint8)


def check_many(count: int, folder: Path, damage: str, objects: int) -> list[CheckResult]:
    results = []
    for i in range(count):
        rng = np.random.default_rng([5, objects, i])
        scene = sample_scene(rng, "all", objects=objects)
        frames = render_clip(scene, 64)
        if damage == "h264":
            frames = through_h264(frames, folder)
        elif damage == "blur and noise":
            frames = blurred_and_noisy(frames, rng)
        results.append(check_clip(frames, truth(scene.segments[0])))
    return results


@pytest.mark.parametrize("objects", [1, 2])
@pytest.mark.parametrize("damage", ["h264", "blur and noise"])
def test_rendered_clips_are_recognised(tmp_path, damage, objects):
    table = summarise(check_many(4, tmp_path, damage, objects))
    assert table["correct"] == 1
    assert table["found_share"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("objects", [1, 2])
@pytest.mark.parametrize(("damage", "least"), [("h264", 0.99), ("blur and noise", 0.97)])
def test_many_rendered_clips_are_recognised(tmp_path, damage, least, objects):
    table = summarise(check_many(120, tmp_path, damage, objects))
    for score in ("colour", "shape", "motion", "background", "correct"):
        assert table[score] >= least, table


def clip_of(*objects: WorldObject, background: str = "gray", size: int = 64) -> np.ndarray:
    return render_clip(Scene((Segment(background, objects),)), size)


def one(shape: str = "circle", colour: str = "red", motion: str = "still", **numbers) -> Any:
    return WorldObject(0, shape, colour, motion, 0.3, 0.4, 0.18, **numbers)


ASKED = {"objects": [{"shape": "circle", "colour": "red", "motion": "right"}], "background": None}


@pytest.mark.parametrize("wrong", ["shape", "colour", "motion"])
def test_a_wrong_attribute_costs_that_score_and_no_other(wrong):
    seen = {"shape": "circle", "colour": "red", "motion": "right", "dx": 0.4}
    seen[wrong] = {"shape": "square", "colour": "pink", "motion": "left"}[wrong]
    if wrong == "motion":
        seen["dx"] = -0.4
    start = 0.75 if wrong == "motion" else 0.25
    item = WorldObject(0, x=start, y=0.5, radius=0.18, **seen)
    result = check_clip(clip_of(item), ASKED)
    assert not getattr(result, wrong)
    assert all(getattr(result, other) for other in {"shape", "colour", "motion"} - {wrong})
    assert not result.correct


def test_what_is_found_does_not_depend_on_what_was_asked():
    frames = clip_of(one("star", "cyan", "right", dx=0.4))
    other = {"objects": [{"shape": "ring", "colour": "blue", "motion": "up"}], "background": "navy"}
    assert check_clip(frames, ASKED).found == check_clip(frames, other).found


def test_every_shape_and_colour_is_told_apart_where_they_are_small():
    for shape in SHAPES:
        for colour in COLOURS:
            item = WorldObject(0, shape, colour, "still", 0.5, 0.5, 0.13)
            (found,) = check_clip(clip_of(item, background="stripes")[:6], ASKED).found
            assert (found.shape, found.colour, found.motion) == (shape, colour, "still")


def test_the_measured_track_follows_the_true_one():
    item = WorldObject(0, "triangle", "green", "circle", 0.6, 0.5, 0.17, extent=0.2, turns=1)
    scene = Scene((Segment("black", (item,)),))
    (found,) = check_clip(render_clip(scene, 64), ASKED).found
    error = np.abs(np.array(found.track)[:, :3] - track(scene)[:, 0, :3])
    assert error.max() < 0.5 / 64


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_an_empty_clip_shows_no_object_and_its_background(background):
    result = check_clip(clip_of(background=background), ASKED)
    assert result.found == ()
    assert result.missing_objects == 1
    assert (result.colour, result.shape, result.motion) == (False, False, False)
    assert result.seen_background == background


def test_a_second_object_that_nobody_asked_for_is_reported():
    other = WorldObject(1, "square", "blue", "still", 0.75, 0.75, 0.15)
    item = WorldObject(0, "circle", "red", "right", 0.25, 0.3, 0.16, dx=0.4)
    result = check_clip(clip_of(item, other), ASKED)
    assert result.colour
    assert result.shape
    assert result.motion
    assert result.extra_objects == 1
    assert not result.correct


def test_what_the_prompt_leaves_open_is_not_scored():
    asked = {"objects": [{"shape": "circle", "colour": None, "motion": None}], "background": None}
    result = check_clip(clip_of(one()), asked)
    assert result.shape
    assert result.colour is result.motion is result.background is None


def test_noise_is_no_object_and_no_steady_background():
    frames = np.random.default_rng(0).integers(0, 255, (49, 64, 64, 3), dtype=np.uint8)
    result = check_clip(frames, ASKED)
    assert not result.correct
    assert result.shape is False or result.motion is False


def test_flicker_is_the_mean_change_of_the_background():
    frames = clip_of(one(), background="gray")
    assert check_clip(frames, ASKED).flicker == 0
    frames[1::2] += 4
    assert check_clip(frames, ASKED).flicker == pytest.approx(4)


def test_jumping_about_is_no_motion_of_the_world():
    frames = clip_of(one())
    rng = np.random.default_rng(0)
    jumps = [np.roll(f, rng.integers(-8, 24, 2), axis=(0, 1)) for f in frames]
    (found,) = check_clip(np.stack(jumps), ASKED).found
    assert found.motion not in {"left", "right", "up", "down", "still", "grow", "shrink"}


@pytest.mark.parametrize("size", [48, 128, 256])
def test_other_frame_sizes_are_checked_too(size):
    moving = one("star", "orange", "right", dx=0.4)
    (found,) = check_clip(clip_of(moving, size=size), ASKED).found
    assert (found.shape, found.colour, found.motion) == ("star", "orange", "right")


def test_long_clips_are_checked_by_segment():
    scene = sample_scene(np.random.default_rng(11), seconds=9)
    results = check_segments(render_clip(scene, 48), [truth(s) for s in scene.segments])
    assert [result.correct for result in results] == [True] * 3
    with pytest.raises(ValueError, match="145"):
        check_segments(np.zeros((49, 64, 64, 3), np.uint8), [ASKED] * 3)


def test_leaving_and_returning_are_motions_in_their_direction():
    leaves = WorldObject(0, "square", "blue", "up", 0.5, 0.4, 0.2, dy=-0.65, event="leave")
    returns = WorldObject(0, "square", "blue", "down", 0.5, -0.22, 0.2, dy=0.5, event="return")
    for item in (leaves, returns):
        (found,) = check_clip(clip_of(item), ASKED).found
        assert found.motion == item.motion
        assert found.found_share < 1


@pytest.mark.parametrize("motion", MOTIONS)
def test_every_motion_is_named(motion):
    scenes = (sample_scene(np.random.default_rng([9, i]), objects=1) for i in range(200))
    scene = next(s for s in scenes if s.segments[0].objects[0].motion == motion)
    (found,) = check_clip(render_clip(scene, 48), ASKED).found
    assert found.motion == motion


def test_results_are_plain_data():
    import json

    result = check_clip(clip_of(one()), ASKED)
    assert json.loads(json.dumps(result.to_json()))["found"][0]["colour"] == "red"


def test_frames_of_another_kind_are_refused():
    with pytest.raises(ValueError, match="float64"):
        check_clip(np.zeros((49, 64, 64, 3)), ASKED)
