"""Render captioned clips of the tiny world as real mp4 files, with their exact ground truth.

Clip i of a seed is always the same clip, whatever else is rendered: more clips can be added to a
folder later, and a killed run goes on where it stopped.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ttvcli.artifacts.atomic import replacing, sha256_file
from ttvcli.artifacts.lock import only_writer
from ttvcli.artifacts.manifest import MANIFEST_NAME, ManifestWriter, Record
from ttvcli.artifacts.schema import claim_folder, header
from ttvcli.core.video.encode import write_video
from ttvcli.core.world.render import render_frames
from ttvcli.core.world.sampling import sample_scene
from ttvcli.core.world.scene import FPS, SEGMENT_SECONDS, Scene
from ttvcli.errors import Interrupted, UsageError, counted
from ttvcli.workflows.free_space import check_free_space
from ttvcli.workflows.step import SILENT, Plan, Progress, stop_on_signal

MAX_SECONDS = 63
SIZES = (16, 1024)

# Measured on one core at crf 10: bytes and seconds for each frame, by pixels of the frame.
_BYTES_PER_FRAME, _BYTES_PER_PIXEL = 250.0, 0.02
_SECONDS_PER_FRAME, _SECONDS_PER_PIXEL = 3e-4, 8e-8


@dataclass(frozen=True)
class SynthConfig:
    """Settings of `ttv prep synth`; the field defaults are the defaults of the command."""

    out: Path = field(metadata={"help": "folder for the clips and their manifest"})
    clips: int = field(default=200, metadata={"help": "number of clips in the folder"})
    seconds: int = field(
        default=SEGMENT_SECONDS, metadata={"help": "length of a clip: a multiple of 3, up to 63"}
    )
    size: int = field(default=64, metadata={"help": "width and height in pixels, even"})
    fps: int = field(default=FPS, metadata={"help": "frames per second"})
    split: Literal["train", "heldout", "all"] = field(
        default="train",
        metadata={"help": "combinations of shape, colour and motion: train leaves out heldout"},
    )
    objects: int = field(
        default=0, metadata={"help": "objects of a clip: 1, 2, or 0 for a mixture of both"}
    )
    paths: Literal["free", "fixed"] = field(
        default="free",
        metadata={"help": "fixed: one object has one size and few paths, sooner learnt"},
    )
    crf: int = field(default=10, metadata={"help": "quality of the H.264 files, 0 is lossless"})
    seed: int = field(default=42, metadata={"help": "seed of all clips"})
    force: bool = field(
        default=False, metadata={"help": "replace clips that were made with other settings"}
    )

    def __post_init__(self) -> None:
        if self.clips < 1:
            raise ValueError(f"clips must be at least 1, got {self.clips}")
        if self.seconds % SEGMENT_SECONDS or not SEGMENT_SECONDS <= self.seconds <= MAX_SECONDS:
            raise ValueError(f"seconds must be 3, 6, ... {MAX_SECONDS}, got {self.seconds}")
        if self.size % 2 or not SIZES[0] <= self.size <= SIZES[1]:
            raise ValueError(f"size must be even, {SIZES[0]} to {SIZES[1]}, got {self.size}")
        if not 1 <= self.fps <= 120:
            raise ValueError(f"fps must be 1 to 120, got {self.fps}")
        if self.split not in ("train", "heldout", "all"):
            raise ValueError(f"split must be train, heldout or all, got {self.split!r}")
        if self.objects not in (0, 1, 2):
            raise ValueError(f"objects must be 0, 1 or 2, got {self.objects}")
        if self.paths not in ("free", "fixed"):
            raise ValueError(f"paths must be free or fixed, got {self.paths!r}")
        if not 0 <= self.crf <= 51:
            raise ValueError(f"crf must be 0 to 51, got {self.crf}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")


@dataclass(frozen=True)
class SynthResult:
    """What is in the folder now; `made` clips are new, `skipped` were there already."""

    paths: list[Path]
    manifest: Path
    made: int
    skipped: int
    seconds: float  # of wall-clock time
    failed: list[dict[str, Any]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return the result as one JSON object."""
        return {
            "paths": [str(path) for path in self.paths],
            "manifest": str(self.manifest),
            "made": self.made,
            "skipped": self.skipped,
            "seconds": round(self.seconds, 3),
            "failed": self.failed,
        }


