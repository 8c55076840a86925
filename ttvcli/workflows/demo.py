"""The whole pipeline on the tiny world: clips, latents, text, training that is killed, a video.

Everything a user would do by hand, with the built-in model, small enough for two CPU cores.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ttvcli.artifacts import model_folder
from ttvcli.artifacts.atomic import write_json
from ttvcli.artifacts.schema import producer
from ttvcli.artifacts.video import read_sidecar
from ttvcli.errors import ArtifactError, UsageError, counted
from ttvcli.workflows.demo_training import train_killed
from ttvcli.workflows.sample_request import compression
from ttvcli.workflows.step import SILENT, Plan, Progress, check_seed

MARKER = "demo.json"  # what the folder's demo was made with


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """Settings of `ttv demo`."""

    out: Path = field(default=Path("ttv-demo"), metadata={"help": "folder for everything"})
    prompt: str = field(
        default="a red circle moves right", metadata={"help": "what the trained model draws"}
    )
    model: str = field(
        default="tiny",
        metadata={"help": "model of the tiny world to start from; tiny, or a folder"},
    )
    clips: int = field(default=12, metadata={"help": "clips to render and train on"})
    steps: int = field(default=16, metadata={"help": "training steps; killed half-way"})
    seed: int = field(default=42, metadata={"help": "seed of everything"})
    force: bool = field(default=False, metadata={"help": "make everything again"})
    threads: int = field(default=0, metadata={"help": "CPU threads; 0 lets torch choose"})

    def __post_init__(self) -> None:
        if self.clips < 4 or self.steps < 4:
            raise UsageError(f"clips and steps start at 4, got {self.clips} and {self.steps}")
        if self.threads < 0:
            raise UsageError(f"--threads must not be negative, got {self.threads}")
        check_seed(self.seed)

    def identity(self) -> dict[str, Any]:
        """What all folders of a demo were made with; only the video depends on the prompt."""
        return {name: getattr(self, name) for name in ("model", "clips", "steps", "seed")}


@dataclass(frozen=True)
class DemoResult:
    """Where each step's result is, how long it took, and what the checker saw."""

    places: dict[str, Path]
    seconds: dict[str, float]
    seen: dict[str, Any]
    failed: list[dict[str, Any]] = field(default_factory=list)

    @property
    def paths(self) -> list[Path]:
        """The results in the order of the pipeline."""
        return list(self.places.values())

    def to_json(self) -> dict[str, Any]:
        """Plain values for `--json`."""
        return {
            "places": {name: str(path) for name, path in self.places.items()},
            "seconds": {name: round(value, 1) for name, value in self.seconds.items()},
            "seen": self.seen,
        }


def plan(config: DemoConfig) -> Plan:
    """The steps and where they write; checks the prompt, the model and the folder."""
    _check_start(config)
    out = config.out
    return Plan(
        command="demo",
        items=[
            ("model", str(model_folder.resolve_model(config.model))),
            ("prep synth", f"{counted(config.clips, 'clip')} to {out / 'raw'}"),
            ("prep encode", str(out / "latents")),
            ("embed-text", str(out / "text")),
            ("train", f"{counted(config.steps, 'step')} to {out / 'run'}, killed and resumed"),
            ("sample", f"{config.prompt!r} to {out / 'video.mp4'}"),
            ("check", str(out / "check.json")),
        ],
        bytes={"disk": 150_000_000},
        eta_seconds=60.0,
    )


def run(config: DemoConfig, progress: Progress = SILENT) -> DemoResult:
    """Run every step; a second run finds everything done and only checks.

    Raises:
        UsageError: the prompt is not of the tiny world, or the folder holds something else.
        TtvError: whatever a step raises.
    """
    _check_start(config)
    write_json(config.out / MARKER, {"producer": producer(), "settings": config.identity()})
    places: dict[str, Path] = {}
    seconds: dict[str, float] = {}
    seen: dict[str, Any] = {}
    for name, place, work in _steps(config, progress, seen):
        progress.note(f"[{name}] -> {place}")
        began = time.perf_counter()
        work()
        places[name], seconds[name] = place, time.perf_counter() - began
    places["contact sheet"] = config.out / "video.png"
    return DemoResult(places, seconds, seen)


