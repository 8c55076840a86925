"""Train a component of a model: the diffusion transformer, the VAE or the text encoder.

A run is a folder that can be killed at any moment and started again with the same command: it
goes on from its last checkpoint and ends with the bytes an uninterrupted run would have written.
"""

import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ttvcli.artifacts import checkpoint, runs
from ttvcli.artifacts.atomic import write_text
from ttvcli.artifacts.lock import only_writer
from ttvcli.artifacts.schema import plain, settings_hash
from ttvcli.core.training.optim import OptimizerConfig
from ttvcli.errors import Interrupted, UsageError, WorkFailed
from ttvcli.workflows.components import device_named
from ttvcli.workflows.step import SILENT, Plan, Progress, check_seed, stop_on_signal
from ttvcli.workflows.train_state import load_trainer, save_trainer
from ttvcli.workflows.training_data import batch_indices, prefetch
from ttvcli.workflows.training_tasks import Task, build_task, describe_task

_EXPORTED = "trained-steps"  # in the model folder of a run, written last
# Settings that decide where and how far a run goes, not what comes out.
_NOT_OF_THE_RESULT = (
    *("out", "name", "stop_after", "resume", "force", "device", "threads"),
    *("checkpoint_every", "keep_last", "cache_gib"),
)
# Settings that came later, as runs from before have them: those go on.
_LATER = {"freeze": "", "whiten_latents": False, "windows": "start", "ttt_chunk_tokens": 0}


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
    ssm: Literal["", "none", "ttt_linear", "ttt_mlp", "ttt_large_chunk"] = field(
        default="", metadata={"help": "TTT layers to train with; empty keeps the model's"}
    )
    ttt_chunk_tokens: int = field(
        default=0,
        metadata={"help": "tokens of one update of ttt_large_chunk; 0 keeps the model's (4096)"},
    )
    freeze: str = field(
        default="",
        metadata={"help": "weights that stay as they are: beginnings of names, such as encoder."},
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
    windows: Literal["start", "anywhere"] = field(
        default="start", metadata={"help": "where in a clip those frames lie"}
    )
    clip_frames: int = field(default=9, metadata={"help": "frames of a VAE training clip"})
    caption_dropout: float = field(
        default=0.1, metadata={"help": "share of clips trained with the null text"}
    )
    l1_weight: float = field(default=1.0, metadata={"help": "VAE: weight of the L1 error"})
    mse_weight: float = field(default=2.0, metadata={"help": "VAE: weight of the squared error"})
    edge_weight: float = field(default=0.5, metadata={"help": "VAE: weight of the edge term"})
    kl_weight: float = field(default=2e-4, metadata={"help": "VAE: weight of the KL term"})
    whiten_latents: bool = field(
        default=False,
        metadata={"help": "VAE: give the directions of the model folder's latents like variances"},
    )
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
        for name in ("stop_after", "frames", "cache_gib", "threads", "ttt_chunk_tokens"):
            if not getattr(self, name) >= 0:
                raise UsageError(f"{name} must not be negative, got {getattr(self, name)}")
        for name in ("l1_weight", "mse_weight", "edge_weight", "kl_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UsageError(f"{name} must be a number from 0 on, got {getattr(self, name)}")
        for name in ("caption_dropout", "ema_decay"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise UsageError(f"{name} must be in [0, 1), got {getattr(self, name)}")
        if self.clip_frames < 1 or self.clip_frames % 8 != 1:
            raise UsageError(
                f"clip_frames must be 8k+1, got {self.clip_frames}",
                fix="the VAE takes 9 frames first and then 8 at a time: 1, 9, 17, 25, ...",
            )
        check_seed(self.seed)

    def identity(self) -> dict[str, Any]:
        """The settings that decide the result; where and how far it runs are left out."""
        values = _without_place(plain(self))
        return {k: v for k, v in values.items() if _LATER.get(k, ...) != v}


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
    folder = _folder(config)
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
    planned = plan(config).to_json()
    folder = _folder(config)
    task = build_task(config, device, progress)
    with only_writer(folder):
        runs.open_run(
            folder,
            settings=config.identity(),
            made_from=task.made_from,
            shown=plain(config),
            plan=planned,
            force=config.force,
        )
        return _train(config, folder, task, progress)


def _train(config: TrainConfig, folder: Path, task: Task, progress: Progress) -> TrainResult:
    """Go on from the last checkpoint to the last step, then write the model folder."""
    first = _restore(config, folder, task)
    last = max(first, min(config.stop_after or config.steps, config.steps))
    numbers = runs.last_metrics(folder)
    numbers.pop("step", None)  # the result has it
    if first < last:
        numbers = _loop(config, folder, task, first, last, progress)
    model = folder / "model"
    if _exported_step(model) != last:
        progress.note(f"writing the model folder {model}")
        (model / _EXPORTED).unlink(missing_ok=True)
        task.export(model)
        write_text(model / _EXPORTED, f"{last}\n")
    return TrainResult(folder, model, last, numbers, [model])


def _without_place(values: dict[str, Any]) -> dict[str, Any]:
    """Settings without those that decide only where and how far a run goes."""
    return {name: value for name, value in values.items() if name not in _NOT_OF_THE_RESULT}


def _folder(config: TrainConfig) -> Path:
    """The run folder.

    Raises:
        UsageError: it is a file, holds the model to start from or another run, or the checkpoint
            to go on from is of other settings.
    """
    folder = runs.run_folder(config.out, config.name, config.identity())
    if folder.exists() and not folder.is_dir():
        raise UsageError("the output is a file, not a folder", where=str(folder))
    if (folder / "model").resolve() == Path(config.model).resolve():
        raise UsageError(
            "the run would overwrite the model it starts from",
            where=str(folder),
            fix="choose another --out",
        )
    if not config.force:
        runs.check_settings(folder, config.identity())
    if config.resume not in ("latest", "never"):
        _check_same_run(config, folder, Path(config.resume))
    return folder


def _check_same_run(config: TrainConfig, folder: Path, path: Path) -> None:
    """Refuse a checkpoint of other settings: its optimizer would bring them along silently."""
    checkpoint.verify(path)
    if config.force and folder.resolve() in path.resolve().parents:
        raise UsageError(
            "--force would delete the checkpoint to go on from",
            where=str(path),
            fix="leave --force out, or choose another --out",
        )
    there = {**_LATER, **_without_place(checkpoint.read_state(path)["settings"])}
    here = {**_LATER, **config.identity()}
    other = sorted(name for name in {*here, *there} if here.get(name) != there.get(name))
    if other:
        raise UsageError(
            f"the checkpoint was made with other settings: {', '.join(other)}",
            where=str(path),
            fix="use its settings, or start a new run from its weights with --model RUN/model",
        )


def _exported_step(model: Path) -> int | None:
    """The step whose weights a model folder holds, if it was written completely."""
    marker = model / _EXPORTED
    text = marker.read_text(encoding="utf-8").strip() if marker.is_file() else ""
    return int(text) if text.isdecimal() else None


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
                    fix="lower --set optimizer.lr, or --set precision=fp32; with other settings "
                    "--force starts the run over",
                ) from error
            seconds = time.perf_counter() - began
            done = step + 1
            log.write({"step": done, **numbers}, seconds)
            progress.advance(loss=numbers["loss"], seconds_per_step=seconds)
            if done % config.checkpoint_every == 0 or done == last or stop.requested:
                log.sync()
                save_trainer(folder, done, task.trainer, plain(config), keep=config.keep_last)
            if stop.requested and done < last:
                raise Interrupted(
                    f"stopped after step {done} of {config.steps}; everything is saved",
                    where=str(folder),
                    fix="run the same command again to go on",
                )
    progress.finish()
    return numbers
