"""The held-out rule keeps combinations out of training without hiding any pair."""

from itertools import combinations as choose
from itertools import product

import numpy as np
import pytest

from ttvcli.core.world.vocabulary import (
    BACKGROUNDS,
    COLOURS,
    MOTIONS,
    SHAPES,
    combinations,
    held_out,
)


def test_the_world_is_as_large_as_promised():
    assert len(SHAPES) >= 6
    assert len(COLOURS) >= 8
    assert len(BACKGROUNDS) >= 6
    assert set(MOTIONS) == {
        "left", "right", "up", "down", "bounce", "circle", "grow", "shrink", "still",
    }  # fmt: skip


def test_an_eighth_of_all_combinations_is_held_out():
    everything = list(combinations())
    held = [combination for combination in everything if held_out(*combination)]
    assert len(everything) == len(SHAPES) * len(COLOURS) * len(MOTIONS)
    assert len(held) * 8 == len(everything)


def test_every_pair_of_attributes_is_seen_in_training():
    seen = [c for c in combinations() if not held_out(*c)]
    tables = (SHAPES, tuple(COLOURS), MOTIONS)
    for first, second in choose(range(3), 2):
        pairs = {(c[first], c[second]) for c in seen}
        assert pairs == set(product(tables[first], tables[second]))


def test_every_value_of_each_attribute_is_held_out_somewhere():
    held = [c for c in combinations() if held_out(*c)]
    for position, table in enumerate((SHAPES, tuple(COLOURS), MOTIONS)):
        assert {c[position] for c in held} == set(table)


def test_the_showcase_prompt_is_trained_on():
    assert not held_out("circle", "red", "right")


def test_names_outside_the_world_are_refused():
    with pytest.raises(ValueError, match="hexagon"):
        held_out("hexagon", "red", "left")


def test_backgrounds_are_grayer_than_every_object_colour():
    def chroma(rgb: tuple[int, int, int]) -> int:
        return max(rgb) - min(rgb)

    palest_object = min(map(chroma, COLOURS.values()))
    strongest_background = max(chroma(rgb) for pair in BACKGROUNDS.values() for rgb in pair)
    assert palest_object > 4 * strongest_background


def test_colours_are_far_apart():
    palette = np.array(list(COLOURS.values()), dtype=float)
    distance = np.linalg.norm(palette[:, None] - palette[None], axis=-1)
    assert distance[~np.eye(len(palette), dtype=bool)].min() > 90
