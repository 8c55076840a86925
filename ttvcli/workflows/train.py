"""Train a component of a model: the diffusion transformer, the VAE or the text encoder.

A run is a folder that can be killed at any moment and started again with the same command: it
goes on from its last checkpoint and ends with the bytes an uninterrupted run would have written.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ttvcli.artifacts import checkpoint, runs
from ttvcli.artifacts.atomic import write_text
from ttvcli.artifacts.schema import plain, settings_hash
from ttvcli.core.training.optim import OptimizerConfig
from ttvcli.errors import Interrupted, UsageError, WorkFailed
from ttvcli.workflows.components import device_named
from ttvcli.workflows.step import SILENT, Plan, Progress, stop_on_signal
from ttvcli.workflows.train_state import load_trainer, save_trainer
from ttvcli.workflows.training_data import batch_indices, prefetch
from ttvcli.workflows.training_tasks import Task, build_task, describe_task

_EXPORTED = "trained-steps"  # in the model folder of a run, written last


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of `ttv train`; the field defaults are the defaults of the command."""

    data: Path | None = field(
        default=None, metadata={"help": "latents folder (transformer) or folder of clips (others)"}
    )
    text: Path | None = field(default=None, metadata={"help": "folder of text embeddings"})
    out: Path | None = field(
        default=None, metadata={"help": "run folder; default runs/<date>-<name>"}
    )
    name: str = field(default="train", metadata={"help": "name of the run when --out is absent"})
    model: str = field(
        default="tiny", metadata={"help": "model to start from: tiny, or a model folder"}
    )
    target: Literal["transformer", "vae", "text_encoder"] = field(
        default="transformer", metadata={"help": "component to train"}
    )
    init: Literal["model", "scratch"] = field(
        default="model", metadata={"help": "start from the model's weights, or from random ones"}
    )
    architecture: str = field(
        default="tiny", metadata={"help": "sizes for init=scratch: a name in configs/model"}
    )
    ssm: Literal["", "none", "ttt_linear", "ttt_mlp"] = field(
        default="", metadata={"help": "TTT layers to train with; empty keeps the model's"}
    )
    steps: int = field(default=1000, metadata={"help": "optimizer steps of the whole run"})
    stop_after: int = field(
        default=0, metadata={"help": "stop early after this step, to be resumed; 0 does not"}
    )
    batch_size: int = field(default=8, metadata={"help": "clips of one forward pass"})
    grad_accum: int = field(default=1, metadata={"help": "forward passes of one optimizer step"})
    frames: int = field(
        default=0, metadata={"help": "frames from the start of each clip to train on; 0 takes all"}
    )
    clip_frames: int = field(default=9, metadata={"help": "frames of a VAE training clip"})
    caption_dropout: float = field(
        default=0.1, metadata={"help": "share of clips trained with the null text"}
    )
    l1_weight: float = field(default=1.0, metadata={"help": "VAE: weight of the L1 error"})
    mse_weight: float = field(default=2.0, metadata={"help": "VAE: weight of the squared error"})
    edge_weight: float = field(default=0.5, metadata={"help": "VAE: weight of the edge term"})
    kl_weight: float = field(default=2e-4, metadata={"help": "VAE: weight of the KL term"})
    cache_gib: float = field(
        default=2.0, metadata={"help": "memory for clips already read, in GiB"}
    )
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    ema_decay: float = field(
        default=0.999, metadata={"help": "decay of the weight average; 0 turns it off"}
    )
    precision: Literal["fp32", "bf16"] = field(
        default="fp32", metadata={"help": "arithmetic of the forward pass; weights stay fp32"}
    )
    export_dtype: Literal["fp32", "bf16", "fp16"] = field(
        default="fp32", metadata={"help": "dtype of the model folder written at the end"}
    )
    checkpoint_every: int = field(default=500, metadata={"help": "steps between checkpoints"})
    keep_last: int = field(default=2, metadata={"help": "checkpoints kept"})
    resume: str = field(
        default="latest", metadata={"help": "latest, a checkpoint folder, or never"}
    )
    force: bool = field(default=False, metadata={"help": "start over in a folder that has a run"})
    seed: int = field(default=42, metadata={"help": "seed of data order, noise and weights"})
    device: str = field(default="auto", metadata={"help": "auto, cpu, cuda, cuda:1, mps"})
    threads: int = field(default=0, metadata={"help": "CPU threads; 0 lets torch choose"})

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "grad_accum", "checkpoint_every", "keep_last"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0.0 <= self.caption_dropout < 1.0:
            raise UsageError(f"caption_dropout must be in [0, 1), got {self.caption_dropout}")

    def identity(self) -> dict[str, Any]:
        """The settings that decide the result; where and how far it runs are left out."""
        values = plain(self)
        for name in ("out", "name", "stop_after", "resume", "force", "device", "threads"):
            values.pop(name)
        for name in ("checkpoint_every", "keep_last", "cache_gib"):
            values.pop(name)
        return values


