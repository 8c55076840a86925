"""Between a `Trainer` and the checkpoint folders of a run."""

from pathlib import Path
from typing import Any

from ttvcli.artifacts import checkpoint
from ttvcli.core.training.loop import Trainer
from ttvcli.errors import ArtifactError, UsageError


def save_trainer(
    folder: Path, step: int, trainer: Trainer, config: dict[str, Any], *, keep: int
) -> Path:
    """Write `checkpoints/step-NNNNNN` with weights, average, optimizer and step; drop old ones."""
    path = checkpoint.save_checkpoint(
        folder / "checkpoints",
        step,
        model=trainer.model.state_dict(),
        ema=trainer.ema.state_dict() if trainer.ema else None,
        optimizer=trainer.optimizer.state_dict(),
        state={"step": step, "seed": trainer.seed},
        config=config,
    )
    checkpoint.prune(folder / "checkpoints", keep=keep)
    return path


def load_trainer(folder: Path, chosen: Path | None, trainer: Trainer) -> int:
    """Restore the newest checkpoint, or the `chosen` one; returns the steps already done.

    Raises:
        ArtifactError: the checkpoint is damaged, or of another model.
        UsageError: the run has later checkpoints than the chosen one.
    """
    latest = checkpoint.latest_checkpoint(folder / "checkpoints")
    path = chosen or latest
    if path is None:
        return 0
    if chosen is not None and latest is not None:
        _refuse_to_go_back(chosen, latest)
    loaded = checkpoint.load_checkpoint(path)
    if (trainer.ema is None) != (loaded.ema is None):
        raise ArtifactError(
            "the checkpoint and the run differ in whether weights are averaged", where=str(path)
        )
    try:
        trainer.model.load_state_dict(loaded.model)
        trainer.optimizer.load_state_dict(loaded.optimizer)
        if trainer.ema is not None and loaded.ema is not None:
            trainer.ema.load_state_dict(loaded.ema)
    except (RuntimeError, ValueError, KeyError) as error:
        raise ArtifactError(
            f"the checkpoint is of another model: {str(error).splitlines()[0]}", where=str(path)
        ) from error
    return int(loaded.state["step"])


def _refuse_to_go_back(chosen: Path, latest: Path) -> None:
    step, newest = (int(checkpoint.read_state(path)["step"]) for path in (chosen, latest))
    if step < newest:
        raise UsageError(
            f"the run has gone on to step {newest}, the checkpoint is of step {step}",
            where=str(chosen),
            fix=f"--resume latest, or delete {latest.name} and what else lies between",
        )
