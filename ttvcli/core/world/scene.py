"""The ground truth of a clip: segments of 3 s, the objects in them and how each one moves.

A clip of n segments has 48 n + 1 frames at 16 fps: segment k owns frames [48 k, 48 (k + 1)) and
the last frame closes the last segment. Coordinates are fractions of the frame: x to the right,
y downwards, radius in frame widths. Everything is an analytic function of time, so the exact
track of every object follows from the scene alone.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ttvcli.core.world.vocabulary import BACKGROUNDS, COLOURS, MOTIONS, SHAPES

FPS = 16
SEGMENT_SECONDS = 3
SEGMENT_FRAMES = FPS * SEGMENT_SECONDS
EVENTS = ("", "leave", "return")

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class WorldObject:
    """One object during one segment; `u` runs from 0 to 1 over the segment.

    `event` says that the object leaves the frame or returns to it during the segment.
    """

    identity: int
    shape: str
    colour: str
    motion: str
    x: float  # at u = 0
    y: float
    radius: float
    dx: float = 0.0  # straight travel over the segment
    dy: float = 0.0
    scale: float = 1.0  # radius at u = 1 over radius at u = 0
    extent: float = 0.0  # height of a bounce, radius of an orbit
    turns: int = 0  # hops or orbits in the segment; negative orbits run anticlockwise
    phase: float = 0.0  # where in its hop or orbit the object starts, in turns
    event: str = ""

    def __post_init__(self) -> None:
        for value, table in (
            (self.shape, SHAPES),
            (self.colour, COLOURS),
            (self.motion, MOTIONS),
            (self.event, EVENTS),
        ):
            if value not in table:
                raise ValueError(f"{value!r} is not one of {', '.join(map(repr, table))}")

    def at(self, u: Floats) -> tuple[Floats, Floats, Floats]:
        """Return x, y and radius at the given moments of the segment, each of shape [len(u)]."""
        x = self.x + self.dx * u
        y = self.y + self.dy * u
        if self.motion == "bounce":
            y = y - self.extent * (_hop(self.turns * u + self.phase) - _hop(self.phase))
        elif self.motion == "circle":
            angle = 2 * np.pi * (self.turns * u + self.phase)
            start = 2 * np.pi * self.phase
            x = x + self.extent * (np.cos(angle) - np.cos(start))
            y = y + self.extent * (np.sin(angle) - np.sin(start))
        return x, y, self.radius * (1 + (self.scale - 1) * u)

    def end(self) -> tuple[float, float, float]:
        """Return x, y and radius at the end of the segment, where the next one takes over."""
        x, y, radius = self.at(np.ones(1))
        return float(x[0]), float(y[0]), float(radius[0])


@dataclass(frozen=True)
class Segment:
    """Three seconds with one caption; an object that is out of the frame is not listed."""

    background: str
    objects: tuple[WorldObject, ...]
    caption: str = ""
    scene_start: bool = True
    scene_end: bool = True

    def __post_init__(self) -> None:
        if self.background not in BACKGROUNDS:
            raise ValueError(f"{self.background!r} is not one of {', '.join(BACKGROUNDS)}")


@dataclass(frozen=True)
class Scene:
    """A whole clip."""

    segments: tuple[Segment, ...]

    @property
    def frames(self) -> int:
        """Number of frames, 48 per segment and one more."""
        return SEGMENT_FRAMES * len(self.segments) + 1

    @property
    def identities(self) -> tuple[int, ...]:
        """Every object of the clip, in order of first appearance."""
        seen = (item.identity for segment in self.segments for item in segment.objects)
        return tuple(dict.fromkeys(seen))

    def locate(self, frame: int) -> tuple[int, float]:
        """Return the segment that owns a frame and the moment u in it."""
        if not 0 <= frame < self.frames:
            raise ValueError(f"frame {frame} is outside of 0..{self.frames - 1}")
        index = min(frame // SEGMENT_FRAMES, len(self.segments) - 1)
        return index, (frame - index * SEGMENT_FRAMES) / SEGMENT_FRAMES

    def to_json(self) -> dict[str, Any]:
        """Return plain data from which `from_json` rebuilds an equal scene."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Scene:
        """Rebuild a scene from the data of `to_json`."""
        segments = []
        for segment in data["segments"]:
            objects = tuple(WorldObject(**item) for item in segment["objects"])
            segments.append(Segment(**{**segment, "objects": objects}))
        return cls(tuple(segments))


def segment_moments(scene: Scene, index: int, fps: int = FPS) -> Floats:
    """Return the moments u of the frames that a segment owns: 48 at 16 fps, 49 for the last one."""
    frames = SEGMENT_SECONDS * fps
    last = index == len(scene.segments) - 1
    return np.arange(frames + last, dtype=np.float64) / frames


def track(scene: Scene) -> Floats:
    """Return the exact track [frames, objects, 4] of (x, y, radius, visible).

    Objects are in the order of `scene.identities`. `visible` is the share of the object's
    bounding box inside the frame; where an object is not listed, all four are 0.
    """
    table = np.zeros((scene.frames, len(scene.identities), 4))
    column = {identity: i for i, identity in enumerate(scene.identities)}
    for index, segment in enumerate(scene.segments):
        u = segment_moments(scene, index)
        rows = slice(index * SEGMENT_FRAMES, index * SEGMENT_FRAMES + len(u))
        for item in segment.objects:
            x, y, radius = item.at(u)
            visible = _inside(x, radius) * _inside(y, radius)
            table[rows, column[item.identity]] = np.stack([x, y, radius, visible], axis=-1)
    return table


def _hop(turn: Any) -> Any:
    """Height of a ball on the ground at whole turns and at 1 half way between, a parabola."""
    part = np.mod(turn, 1.0)
    return 4 * part * (1 - part)


def _inside(centre: Floats, radius: Floats) -> Floats:
    overlap = np.minimum(centre + radius, 1) - np.maximum(centre - radius, 0)
    share: Floats = np.clip(overlap / (2 * radius), 0, 1)
    return share
