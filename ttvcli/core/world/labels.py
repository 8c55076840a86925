"""Captions of the tiny world with the attributes they name, as class numbers for a classifier."""

import numpy as np

from ttvcli.core.world.grammar import parse
from ttvcli.core.world.sampling import sample_scene
from ttvcli.core.world.scene import EVENTS, SEGMENT_SECONDS
from ttvcli.core.world.vocabulary import BACKGROUNDS, COLOURS, MOTIONS, SHAPES

_TABLES = {
    "shape": tuple(SHAPES),
    "colour": tuple(COLOURS),
    "motion": tuple(MOTIONS),
    "event": EVENTS[1:],
}
_OBJECTS = 2
_LONG_SHARE, _LONG_SECONDS = 0.3, 9  # long clips tell of objects that leave and return


def label_classes() -> dict[str, int]:
    """Number of classes of each attribute; class 0 means that the caption does not name it."""
    classes = {
        f"{name}_{i}": len(table) + 1 for i in range(_OBJECTS) for name, table in _TABLES.items()
    }
    return {**classes, "background": len(BACKGROUNDS) + 1}


def caption_labels(rng: np.random.Generator) -> tuple[str, dict[str, int]]:
    """A caption of the training split and the class of each attribute, objects as mentioned."""
    seconds = _LONG_SECONDS if rng.random() < _LONG_SHARE else SEGMENT_SECONDS
    said = None
    while said is None:
        segments = sample_scene(rng, "train", seconds).segments
        caption = segments[int(rng.integers(len(segments)))].caption
        said = parse(caption)
    labels = dict.fromkeys(label_classes(), 0)
    for i, item in enumerate(said["objects"][:_OBJECTS]):
        for name, table in _TABLES.items():
            if item[name]:
                labels[f"{name}_{i}"] = 1 + table.index(item[name])
    if said["background"] is not None:
        labels["background"] = 1 + tuple(BACKGROUNDS).index(said["background"])
    return caption, labels
