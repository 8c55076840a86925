"""What exists in the tiny world: shapes, colours, backgrounds and motions, and the held-out rule.

The order of each table is part of the held-out rule, so new entries go at the end.
"""

from __future__ import annotations

from collections.abc import Iterator

RGB = tuple[int, int, int]

SHAPES: tuple[str, ...] = ("circle", "square", "triangle", "star", "cross", "ring")

# Saturated and far apart in hue and brightness, so that the nearest colour is still the right
# one after 4:2:0 chroma subsampling and a lossy autoencoder.
COLOURS: dict[str, RGB] = {
    "red": (226, 24, 32),
    "orange": (255, 140, 0),
    "yellow": (250, 236, 30),
    "green": (16, 160, 40),
    "cyan": (20, 222, 232),
    "blue": (28, 60, 238),
    "purple": (134, 24, 196),
    "pink": (255, 112, 200),
}

# All are gray or nearly so: saturation alone separates an object from any background.
BACKGROUNDS: dict[str, tuple[RGB, RGB]] = {
    "gray": ((128, 128, 128), (128, 128, 128)),
    "black": ((14, 14, 14), (14, 14, 14)),
    "navy": ((24, 30, 54), (24, 30, 54)),
    "beige": ((214, 204, 184), (214, 204, 184)),
    "vertical gradient": ((224, 224, 224), (40, 40, 40)),
    "horizontal gradient": ((40, 40, 40), (224, 224, 224)),
    "stripes": ((72, 72, 72), (168, 168, 168)),
    "checkerboard": ((56, 56, 56), (120, 120, 120)),
}

MOTIONS: tuple[str, ...] = (
    "left",
    "right",
    "up",
    "down",
    "bounce",
    "circle",
    "grow",
    "shrink",
    "still",
)

HELD_OUT_PERIOD = 8


def held_out(shape: str, colour: str, motion: str) -> bool:
    """Say whether this combination is kept out of training.

    The rule is arithmetic over the table indices: 54 of the 432 combinations (one in eight). For
    every pair (shape, colour), (shape, motion) or (colour, motion) at most two of the
    completions are held out, so each pair is still seen in training.
    """
    shape_index = _index(SHAPES, shape, "shape")
    colour_index = _index(tuple(COLOURS), colour, "colour")
    motion_index = _index(MOTIONS, motion, "motion")
    return (shape_index + 3 * colour_index + 5 * motion_index) % HELD_OUT_PERIOD == 0


def combinations() -> Iterator[tuple[str, str, str]]:
    """Yield every (shape, colour, motion) of the world, shapes varying slowest."""
    for shape in SHAPES:
        for colour in COLOURS:
            for motion in MOTIONS:
                yield shape, colour, motion


def _index(table: tuple[str, ...], name: str, kind: str) -> int:
    if name not in table:
        raise ValueError(f"no {kind} {name!r} in the tiny world; there are {', '.join(table)}")
    return table.index(name)
