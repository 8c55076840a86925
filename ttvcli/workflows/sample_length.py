"""How long a video is: its texts, frames and frames per second, from what the model makes.

Two kinds of models. Those with TTT layers, and all that ttv trained, make segments of 3 s, 48
frames each and one for the start, with a text a segment. Public CogVideoX makes one clip from one
text: 49 frames at 8 per second (1.0), 81 or 161 at 16 per second (1.5).
"""

import dataclasses
import math
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ttvcli.artifacts.storyboard import (
    SEGMENT_SECONDS,
    Segment,
    Storyboard,
    check_storyboard,
    read_storyboard,
)
from ttvcli.core.models.cogvideox.published import generation
from ttvcli.errors import UsageError

if TYPE_CHECKING:
    from ttvcli.workflows.sample import SampleConfig

FRAMES_PER_SEGMENT = 48
FRAMES_PER_CHUNK = 8  # of the VAE: other lengths than 8k + 1 come back longer or shorter
LONGEST_SECONDS = 600  # far beyond what any model was trained for; a slip of the keyboard above
LONGEST_SECOND_GENERATION = 161  # frames of a clip that CogVideoX-1.5 was trained for


@dataclass(frozen=True)
class Length:
    """One text for each segment (one in all for a single clip), frames, and frames per second."""

    board: Storyboard
    frames: int
    fps: int
    warnings: list[str]


def makes_segments(transformer: dict[str, Any], about: dict[str, Any]) -> bool:
    """Whether a model makes 3 s segments, and not one clip as public CogVideoX."""
    return transformer.get("ssm", "none") != "none" or "fps" in about


def settle_length(
    config: "SampleConfig", transformer: dict[str, Any], about: dict[str, Any]
) -> Length:
    """Settle texts and length.

    Raises:
        UsageError: a length that the model has no frames for, or settings that contradict.
        ArtifactError: the storyboard is missing, broken, or of another length.
    """
    if makes_segments(transformer, about):
        return _segments(config, int(about.get("fps", 16)))
    return _clip(config, transformer)


def _segments(config: "SampleConfig", fps: int) -> Length:
    if config.fps not in (None, fps):
        raise UsageError(
            f"--fps {config.fps}: this model makes segments of {SEGMENT_SECONDS} s at {fps} "
            "frames per second",
            fix="leave --fps out",
        )
    seconds = config.seconds
    if config.frames is not None:
        count = (config.frames - 1) / FRAMES_PER_SEGMENT
        if count < 1 or count != int(count):
            near = FRAMES_PER_SEGMENT * max(1, round(count)) + 1
            raise UsageError(
                f"--frames {config.frames}: this model makes segments of {FRAMES_PER_SEGMENT} "
                "frames, and one frame for the start",
                fix=f"--frames {near}",
            )
        if seconds not in (None, count * SEGMENT_SECONDS):
            raise UsageError(
                f"--frames {config.frames} are {count * SEGMENT_SECONDS:g} s, "
                f"--seconds says {seconds:g}",
                fix="leave one of them out",
            )
        seconds = count * SEGMENT_SECONDS
    board = _board(config, seconds)
    if board is None:
        count_of = _count(SEGMENT_SECONDS if seconds is None else seconds)
        board = Storyboard((_prompt(config),) * count_of)
    return Length(board, FRAMES_PER_SEGMENT * len(board.segments) + 1, fps, [])


def _count(seconds: float) -> int:
    """How many segments a length has."""
    count = seconds / SEGMENT_SECONDS
    if not math.isfinite(count) or count < 1 or count != int(count):
        near = max(1, round(count)) if math.isfinite(count) else 1
        raise UsageError(
            f"--seconds must be a multiple of {SEGMENT_SECONDS}, got {seconds:g}",
            fix=f"--seconds {near * SEGMENT_SECONDS}",
        )
    _check_longest(seconds)
    return int(count)


def _check_longest(seconds: float) -> None:
    if seconds > LONGEST_SECONDS:
        raise UsageError(
            f"--seconds must be at most {LONGEST_SECONDS}, got {seconds:g}",
            fix="models are trained for 3 to 63 s",
        )


