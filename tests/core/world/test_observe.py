"""The tiny world's own captioner says what was drawn, and nothing about anything else."""

import numpy as np
import pytest

from ttvcli.core.world.grammar import parse
from ttvcli.core.world.observe import observe
from ttvcli.core.world.render import render_clip
from ttvcli.core.world.sampling import sample_scene
from ttvcli.core.world.scene import SEGMENT_FRAMES, Scene, Segment, WorldObject


def drawn(objects: tuple[WorldObject, ...], background: str = "navy") -> np.ndarray:
    return render_clip(Scene((Segment(background, objects),)), 32)


@pytest.mark.parametrize("seed", range(4))
def test_every_segment_is_named_as_it_was_drawn(seed: int) -> None:
    scene = sample_scene(np.random.default_rng(seed), "all", 6)
    frames = render_clip(scene, 48)
    for number, segment in enumerate(scene.segments):
        seen = observe(frames[number * SEGMENT_FRAMES :][:SEGMENT_FRAMES])
        assert seen is not None
        assert seen.background == segment.background
        found = sorted((o.shape, o.colour, o.motion, o.event) for o in seen.objects)
        assert found == sorted((o.shape, o.colour, o.motion, o.event) for o in segment.objects)


@pytest.mark.parametrize(("event", "start"), [("leave", 0.5), ("return", -0.3)])
def test_who_leaves_and_who_comes_back_is_told(event: str, start: float) -> None:
    item = WorldObject(0, "circle", "red", "right", start, 0.5, 0.2, dx=0.8, event=event)
    seen = observe(drawn((item,)))
    assert seen is not None
    said = parse(seen.caption(np.random.default_rng(0)))
    assert said is not None
    assert (said["objects"][0]["motion"], said["objects"][0]["event"]) == ("right", event)


def test_an_empty_picture_is_described_too() -> None:
    seen = observe(drawn(()))
    assert seen is not None
    said = parse(seen.caption(np.random.default_rng(0)))
    assert said == {"objects": [], "background": "navy"}


def test_noise_is_not_the_tiny_world() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (48, 32, 32, 3), dtype=np.uint8)
    assert observe(noise) is None


def test_a_photograph_like_gradient_is_not_the_tiny_world() -> None:
    ramp = np.linspace(0, 255, 32, dtype=np.uint8)
    frame = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None, ::-1], 255 - ramp[:, None]), -1)
    assert observe(np.stack([frame] * 48)) is None


def test_frames_of_another_kind_are_refused() -> None:
    with pytest.raises(ValueError, match="uint8"):
        observe(np.zeros((48, 32, 32, 3), np.float32))
