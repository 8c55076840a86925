"""The training of `ttv demo`: in a process of its own, killed half-way, continued here."""

import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import tomli_w

from ttvcli.artifacts.atomic import write_text
from ttvcli.artifacts.checkpoint import latest_checkpoint, step_of
from ttvcli.artifacts.runs import without_none
from ttvcli.artifacts.schema import plain
from ttvcli.errors import WorkFailed
from ttvcli.workflows.step import Progress

if TYPE_CHECKING:
    from ttvcli.workflows.demo import DemoConfig

_PATIENCE = 600.0  # seconds that a slow machine may take for half of the training


def train_killed(config: "DemoConfig", latents: Path, text: Path, progress: Progress) -> None:
    """Train in a process of its own, kill it half-way, and go on from its checkpoint."""
    from ttvcli.workflows import train

    folder = config.out / "run"
    settings = train.TrainConfig(
        data=latents,
        text=text,
        out=folder,
        model=config.model,
        steps=config.steps,
        seed=config.seed,
        optimizer=train.OptimizerConfig(lr=2e-5, ttt_lr=2e-5, lr_end=1e-5, warmup_steps=2),
        checkpoint_every=2,
        ema_decay=0.9,
        batch_size=4,
        threads=config.threads,
    )
    if config.force:
        shutil.rmtree(folder, ignore_errors=True)
    if latest_checkpoint(folder / "checkpoints") is None:
        file = config.out / "train.toml"
        write_text(file, tomli_w.dumps({"train": without_none(plain(settings))}))
        arguments = ["train", "--quiet", "--config", str(file)]
        progress.note(
            "training starts in another process, to be killed: " + shlex.join(["ttv", *arguments])
        )
        progress.note(_start_and_kill(arguments, folder / "checkpoints", config.steps // 2))
    train.run(settings, progress)


def _start_and_kill(arguments: list[str], checkpoints: Path, steps: int) -> str:
    """Run a training process until it has done so many steps; returns what happened to it.

    Raises:
        WorkFailed: it ended by itself, or did nothing for too long.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "ttvcli", *arguments],
        env={name: value for name, value in os.environ.items() if name != "TTV_DEBUG"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + _PATIENCE
        while process.poll() is None and time.monotonic() < deadline:
            newest = latest_checkpoint(checkpoints)
            if newest is not None and step_of(newest) >= steps:
                break
            time.sleep(0.02)
    finally:  # also when this process is interrupted: nobody else would end the other one
        process.kill()
        _, errors = process.communicate()
    newest = latest_checkpoint(checkpoints)
    if process.returncode > 0 or newest is None:
        told = [line.strip() for line in errors.splitlines() if line.strip()]
        raise WorkFailed(
            told[0].removeprefix("error: ") if told else "the training process did nothing",
            where=told[1].removeprefix("where:").strip() if len(told) > 1 else str(checkpoints),
            fix="ttv " + shlex.join(arguments),
        )
    if process.returncode == 0:
        return "it was done before it could be killed"
    return f"killed with SIGKILL after {newest.name}; going on from there"