def plan(config: SynthConfig) -> Plan:
    """Say what would be rendered, how much disk it takes and how long."""
    frames = config.clips * (config.seconds * config.fps + 1)
    pixels = config.size**2
    quality = 2 ** ((10 - config.crf) / 6)  # H.264: six steps halve or double the bytes
    disk = int(frames * (_BYTES_PER_FRAME + _BYTES_PER_PIXEL * pixels) * quality)
    return Plan(
        command="prep synth",
        items=[
            ("out", str(config.out)),
            ("clips", config.clips),
            ("seconds", config.seconds),
            ("frames", frames),
            ("size", f"{config.size}x{config.size}"),
            ("fps", config.fps),
            ("split", config.split),
            ("paths", config.paths),
        ],
        bytes={"disk": disk},
        eta_seconds=frames * (_SECONDS_PER_FRAME + _SECONDS_PER_PIXEL * pixels),
    )


def run(config: SynthConfig, progress: Progress = SILENT) -> SynthResult:
    """Render the clips that are not there yet."""
    started = time.monotonic()
    _check_disk(config)
    # `clips` is not among the settings: a folder may be made larger.
    settings = {
        name: getattr(config, name)
        for name in ("seconds", "size", "fps", "split", "objects", "paths", "crf", "seed")
    }
    made = skipped = 0
    with only_writer(config.out), stop_on_signal() as stop:
        manifest = config.out / MANIFEST_NAME
        if claim_folder(config.out, header("clips", settings), force=config.force) == "replaced":
            manifest.unlink(missing_ok=True)
        with ManifestWriter(manifest) as writer:
            progress.start("rendering", total=config.clips, unit="clips")
            for index in range(config.clips):
                if stop.requested:
                    raise Interrupted(
                        f"stopped after {index} of {counted(config.clips, 'clip')}",
                        where=str(config.out),
                        fix="the same command continues",
                    )
                new = _make_clip(config, index, writer)
                made, skipped = made + new, skipped + (not new)
                progress.advance()
            progress.finish()
    return SynthResult(
        paths=[config.out],
        manifest=manifest,
        made=made,
        skipped=skipped,
        seconds=time.monotonic() - started,
    )


def clip_scene(config: SynthConfig, index: int) -> Scene:
    """Return the scene of one clip: it depends on the seed, the index and what may be in it."""
    rng = np.random.default_rng([config.seed, index])
    return sample_scene(rng, config.split, config.seconds, config.objects or None, config.paths)


def _make_clip(config: SynthConfig, index: int, writer: ManifestWriter) -> bool:
    """Render one clip unless it is there; its manifest line comes last."""
    name = f"synth-{index:06d}"
    path = config.out / f"{name}.mp4"
    listed = name in writer.done
    if listed and path.exists():
        return False
    scene = clip_scene(config, index)
    with replacing(path) as temporary:
        frames = render_frames(scene, config.size, config.fps)
        count = write_video(temporary, frames, config.fps, crf=config.crf)
    if not listed:
        writer.append(_record(config, name, path, scene, count))
    return True


def _record(config: SynthConfig, name: str, path: Path, scene: Scene, frames: int) -> Record:
    return {
        "id": name,
        "path": path.name,
        "sha256": sha256_file(path),
        "width": config.size,
        "height": config.size,
        "fps": config.fps,
        "frames": frames,
        "duration": frames / config.fps,
        "keep": True,
        "reasons": [],
        "metrics": {},
        "segments": [
            {
                "start": float(number * SEGMENT_SECONDS),
                "end": float((number + 1) * SEGMENT_SECONDS),
                "caption": segment.caption,
                "language": "en",
                "caption_source": "synth",
                "scene_start": segment.scene_start,
                "scene_end": segment.scene_end,
            }
            for number, segment in enumerate(scene.segments)
        ],
        "world": scene.to_json(),
    }


def _check_disk(config: SynthConfig) -> None:
    if config.out.exists() and not config.out.is_dir():
        raise UsageError("the output is a file, not a folder", where=str(config.out))
    fix = "fewer --clips, a smaller --size, or another --out"
    check_free_space(config.out, plan(config).bytes["disk"], fix)
