"""Between a `Trainer` and the checkpoint folders of a run."""

from pathlib import Path
from typing import Any

from ttvcli.artifacts import checkpoint
from ttvcli.core.training.loop import Trainer


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
    """Restore the newest checkpoint, or the `chosen` one; returns the steps already done."""
    path = chosen or checkpoint.latest_checkpoint(folder / "checkpoints")
    if path is None:
        return 0
    loaded = checkpoint.load_checkpoint(path)
    trainer.model.load_state_dict(loaded.model)
    trainer.optimizer.load_state_dict(loaded.optimizer)
    if trainer.ema is not None and loaded.ema is not None:
        trainer.ema.load_state_dict(loaded.ema)
    return int(loaded.state["step"])
