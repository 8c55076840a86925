"""Scenes to segments of one length, segments to clips: which source frame each clip frame shows.

The rules:

- A scene gives as many whole segments as fit. What is over is cut away evenly at both ends, so the
  segments of a scene follow each other without a gap, from the frame nearest to the even place on.
- Clip frame n shows the source frame nearest to its time, the earlier one on a tie, and never one
  outside its scene: no frame of the next scene is ever seen.
- A clip has one frame more than its segments, as the VAE wants: the frame that follows in its
  scene or, where the scene ends there, its last frame once more.
- A long clip is made of consecutive segments, of one scene or of all scenes of the video.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from ttvcli.core.video.shots import MICRO, Clock, Shot


@dataclass(frozen=True)
class SegmentRule:
    """How scenes are cut.

    Args:
        frames: output frames of a segment.
        fps: output frames per second.
        shortest: seconds; shorter scenes are dropped whatever else is asked for.
        hold: let a scene shorter than a segment, but not shorter than `shortest`, fill one by
            showing its last frame longer.
        margin: seconds left out at either side of a cut.
    """

    frames: int
    fps: Fraction
    shortest: float = 0.0
    hold: bool = False
    margin: float = 0.0

    def __post_init__(self) -> None:
        if self.frames < 1 or self.fps <= 0:
            raise ValueError(f"a segment needs frames, got {self.frames} at {self.fps} a second")

    @property
    def length(self) -> Fraction:
        """Microseconds of a segment."""
        return self.frames * MICRO / self.fps


@dataclass(frozen=True)
class Segment:
    """One segment: its scene, its place in it, and when it starts, in microseconds."""

    scene: int
    number: int
    of: int  # segments of its scene
    start: Fraction
    shot: Shot


@dataclass(frozen=True)
class DroppedScene:
    """A scene that gives no segment: its number, start and length in microseconds, and why."""

    scene: int
    start: int
    length: int
    reason: str  # "under_shortest" or "under_one_segment"


def cut_scenes(
    clock: Clock, shots: Sequence[Shot], rule: SegmentRule
) -> tuple[list[Segment], list[DroppedScene]]:
    """Cut every shot into segments, in order."""
    segments: list[Segment] = []
    dropped: list[DroppedScene] = []
    for scene, whole in enumerate(shots):
        shot = _without_margin(clock, whole, rule.margin)
        start = clock.start_of(shot.first)
        length = clock.start_of(shot.end) - start
        count = int((length + MICRO / rule.fps / 2) // rule.length)  # half a frame may be missing
        if length < round(rule.shortest * MICRO):
            dropped.append(DroppedScene(scene, start, length, "under_shortest"))
        elif count:
            surplus = max(length - count * rule.length, Fraction(0))
            begin = clock.start_of(clock.nearest(start + surplus / 2, shot))
            segments += [
                Segment(scene, number, count, begin + number * rule.length, shot)
                for number in range(count)
            ]
        elif rule.hold:
            segments.append(Segment(scene, 0, 1, Fraction(start), shot))
        else:
            dropped.append(DroppedScene(scene, start, length, "under_one_segment"))
    return segments, dropped


def assemble(
    segments: Sequence[Segment], per_clip: int, *, within_scene: bool
) -> list[tuple[Segment, ...]]:
    """Group consecutive segments into clips of `per_clip`; those left over are not used.

    Args:
        segments: of one video, in order.
        per_clip: segments of a clip.
        within_scene: whether a clip may not go on into the next scene.
    """
    if per_clip < 1:
        raise ValueError(f"a clip has at least 1 segment, got {per_clip}")
    clips: list[tuple[Segment, ...]] = []
    run: list[Segment] = []
    for segment in segments:
        if within_scene and run and run[-1].scene != segment.scene:
            run = []
        run.append(segment)
        if len(run) == per_clip:
            clips.append(tuple(run))
            run = []
    return clips


def clip_frames(clock: Clock, clip: Sequence[Segment], rule: SegmentRule) -> list[int]:
    """Return the source frame of each frame of a clip: `frames` for each segment, and one more."""
    period = MICRO / rule.fps
    shown = [
        clock.nearest(segment.start + n * period, segment.shot)
        for segment in clip
        for n in range(rule.frames)
    ]
    last = clip[-1]
    return [*shown, clock.nearest(last.start + rule.length, last.shot)]


def held_frames(clock: Clock, clip: Sequence[Segment], rule: SegmentRule) -> int:
    """Count the frames of a clip that show the last frame of a scene after the scene has ended."""
    period = MICRO / rule.fps
    held = 0
    for number, segment in enumerate(clip):
        over = segment.start + rule.length - clock.start_of(segment.shot.end)
        frames = rule.frames
        if number == len(clip) - 1:
            over, frames = over + period, frames + 1
        # A frame that begins a whole period before the end is still of the scene.
        held += min(max(int((over + period / 2) // period), 0), frames)
    return held


def _without_margin(clock: Clock, shot: Shot, margin: float) -> Shot:
    """Leave out frames beside a cut; the ends of the video are no cuts."""
    if not margin:
        return shot
    first, end = shot.first, shot.end
    inside = round(margin * MICRO)
    if first > 0:
        earliest = clock.start_of(first) + inside
        while first < end - 1 and clock.start_of(first) < earliest:
            first += 1
    if end < len(clock):
        latest = clock.start_of(end) - inside
        while end > first + 1 and clock.start_of(end) > latest:
            end -= 1
    return Shot(first, end)
