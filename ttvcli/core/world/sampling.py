"""Draw random scenes: what is in them, where, and how it moves, so that nothing collides.

Motions are proposed at random and kept when the object stays inside the frame and clear of the
others; within a scene each segment starts where the last one ended. With fixed paths an object that
is alone takes one of a few paths instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ttvcli.core.world.fixed_paths import PLACES, paths_of
from ttvcli.core.world.grammar import describe
from ttvcli.core.world.scene import SEGMENT_SECONDS, Scene, Segment, WorldObject
from ttvcli.core.world.vocabulary import BACKGROUNDS, COLOURS, MOTIONS, SHAPES, held_out

SPLITS = ("train", "heldout", "all")
PATHS = ("free", "fixed")
TWO_OBJECTS_SHARE = 0.15
MARGIN = 0.015  # kept free between an object and the border
BEYOND = 0.04  # between the border and an object that left, so that its last frame is empty
MIN_TRAVEL = 0.35
MIN_BOUNCE, MIN_ORBIT = 0.25, 0.15
# Large enough that the points of a star can be told apart in 64 x 64 pixels.
RADIUS, PAIR_RADIUS = (0.18, 0.24), (0.15, 0.18)
# What growing and shrinking may lead to; a shrunken object grows again before it moves.
MIN_RADIUS, MIN_MOVING_RADIUS, MAX_RADIUS = 0.09, 0.11, 0.36
_DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
_MOMENTS = np.linspace(0, 1, 97)  # fine enough for the turning points of a bounce
_TRIES = 40
_PLACES = 8


@dataclass(frozen=True)
class _Rules:
    """What may be drawn: the combinations of a split, and whether on fixed paths."""

    split: str
    fixed: bool

    def allow(self, item: WorldObject, motion: str) -> bool:
        if self.split == "all":
            return True
        return held_out(item.shape, item.colour, motion) == (self.split == "heldout")


def sample_scene(
    rng: np.random.Generator,
    split: str = "train",
    seconds: int = SEGMENT_SECONDS,
    objects: int | None = None,
    paths: str = "free",
) -> Scene:
    """Draw a captioned clip of `seconds` (a multiple of 3) with one or two objects.

    "train" holds no held-out combination; in "heldout" every combination is held out and each
    segment is a scene of its own. `objects=None` mixes one (85 %) and two (15 %). With "fixed"
    paths an object that is alone has one size, starts at one of nine places, and takes one of the
    paths of `fixed_paths`; two objects move freely.
    """
    if split not in SPLITS:
        raise ValueError(f"split {split!r} is not one of {', '.join(SPLITS)}")
    if seconds < SEGMENT_SECONDS or seconds % SEGMENT_SECONDS:
        raise ValueError(f"{seconds} s is not a positive multiple of {SEGMENT_SECONDS} s")
    if objects not in (None, 1, 2):
        raise ValueError(f"{objects} objects asked for; a scene has 1 or 2")
    if paths not in PATHS:
        raise ValueError(f"paths {paths!r} is not one of {', '.join(PATHS)}")
    count = objects or (2 if rng.random() < TWO_OBJECTS_SHARE else 1)
    rules = _Rules(split, fixed=paths == "fixed" and count == 1)
    remaining = seconds // SEGMENT_SECONDS
    segments: list[Segment] = []
    cast: list[WorldObject] = []
    background = ""
    while remaining:
        length = 1 if split == "heldout" else min(remaining, int(rng.integers(1, 8)))
        background = _other(rng, tuple(BACKGROUNDS), background)
        if not cast or split == "heldout" or rng.random() < 0.5:
            first = 1 + max((item.identity for item in cast), default=-1)
            cast = _cast(rng, count, first)
        scene = _film(rng, rules, cast, background, length)
        segments.extend(scene)
        remaining -= len(scene)
    return Scene(tuple(segments))


def _cast(rng: np.random.Generator, count: int, first: int) -> list[WorldObject]:
    """Choose who plays: shapes and colours; places are chosen per scene."""
    colours = rng.permutation(list(COLOURS))[:count]
    return [
        WorldObject(first + i, str(rng.choice(SHAPES)), str(colour), "still", 0.5, 0.5, 0.2)
        for i, colour in enumerate(colours)
    ]


def _film(
    rng: np.random.Generator,
    rules: _Rules,
    cast: Sequence[WorldObject],
    background: str,
    length: int,
) -> list[Segment]:
    """Play one scene of `length` segments, or fewer when the cast gets in its own way."""
    opening = _opening(rng, rules, cast)
    while opening is None:
        opening = _opening(rng, rules, cast)
    takes = [opening]
    away: dict[int, WorldObject] = {}
    for number in range(1, length):
        take = _continue(rng, rules, takes[-1], away, last=number == length - 1)
        if take is None:
            break
        takes.append(take)
    return [
        Segment(
            background,
            tuple(take),
            caption=describe(background, take, rng),
            scene_start=number == 0,
            scene_end=number == len(takes) - 1,
        )
        for number, take in enumerate(takes)
    ]


def _opening(
    rng: np.random.Generator, rules: _Rules, cast: Sequence[WorldObject]
) -> list[WorldObject] | None:
    """Place the cast and give each member a first motion."""
    # Chosen once: choosing again after each failure would favour motions that need little room.
    motions = [_motion(rng, rules, item) for item in cast]
    for _ in range(_TRIES):
        side_by_side = rng.random() < 0.5
        flip = int(rng.random() < 0.5)
        take: list[WorldObject] = []
        for number, (item, motion) in enumerate(zip(cast, motions, strict=True)):
            half = None if len(cast) == 1 else (side_by_side, (number + flip) % 2)
            moving = _start(rng, rules, item, motion, half)
            if moving is None or _collides(moving, take):
                break
            take.append(moving)
        if len(take) == len(cast):
            return take
    return None


def _start(
    rng: np.random.Generator,
    rules: _Rules,
    item: WorldObject,
    motion: str,
    half: tuple[bool, int] | None,
) -> WorldObject | None:
    """Put an object somewhere from where it can make its motion."""
    if rules.fixed:
        paths = paths_of(motion)
        path = paths[rng.integers(len(paths))]
        placed = replace(item, x=path.x, y=path.y, radius=path.radius)
        return _act(placed, motion, path.numbers)
    low, high = RADIUS if half is None else PAIR_RADIUS
    for _ in range(_PLACES):
        radius = _uniform(rng, low, high)
        if motion in ("grow", "shrink"):
            radius *= 0.55 if motion == "grow" else 1.5
        inset = radius + MARGIN
        room_x, room_y = (_room(inset, sign) for sign in _DIRECTIONS.get(motion, (0, 0)))
        x, y = _uniform(rng, *room_x), _uniform(rng, *room_y)
        if half is not None:
            side_by_side, which = half
            if ((x if side_by_side else y) > 0.5) != bool(which):
                continue
        placed = replace(item, x=round(x, 4), y=round(y, 4), radius=round(radius, 4))
        moving = _move(rng, placed, motion)
        if moving is not None:
            return moving
    return None


def _room(inset: float, sign: int) -> tuple[float, float]:
    """Return where along one axis an object can start to travel in direction `sign`."""
    low, high = inset, 1 - inset
    return low + MIN_TRAVEL * (sign < 0), high - MIN_TRAVEL * (sign > 0)


def _continue(
    rng: np.random.Generator,
    rules: _Rules,
    before: Sequence[WorldObject],
    away: dict[int, WorldObject],
    *,
    last: bool,
) -> list[WorldObject] | None:
    """Go on where the last segment ended; objects may leave, and those away may return."""
    away.update({item.identity: item for item in before if item.event == "leave"})
    present = [item for item in before if item.event != "leave"]
    for _ in range(_TRIES):
        take: list[WorldObject] = []
        waiting = dict(away)
        for item in present:
            moving = _next(rng, rules, item, may_leave=not last and not away)
            if moving is None or _collides(moving, take):
                break
            take.append(moving)
        if len(take) != len(present):
            continue
        for item in away.values():
            if last or rng.random() < 0.6:
                moving = _return(rng, rules, item)
                if moving is not None and not _collides(moving, take):
                    take.append(moving)
                    del waiting[item.identity]
        away.clear()
        away.update(waiting)
        return take
    return None


def _next(
    rng: np.random.Generator, rules: _Rules, item: WorldObject, *, may_leave: bool
) -> WorldObject | None:
    x, y, radius = item.end()
    here = replace(item, x=x, y=y, radius=radius, event="")
    if may_leave and radius >= MIN_MOVING_RADIUS and rng.random() < 0.3:
        motion = str(rng.choice(tuple(_DIRECTIONS)))
        if rules.allow(item, motion):
            return _leave(rng, here, motion)
    motion = _motion(rng, rules, item)
    if rules.fixed:
        paths = [path for path in paths_of(motion) if path.starts_at(x, y, radius)]
        return _act(here, motion, paths[rng.integers(len(paths))].numbers) if paths else None
    return _move(rng, here, motion)


def _leave(rng: np.random.Generator, here: WorldObject, motion: str) -> WorldObject:
    sign_x, sign_y = _DIRECTIONS[motion]
    beyond = here.radius + BEYOND
    dx = _travel_to(here.x, sign_x, -beyond, 1 + beyond)
    dy = _travel_to(here.y, sign_y, -beyond, 1 + beyond)
    return _act(here, motion, {"dx": dx, "dy": dy}, "leave")


def _return(rng: np.random.Generator, rules: _Rules, item: WorldObject) -> WorldObject | None:
    """Come back from the side where the object left, the other way round."""
    motion = {"left": "right", "right": "left", "up": "down", "down": "up"}[item.motion]
    if not rules.allow(item, motion):
        # The mirrored combination is held out: come in from the opposite side instead.
        motion = item.motion
    x, y, radius = item.end()
    sign_x, sign_y = _DIRECTIONS[motion]
    beyond = radius + BEYOND
    if sign_x:
        x = -beyond if sign_x > 0 else 1 + beyond
    else:
        y = -beyond if sign_y > 0 else 1 + beyond
    if rules.fixed:
        deep = beyond + PLACES[rng.integers(len(PLACES))]
    else:
        deep = beyond + radius + MARGIN + rng.random() * max(0.0, 1 - 2 * (radius + MARGIN))
    here = replace(item, x=x, y=y, radius=radius)
    dx, dy = round(sign_x * deep, 4), round(sign_y * deep, 4)
    return _act(here, motion, {"dx": dx, "dy": dy}, "return")


def _move(rng: np.random.Generator, here: WorldObject, motion: str) -> WorldObject | None:
    """Fill in the numbers of a motion from where the object is; None when there is no room."""
    numbers: dict[str, Any] = {}
    inset = here.radius + MARGIN
    if motion in _DIRECTIONS:
        sign_x, sign_y = _DIRECTIONS[motion]
        room_x = _travel_to(here.x, sign_x, inset, 1 - inset)
        room_y = _travel_to(here.y, sign_y, inset, 1 - inset)
        room = abs(room_x + room_y)
        if room < MIN_TRAVEL:
            return None
        far = _uniform(rng, max(MIN_TRAVEL, 0.7 * room), room)
        numbers = {"dx": round(sign_x * far, 4), "dy": round(sign_y * far, 4)}
    elif motion == "bounce":
        hops = int(rng.integers(2, 4))
        height = _uniform(rng, MIN_BOUNCE, 0.5)
        numbers = {"extent": height, "turns": hops, "phase": round(rng.random(), 4)}
    elif motion == "circle":
        turns = 1 if rng.random() < 0.5 else -1
        orbit = _uniform(rng, MIN_ORBIT, 0.3)
        numbers = {"extent": orbit, "turns": turns, "phase": round(rng.random(), 4)}
    elif motion == "grow":
        numbers = {"scale": _uniform(rng, 2.2, 2.8)}
    elif motion == "shrink":
        numbers = {"scale": _uniform(rng, 0.36, 0.45)}
    moving = _act(here, motion, numbers)
    return moving if _fits(moving) else None


def _fits(item: WorldObject) -> bool:
    x, y, radius = item.at(_MOMENTS)
    inset = radius + MARGIN / 2
    inside = (x >= inset) & (x <= 1 - inset) & (y >= inset) & (y <= 1 - inset)
    least = MIN_RADIUS if item.motion in ("grow", "shrink", "still") else MIN_MOVING_RADIUS
    return bool(inside.all() and radius.min() >= least and radius.max() <= MAX_RADIUS)


def _collides(moving: WorldObject, others: Sequence[WorldObject]) -> bool:
    x, y, radius = moving.at(_MOMENTS)
    for other in others:
        other_x, other_y, other_radius = other.at(_MOMENTS)
        if (np.hypot(x - other_x, y - other_y) < radius + other_radius).any():
            return True
    return False


def _motion(rng: np.random.Generator, rules: _Rules, item: WorldObject) -> str:
    # Never empty: of the nine motions of a shape and colour one or two are held out.
    allowed = [motion for motion in MOTIONS if rules.allow(item, motion)]
    return allowed[rng.integers(len(allowed))]


def _act(item: WorldObject, motion: str, numbers: dict[str, Any], event: str = "") -> WorldObject:
    """Return the object in a new motion, with every number of its former motion cleared."""
    clear = {"dx": 0.0, "dy": 0.0, "scale": 1.0, "extent": 0.0, "turns": 0, "phase": 0.0}
    return replace(item, motion=motion, event=event, **{**clear, **numbers})


def _travel_to(start: float, sign: int, low: float, high: float) -> float:
    """Return the signed way from `start` to the border in direction `sign`, 0 for none."""
    if sign == 0:
        return 0.0
    return round((high if sign > 0 else low) - start, 4)


def _uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return round(low + (high - low) * rng.random(), 4)


def _other(rng: np.random.Generator, table: tuple[str, ...], current: str) -> str:
    choices = [name for name in table if name != current]
    return choices[rng.integers(len(choices))]
