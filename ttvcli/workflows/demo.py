"""The whole pipeline on the tiny world: clips, latents, text, training that is killed, a video.

Everything a user would do by hand, with the built-in model, small enough for two CPU cores.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomli_w

from ttvcli.artifacts.atomic import write_json, write_text
from ttvcli.artifacts.checkpoint import latest_checkpoint
from ttvcli.artifacts.runs import without_none
from ttvcli.artifacts.schema import plain
from ttvcli.errors import UsageError, WorkFailed
from ttvcli.workflows.step import SILENT, Plan, Progress

_PATIENCE = 300.0  # seconds to wait for the first checkpoint of a slow machine


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """Settings of `ttv demo`."""

    out: Path = field(default=Path("ttv-demo"), metadata={"help": "folder for everything"})
    prompt: str = field(
        default="a red circle moves right", metadata={"help": "what the trained model draws"}
    )
    clips: int = field(default=12, metadata={"help": "clips to render and train on"})
    steps: int = field(default=16, metadata={"help": "training steps; killed half-way"})
    seed: int = field(default=42, metadata={"help": "seed of everything"})
    threads: int = field(default=0, metadata={"help": "CPU threads; 0 lets torch choose"})

    def __post_init__(self) -> None:
        if self.clips < 4 or self.steps < 4:
            raise UsageError(f"clips and steps start at 4, got {self.clips} and {self.steps}")


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
    """The steps and where they write."""
    out = config.out
    return Plan(
        command="demo",
        items=[
            ("prep synth", f"{config.clips} clips to {out / 'raw'}"),
            ("prep encode", str(out / "latents")),
            ("embed-text", str(out / "text")),
            ("train", f"{config.steps} steps to {out / 'run'}, killed and resumed"),
            ("sample", f"{config.prompt!r} to {out / 'video.mp4'}"),
            ("check", str(out / "check.json")),
        ],
        bytes={"disk": 150_000_000},
        eta_seconds=60.0,
    )


def run(config: DemoConfig, progress: Progress = SILENT) -> DemoResult:
    """Run every step; a second run finds everything done and only checks."""
    from ttvcli.workflows import embed_text, encode, sample, synth

    out = config.out
    places: dict[str, Path] = {}
    seconds: dict[str, float] = {}

    def step(name: str, place: Path, work: Callable[[], object]) -> None:
        progress.note(f"[{name}] -> {place}")
        began = time.perf_counter()
        work()
        places[name], seconds[name] = place, time.perf_counter() - began

    raw, latents, text = out / "raw", out / "latents", out / "text"
    video, sheet = out / "video.mp4", out / "video.png"
    step(
        "prep synth",
        raw,
        lambda: synth.run(
            synth.SynthConfig(out=raw, clips=config.clips, seed=config.seed), progress
        ),
    )
    step(
        "prep encode",
        latents,
        lambda: encode.run(encode.EncodeConfig(source=str(raw), out=latents), progress),
    )
    step(
        "embed-text",
        text,
        lambda: embed_text.run(embed_text.EmbedTextConfig(source=str(latents), out=text), progress),
    )
    step("train", out / "run", lambda: _train(config, latents, text, progress))
    step(
        "sample",
        video,
        lambda: sample.run(
            sample.SampleConfig(
                prompt=config.prompt,
                out=video,
                contact_sheet=sheet,
                model=str(out / "run" / "model"),
                seed=config.seed,
                threads=config.threads,
            ),
            progress,
        ),
    )
    places["contact sheet"] = sheet
    seen: dict[str, Any] = {}
    step("check", out / "check.json", lambda: seen.update(_check(config, video, progress)))
    return DemoResult(places, seconds, seen)


def _train(config: DemoConfig, latents: Path, text: Path, progress: Progress) -> None:
    """Train in a process of its own, kill it half-way, and go on from its checkpoint."""
    from ttvcli.workflows import train

    settings = train.TrainConfig(
        data=latents,
        text=text,
        out=config.out / "run",
        steps=config.steps,
        seed=config.seed,
        optimizer=train.OptimizerConfig(lr=2e-5, ttt_lr=2e-5, lr_end=1e-5, warmup_steps=2),
        checkpoint_every=2,
        ema_decay=0.9,
        batch_size=4,
        threads=config.threads,
    )
    checkpoints = config.out / "run" / "checkpoints"
    if latest_checkpoint(checkpoints) is None:
        file = config.out / "train.toml"
        write_text(file, tomli_w.dumps({"train": without_none(plain(settings))}))
        _start_and_kill(["train", "--quiet", "--config", str(file)], checkpoints, progress)
    train.run(settings, progress)


def _start_and_kill(arguments: list[str], checkpoints: Path, progress: Progress) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TTV_DEBUG"}
    progress.note(
        "training starts in another process, to be killed: " + "ttv " + " ".join(arguments)
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "ttvcli", *arguments],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + _PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        newest = latest_checkpoint(checkpoints)
        if newest is not None:
            break
        time.sleep(0.05)
    if process.poll() is None:
        process.send_signal(signal.SIGKILL)
    _, errors = process.communicate()
    newest = latest_checkpoint(checkpoints)
    if newest is None:
        raise WorkFailed("training wrote no checkpoint", where=str(checkpoints), fix=errors[-500:])
    progress.note(f"killed with SIGKILL after {newest.name}; going on from there")


def _check(config: DemoConfig, video: Path, progress: Progress) -> dict[str, Any]:
    """What the checker sees in the video beside what the prompt asked for."""
    import numpy as np

    from ttvcli.core.video.decode import read_frames
    from ttvcli.core.world.checker import check_clip
    from ttvcli.core.world.grammar import parse

    asked = parse(config.prompt)
    if asked is None:
        raise UsageError(
            "the checker understands prompts of the tiny world only",
            where=config.prompt,
            fix='for example --set prompt="a blue star bounces"',
        )
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
        progress.note(
            f"the checker sees: {item['colour']} {item['shape']}, motion {item['motion']}"
        )
    write_json(config.out / "check.json", seen)
    return seen
