"""English for the tiny world: captions with synonyms and free word order, and their meaning.

`describe` writes captions, `parse` reads prompts. Both work from the same phrase tables, so every
caption that can be written can be read back.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from ttvcli.core.world.scene import Segment, WorldObject
from ttvcli.core.world.vocabulary import COLOURS, combinations, held_out

# The first entry of each list is the plain word; it is chosen most often.
COLOUR_WORDS: dict[str, tuple[str, ...]] = {
    **{name: (name,) for name in COLOURS},
    "cyan": ("cyan", "turquoise"),
    "purple": ("purple", "violet"),
}
SHAPE_WORDS: dict[str, tuple[str, ...]] = {
    "circle": ("circle", "disc", "ball"),
    "square": ("square", "box"),
    "triangle": ("triangle",),
    "star": ("star",),
    "cross": ("cross", "plus sign"),
    "ring": ("ring", "hoop", "donut"),
}
BACKGROUND_WORDS: dict[str, tuple[str, ...]] = {
    "gray": ("a gray background", "a plain gray background", "a grey background"),
    "black": ("a black background", "a plain black background"),
    "navy": ("a navy background", "a dark blue background"),
    "beige": ("a beige background", "a plain beige background"),
    "vertical gradient": ("a vertical gradient", "a gray gradient from top to bottom"),
    "horizontal gradient": ("a horizontal gradient", "a gray gradient from left to right"),
    "stripes": ("gray stripes", "a striped background", "vertical stripes"),
    "checkerboard": ("a checkerboard", "a checkered background", "a gray checkerboard"),
}
PREPOSITIONS = ("on", "over", "against", "in front of")

# Verbs as (third person, participle, base form).
Verb = tuple[str, str, str]
_MOVE: tuple[Verb, ...] = (
    ("moves", "moving", "move"),
    ("glides", "gliding", "glide"),
    ("slides", "sliding", "slide"),
    ("drifts", "drifting", "drift"),
    ("goes", "going", "go"),
)
_DIRECTION_WORDS: dict[str, tuple[str, ...]] = {
    "left": ("left", "to the left", "leftwards"),
    "right": ("right", "to the right", "rightwards"),
    "up": ("up", "upwards"),
    "down": ("down", "downwards"),
}
_OWN_VERBS: dict[str, tuple[Verb, ...]] = {
    "up": (("rises", "rising", "rise"),),
    "down": (("sinks", "sinking", "sink"),),
    "bounce": (
        ("bounces", "bouncing", "bounce"),
        ("bounces up and down", "bouncing up and down", "bounce up and down"),
        ("hops up and down", "hopping up and down", "hop up and down"),
    ),
    "circle": (
        ("moves in a circle", "moving in a circle", "move in a circle"),
        ("goes around in a circle", "going around in a circle", "go around in a circle"),
        ("circles around", "circling around", "circle around"),
    ),
    "grow": (
        ("grows", "growing", "grow"),
        ("gets bigger", "getting bigger", "get bigger"),
        ("becomes larger", "becoming larger", "become larger"),
    ),
    "shrink": (
        ("shrinks", "shrinking", "shrink"),
        ("gets smaller", "getting smaller", "get smaller"),
        ("becomes smaller", "becoming smaller", "become smaller"),
    ),
    "still": (
        ("stays still", "staying still", "stay still"),
        ("does not move", "not moving", "do not move"),
        ("stands still", "standing still", "stand still"),
        ("stays in place", "staying in place", "stay in place"),
    ),
}
_FROM_SIDE = {"right": "from the left", "left": "from the right", "up": "from below"}
_FROM_SIDE["down"] = "from above"
_FILLERS = (
    "a an the one and while both that which is are there of with on over against in front only "
    "nothing empty its it scene video clip shape colored coloured"
)


def describe(background: str, objects: Sequence[WorldObject], rng: np.random.Generator) -> str:
    """Write a caption for a segment with these objects; the background is often left out."""
    place = _pick(rng, PREPOSITIONS, 0.6) + " " + _pick(rng, BACKGROUND_WORDS[background], 0.6)
    if not objects:
        words = place.split(" ", 1)
        caption = _pick(rng, (f"nothing {place}", f"there is nothing {' '.join(words)}"), 0.6)
        return _sentence(rng, caption)
    caption = _actors(rng, objects)
    where = rng.random()
    if where < 0.45:
        caption = f"{caption} {place}"
    elif where < 0.65:
        caption = f"{place}, {caption}"
    return _sentence(rng, caption)


def caption(segment: Segment, rng: np.random.Generator) -> str:
    """Write a fresh caption for a segment."""
    return describe(segment.background, segment.objects, rng)


def parse(text: str) -> dict[str, Any] | None:
    """Read a prompt; return None when it is outside of the tiny world.

    The answer is {"objects": [{"shape", "colour", "motion", "event"}], "background"}; what the
    prompt leaves open is None (for the event, "").
    """
    tokens = _tokens(text)
    if not tokens or any(kind == "unknown" for kind, _ in tokens):
        return None
    objects: list[dict[str, Any]] = []
    background: str | None = None
    pending: str | None = None  # a colour that stands before its shape
    both = False
    for kind, value in tokens:
        if kind == "background":
            if background is not None:
                return None
            background = value
        elif kind == "shape":
            objects.append({"shape": value, "colour": pending, "motion": None, "event": ""})
            pending = None
        elif kind == "colour":
            if pending is not None:
                return None
            after = bool(objects) and objects[-1]["colour"] is None
            if after and objects[-1]["motion"] is None:
                objects[-1]["colour"] = value
            else:
                pending = value
        elif kind == "both":
            both = True
        elif kind in ("motion", "leave", "return"):
            if not objects or objects[-1]["motion"] not in (None, value):
                return None
            objects[-1]["motion"] = value
            objects[-1]["event"] = "" if kind == "motion" else kind
    if both and len(objects) == 2 and objects[0]["motion"] is None:
        objects[0].update({key: objects[1][key] for key in ("motion", "event")})
    if pending is not None or len(objects) > 2 or (not objects and background is None):
        return None
    return {"objects": objects, "background": background}


def unknown_words(text: str) -> list[str]:
    """Return the words of a prompt that mean nothing in the tiny world, in order, once each."""
    return list(dict.fromkeys(word for kind, word in _tokens(text) if kind == "unknown"))


def all_words() -> list[str]:
    """Return every word that captions can contain, sorted."""
    words = {word for phrase in _phrases() for word in phrase}
    return sorted(words | set(_FILLERS.split()))


def heldout_prompts(n: int = 128, seed: int = 42) -> list[tuple[str, dict[str, Any]]]:
    """Return n captions of single objects in held-out combinations and what each one asks for.

    Combinations are drawn so that motions, shapes and colours appear equally often, as far as
    the held-out rule allows. Deterministic in `seed`.
    """
    rng = np.random.default_rng(seed)
    pool = [combination for combination in combinations() if held_out(*combination)]
    seen: dict[str, int] = {}
    prompts = []
    for _ in range(n):
        load = [
            sum(seen.get(f"{i}{name}", 0) for i, name in enumerate(combination))
            + 2 * seen.get(str(combination), 0)
            for combination in pool
        ]
        lightest = [c for c, weight in zip(pool, load, strict=True) if weight == min(load)]
        chosen = lightest[rng.integers(len(lightest))]
        for key in (*(f"{i}{name}" for i, name in enumerate(chosen)), str(chosen)):
            seen[key] = seen.get(key, 0) + 1
        shape, colour, motion = chosen
        item = WorldObject(0, shape, colour, motion, 0.5, 0.5, 0.2)
        background = tuple(BACKGROUND_WORDS)[rng.integers(len(BACKGROUND_WORDS))]
        text = describe(background, [item], rng)
        meaning = parse(text)
        assert meaning is not None
        prompts.append((text, meaning))
    return prompts


def _actors(rng: np.random.Generator, objects: Sequence[WorldObject]) -> str:
    """Write subject and verb for one object or two."""
    ordered = [objects[i] for i in rng.permutation(len(objects))]
    form = 0 if rng.random() < 0.75 else 1
    if len(ordered) == 1:
        phrase = f"{_noun(rng, ordered[0])} {_verb(rng, ordered[0], form)}"
        opening = form == 1 and not phrase.startswith("the") and rng.random() < 0.3
        return f"there is {phrase}" if opening else phrase
    first, second = ordered
    together = (first.motion, first.event) == (second.motion, second.event)
    if together and rng.random() < 0.5:
        return f"{_noun(rng, first)} and {_noun(rng, second)} both {_verb(rng, second, 2)}"
    joint = _pick(rng, ("and", "while"), 0.6) if form == 0 else "and"
    left = f"{_noun(rng, first)} {_verb(rng, first, form)}"
    return f"{left} {joint} {_noun(rng, second)} {_verb(rng, second, form)}"


def _noun(rng: np.random.Generator, item: WorldObject) -> str:
    colour = _pick(rng, COLOUR_WORDS[item.colour], 0.8)
    shape = _pick(rng, SHAPE_WORDS[item.shape], 0.65)
    order = rng.random()
    if order < 0.1:
        return f"a {shape} that is {colour}"
    article = "an" if colour[0] in "aeiou" else "a"
    return f"{'the' if order < 0.2 else article} {colour} {shape}"


def _verb(rng: np.random.Generator, item: WorldObject, form: int) -> str:
    if item.event:
        phrases = _event_verbs(item.event, item.motion)
    else:
        phrases = _motion_verbs(item.motion)
    return _pick(rng, [phrase[form] for phrase in phrases], 0.5)


def _motion_verbs(motion: str) -> list[Verb]:
    verbs = list(_OWN_VERBS.get(motion, ()))
    for word in _DIRECTION_WORDS.get(motion, ()):
        verbs += [_join(verb, word) for verb in _MOVE]
    # The plainest wording first, which `_pick` prefers.
    return verbs[len(_OWN_VERBS[motion]) :] + verbs[:1] if motion in ("up", "down") else verbs


def _event_verbs(event: str, motion: str) -> list[Verb]:
    if event == "leave":
        plain, *others = _DIRECTION_WORDS[motion]
        leave = ("leaves the scene", "leaving the scene", "leave the scene")
        out = [_join(_join(verb, plain), "out of the scene") for verb in _MOVE[:2]]
        return [_join(leave, others[0]), *out]
    back = ("comes back", "coming back", "come back"), ("returns", "returning", "return")
    return [_join(verb, _FROM_SIDE[motion]) for verb in back]


def _join(verb: Verb, word: str) -> Verb:
    return f"{verb[0]} {word}", f"{verb[1]} {word}", f"{verb[2]} {word}"


def _sentence(rng: np.random.Generator, words: str) -> str:
    return words[0].upper() + words[1:] + "." if rng.random() < 0.15 else words


def _pick(rng: np.random.Generator, choices: Sequence[str], first: float) -> str:
    """Choose the first with probability `first`, else any of the others."""
    if len(choices) == 1 or rng.random() < first:
        return choices[0]
    return choices[1 + int(rng.integers(len(choices) - 1))]


@lru_cache(maxsize=1)
def _phrases() -> dict[tuple[str, ...], tuple[str, str]]:
    """Return each phrase, as words, with its kind and value."""
    table: dict[tuple[str, ...], tuple[str, str]] = {}

    def add(phrase: str, kind: str, value: str) -> None:
        table[tuple(phrase.split())] = (kind, value)

    for kind, words in (("colour", COLOUR_WORDS), ("shape", SHAPE_WORDS)):
        for value, synonyms in words.items():
            for synonym in synonyms:
                add(synonym, kind, value)
    for value, synonyms in BACKGROUND_WORDS.items():
        for synonym in synonyms:
            add(synonym.removeprefix("a "), "background", value)
    motions = dict.fromkeys([*_DIRECTION_WORDS, *_OWN_VERBS])
    for motion in motions:
        for verb in _motion_verbs(motion):
            for phrase in verb:
                add(phrase, "motion", motion)
    for motion in _DIRECTION_WORDS:
        for event in ("leave", "return"):
            for verb in _event_verbs(event, motion):
                for phrase in verb:
                    add(phrase, event, motion)
    add("stripes", "background", "stripes")
    add("both", "both", "both")
    return table


def _tokens(text: str) -> list[tuple[str, str]]:
    """Cut a text into known phrases, the longest first; fillers vanish, the rest is unknown."""
    words = re.findall(r"[^\W_]+", text.lower())
    phrases, fillers = _phrases(), set(_FILLERS.split())
    longest = max(map(len, phrases))
    tokens: list[tuple[str, str]] = []
    at = 0
    while at < len(words):
        for length in range(min(longest, len(words) - at), 0, -1):
            found = phrases.get(tuple(words[at : at + length]))
            if found is not None:
                tokens.append(found)
                at += length
                break
        else:
            if words[at] not in fillers:
                tokens.append(("unknown", words[at]))
            at += 1
    return tokens