def _steps(
    config: DemoConfig, progress: Progress, seen: dict[str, Any]
) -> list[tuple[str, Path, Callable[[], object]]]:
    """Name, result and work of each step; the last one fills `seen`."""
    from ttvcli.workflows import embed_text, encode, sample, synth

    out, force = config.out, config.force
    raw, latents, text, video = out / "raw", out / "latents", out / "text", out / "video.mp4"
    clips = synth.SynthConfig(
        out=raw, clips=config.clips, size=_side(config), seed=config.seed, force=force
    )
    encoding = encode.EncodeConfig(source=str(raw), out=latents, model=config.model, force=force)
    texts = embed_text.EmbedTextConfig(
        source=str(latents), out=text, model=config.model, force=force
    )
    film = sample.SampleConfig(
        prompt=config.prompt,
        out=video,
        contact_sheet=video.with_suffix(".png"),
        model=str(out / "run" / "model"),
        seed=config.seed,
        threads=config.threads,
        force=force or _shows_other(video, config.prompt),
    )
    return [
        ("prep synth", raw, lambda: synth.run(clips, progress)),
        ("prep encode", latents, lambda: encode.run(encoding, progress)),
        ("embed-text", text, lambda: embed_text.run(texts, progress)),
        ("train", out / "run", lambda: train_killed(config, latents, text, progress)),
        ("sample", video, lambda: sample.run(film, progress)),
        ("check", out / "check.json", lambda: seen.update(_check(config, video, progress))),
    ]


def _check_start(config: DemoConfig) -> None:
    """Refuse a prompt that the checker cannot read, and a folder of something else."""
    from ttvcli.core.world.grammar import parse

    if parse(config.prompt) is None:
        raise UsageError(
            "the checker understands prompts of the tiny world only",
            where=config.prompt,
            fix='for example ttv demo "a blue star bounces"',
        )
    about = model_folder.read_about(model_folder.resolve_model(config.model))
    if about.get("world") != "tiny":
        raise UsageError(
            "the demo needs a model of the tiny world", where=config.model, fix="leave --model out"
        )
    out = config.out
    if out.exists() and not out.is_dir():
        raise UsageError("the output is a file, not a folder", where=str(out))
    if not out.exists() or not any(out.iterdir()):
        return
    try:
        made = json.loads((out / MARKER).read_text(encoding="utf-8"))["settings"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UsageError(
            "the folder holds something else than a demo",
            where=str(out),
            fix="choose another --out, or an empty folder",
        ) from None
    if made != config.identity() and not config.force:
        raise UsageError(
            f"the demo there was made with {_words(made)}, now {_words(config.identity())}",
            where=str(out),
            fix="choose another --out, or --force to make everything again",
        )


def _shows_other(video: Path, prompt: str) -> bool:
    """Whether the video there is one of ours, of another prompt: it may give way."""
    try:
        return bool(read_sidecar(video)["settings"]["texts"] != [prompt])
    except (ArtifactError, KeyError):
        return False


def _words(settings: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items())


def _side(config: DemoConfig) -> int:
    """Width and height of the model's frames."""
    folder = model_folder.resolve_model(config.model)
    space = compression(model_folder.read_config(folder, "vae"))[1]
    return int(model_folder.read_config(folder, "transformer")["sample_width"]) * space


def _check(config: DemoConfig, video: Path, progress: Progress) -> dict[str, Any]:
    """What the checker sees in the video beside what the prompt asked for."""
    import numpy as np

    from ttvcli.core.video.decode import read_frames
    from ttvcli.core.world.checker import check_clip
    from ttvcli.core.world.grammar import parse

    asked = parse(config.prompt)
    assert asked is not None  # see `_check_start`
    frames = np.stack([frame for _, frame in read_frames(video)])
    result = check_clip(frames, asked)
    seen = {
        "asked": asked["objects"],
        "found": [
            {"shape": item.shape, "colour": item.colour, "motion": item.motion}
            for item in result.found
        ],
        "colour": result.colour,
        "shape": result.shape,
        "motion": result.motion,
    }
    for item in seen["found"]:
        shape, motion = item["shape"] or "something", item["motion"] or "unclear"
        progress.note(f"the checker sees: {item['colour']} {shape}, motion {motion}")
    words = {True: "right", False: "wrong", None: "not asked for"}
    judged = (f"{name} {words[seen[name]]}" for name in ("colour", "shape", "motion"))
    progress.note(f"compared with {config.prompt!r}: {', '.join(judged)}")
    write_json(config.out / "check.json", seen)
    return seen