@dataclass(frozen=True)
class TrainResult:
    """The run folder, its model folder as of `step`, and the last numbers."""

    run: Path
    model: Path
    step: int
    metrics: dict[str, float]
    paths: list[Path]
    failed: list[dict[str, Any]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Plain values for `--json`."""
        return {
            "run": str(self.run),
            "model": str(self.model),
            "step": self.step,
            "metrics": self.metrics,
        }


def plan(config: TrainConfig) -> Plan:
    """Check the inputs and say what would be trained; reads headers only, writes nothing."""
    items, weights = describe_task(config)
    folder = runs.run_folder(config.out, config.name)
    # Weights, gradients, two AdamW moments and the average, all float32.
    copies = 4 + (1 if config.ema_decay else 0)
    return Plan(
        command="train",
        items=[
            *items,
            ("steps", config.steps),
            ("clips a step", config.batch_size * config.grad_accum),
            ("settings hash", settings_hash(config.identity())),
            ("run folder", str(folder)),
        ],
        bytes={
            "weights and optimizer": weights * 4 * copies,
            "disk": weights * 4 * (copies - 1) * config.keep_last,
        },
        eta_seconds=None,
    )


def run(config: TrainConfig, progress: Progress = SILENT) -> TrainResult:
    """Train until `steps` (or `stop_after`) and write the model folder with the averaged weights.

    Raises:
        Interrupted: SIGINT or SIGTERM; the step was finished and a checkpoint written.
        WorkFailed: the loss is no longer finite.
        ArtifactError, UsageError: inputs missing or stale, or another run lives in the folder.
    """
    import torch

    if config.threads:
        torch.set_num_threads(config.threads)
    device = device_named(config.device)
    task = build_task(config, device, progress)
    folder = runs.open_run(
        runs.run_folder(config.out, config.name),
        settings=config.identity(),
        made_from=task.made_from,
        shown=plain(config),
        plan=plan(config).to_json(),
        force=config.force,
    )
    first = _restore(config, folder, task)
    last = min(config.stop_after, config.steps) if config.stop_after else config.steps
    numbers = runs.last_metrics(folder)
    if first < last:
        numbers = _loop(config, folder, task, first, last, progress)
    model = folder / "model"
    if _exported_step(model) != last:
        progress.note(f"writing the model folder {model}")
        (model / _EXPORTED).unlink(missing_ok=True)
        task.export(model)
        write_text(model / _EXPORTED, f"{last}\n")
    return TrainResult(folder, model, last, numbers, [model])


def _exported_step(model: Path) -> int | None:
    """The step whose weights a model folder holds, if it was written completely."""
    marker = model / _EXPORTED
    return int(marker.read_text(encoding="utf-8")) if marker.is_file() else None


def _restore(config: TrainConfig, folder: Path, task: Task) -> int:
    """Load the checkpoint to go on from; returns the number of steps already done."""
    if config.resume == "never":
        if checkpoint.latest_checkpoint(folder / "checkpoints"):
            raise UsageError(
                "the run folder has checkpoints and --resume is never",
                where=str(folder),
                fix="--resume latest to go on, --force to start over, or another --out",
            )
        return 0
    chosen = None if config.resume == "latest" else Path(config.resume)
    done = load_trainer(folder, chosen, task.trainer)
    runs.keep_metrics_before(folder, done)
    return done


def _loop(
    config: TrainConfig, folder: Path, task: Task, first: int, last: int, progress: Progress
) -> dict[str, float]:
    per_step = config.batch_size * config.grad_accum

    def make(step: int) -> list[Any]:
        chosen = batch_indices(step, per_step, len(task.source), config.seed)
        generator = task.data_generator(step)
        parts = [chosen[i : i + config.batch_size] for i in range(0, per_step, config.batch_size)]
        return [task.source.batch(part, generator) for part in parts]

    numbers: dict[str, float] = {}
    progress.start("training", total=last, unit="steps", done=first)
    with stop_on_signal() as stop, runs.MetricsLog(folder) as log:
        for step, batches in zip(range(first, last), prefetch(make, first, last), strict=True):
            began = time.perf_counter()
            try:
                numbers = task.trainer.train_step(step, [task.to_device(b) for b in batches])
            except FloatingPointError as error:
                raise WorkFailed(
                    str(error),
                    where=str(folder),
                    fix="lower --set optimizer.lr, and run the same command to go on from the "
                    "last checkpoint after changing it with --force",
                ) from error
            seconds = time.perf_counter() - began
            done = step + 1
            log.write({"step": done, **numbers}, seconds)
            progress.advance(loss=numbers["loss"], seconds_per_step=seconds)
            if done % config.checkpoint_every == 0 or done == last or stop.requested:
                save_trainer(folder, done, task.trainer, plain(config), keep=config.keep_last)
            if stop.requested and done < last:
                raise Interrupted(
                    f"stopped after step {done} of {config.steps}; everything is saved",
                    where=str(folder),
                    fix="run the same command again to go on",
                )
    progress.finish()
    return numbers