def _clip(config: "SampleConfig", transformer: dict[str, Any]) -> Length:
    """Texts and length for public CogVideoX, whose attention spans the whole clip."""
    second_generation = transformer.get("patch_size_t") is not None
    fps = config.fps or generation(transformer).fps
    board = _board(config, None)
    if board is not None and len(board.segments) > 1:
        raise UsageError(
            f"the storyboard has {len(board.segments)} segments, and this model makes one clip "
            "from one text (it has no TTT layers)",
            where=str(config.storyboard),
            fix="give a prompt, or name a model with TTT layers with --model",
        )
    # Old configs of CogVideoX-1.5-I2V name lengths that are not 8k + 1.
    trained = _whole_chunks(int(transformer.get("sample_frames", 49)))
    frames = _clip_frames(config, fps, trained)
    longest = max(trained, LONGEST_SECOND_GENERATION) if second_generation else trained
    warnings = []
    if frames > longest:
        warnings = [f"this model was trained for {longest} frames at most, not {frames}"]
    return Length(board or Storyboard((_prompt(config),)), frames, fps, warnings)


def _clip_frames(config: "SampleConfig", fps: int, trained: int) -> int:
    frames, seconds = config.frames, config.seconds
    if seconds is not None:
        if not math.isfinite(seconds) or seconds <= 0:
            raise UsageError(f"--seconds must be more than 0, got {seconds:g}")
        _check_longest(seconds)
        wanted = round(seconds * fps) + 1
        if wanted != _whole_chunks(wanted) or not math.isclose(seconds * fps, wanted - 1):
            near = max(_whole_chunks(wanted + FRAMES_PER_CHUNK // 2), FRAMES_PER_CHUNK + 1)
            raise UsageError(
                f"--seconds {seconds:g} at {fps} frames per second: the number of frames must be "
                f"a multiple of {FRAMES_PER_CHUNK}, and one for the start",
                fix=f"--seconds {(near - 1) / fps:g}, or --frames {near}",
            )
        if frames not in (None, wanted):
            raise UsageError(
                f"--seconds {seconds:g} at {fps} frames per second are {wanted} frames, "
                f"--frames says {frames}",
                fix="leave one of them out",
            )
        frames = wanted
    if frames is None:
        return trained
    if frames < 1 or frames != _whole_chunks(frames):
        near = _whole_chunks(max(frames, 1) + FRAMES_PER_CHUNK // 2)
        raise UsageError(
            f"--frames must be a multiple of {FRAMES_PER_CHUNK} and 1, got {frames}",
            fix=f"--frames {near}; this model was trained for {trained}",
        )
    if frames > LONGEST_SECONDS * fps + 1:
        raise UsageError(
            f"--frames must be at most {LONGEST_SECONDS * fps + 1}, got {frames}",
            fix=f"this model was trained for {trained}",
        )
    return frames


def _whole_chunks(frames: int) -> int:
    """The largest 8k + 1 that is not above `frames`."""
    return (frames - 1) // FRAMES_PER_CHUNK * FRAMES_PER_CHUNK + 1


def _board(config: "SampleConfig", seconds: float | None) -> Storyboard | None:
    """The storyboard of the request with its negative texts filled in; None without one."""
    if config.storyboard is None:
        return None
    board = read_storyboard(config.storyboard)
    check_storyboard(board, seconds=seconds, where=str(config.storyboard))
    segments = (
        dataclasses.replace(segment, negative=segment.negative or config.negative)
        for segment in board.segments
    )
    return Storyboard(tuple(segments))


def _prompt(config: "SampleConfig") -> Segment:
    text = config.prompt or ""
    if text == "-":
        text = _typed()
    text = text.strip()
    if not text:
        raise UsageError(
            "the prompt is empty", fix='say what should be seen: "a red circle moves right"'
        )
    return Segment(text, config.negative)


def _typed() -> str:
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise UsageError(f"a prompt is UTF-8 text: {error}", where="standard input") from None
