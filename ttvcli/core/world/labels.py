"""Captions of the tiny world with the attributes they name, as class numbers for a classifier."""

import numpy as np

from ttvcli.core.world.grammar import parse
from ttvcli.core.world.sampling import sample_scene
from ttvcli.core.world.vocabulary import BACKGROUNDS, COLOURS, MOTIONS, SHAPES

_TABLES = {"shape": tuple(SHAPES), "colour": tuple(COLOURS), "motion": tuple(MOTIONS)}
_OBJECTS = 2


def label_classes() -> dict[str, int]:
    """Number of classes of each attribute; class 0 means that the caption does not name it."""
    classes = {
        f"{name}_{i}": len(table) + 1 for i in range(_OBJECTS) for name, table in _TABLES.items()
    }
    return {**classes, "background": len(BACKGROUNDS) + 1}


def caption_labels(rng: np.random.Generator) -> tuple[str, dict[str, int]]:
    """A caption of the training split and the class of each attribute, objects as mentioned."""
    while True:
        caption = sample_scene(rng, "train").segments[0].caption
        said = parse(caption)
        if said is not None:
            break
    labels = dict.fromkeys(label_classes(), 0)
    for i, item in enumerate(said["objects"][:_OBJECTS]):
        for name, table in _TABLES.items():
            if item[name] is not None:
                labels[f"{name}_{i}"] = 1 + table.index(item[name])
    if said["background"] is not None:
        labels["background"] = 1 + tuple(BACKGROUNDS).index(said["background"])
    return caption, labels
