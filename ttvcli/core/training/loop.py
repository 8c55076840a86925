"""One optimisation step, the same for every kind of model.

Randomness: everything random in a micro-batch comes from a generator made of the seed and the
micro-batch's number, so that a resumed run repeats an uninterrupted one to the bit without carrying
generator state.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from ttvcli.core.training.ema import EMA
from ttvcli.core.training.optim import OptimizerConfig, build_optimizer, set_learning_rate

# objective(model, batch, generator) -> (scalar loss, plain numbers to log)
Objective = Callable[[nn.Module, Any, torch.Generator], tuple[Tensor, dict[str, float]]]


def step_generator(seed: int, step: int) -> torch.Generator:
    """The CPU generator of one step (or micro-batch) of one run."""
    # The multiplier keeps neighbouring (seed, step) pairs apart.
    return torch.Generator("cpu").manual_seed((seed * 1_000_003 + step) % (2**63 - 1))


class Trainer:
    """Model, optimizer and weight average, advanced one step at a time."""

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        optimizer: OptimizerConfig,
        *,
        total_steps: int,
        ema_decay: float,
        precision: str,
        device: torch.device,
        seed: int,
    ) -> None:
        self.model = model
        self.objective = objective
        self.settings = optimizer
        self.optimizer = build_optimizer(model, optimizer)
        self.total_steps = total_steps
        self.ema = EMA(model, ema_decay) if ema_decay else None
        self.precision = precision
        self.device = device
        self.seed = seed

    def train_step(self, step: int, micro_batches: Sequence[Any]) -> dict[str, float]:
        """Run 0-based `step`; its gradient is the mean over the micro-batches.

        Returns:
            loss, gradient norm, learning rate and the objective's own numbers.

        Raises:
            FloatingPointError: the loss or the gradient is not finite; the weights are unchanged.
        """
        lr = set_learning_rate(self.optimizer, step, self.total_steps, self.settings)
        self.optimizer.zero_grad(set_to_none=True)
        count = len(micro_batches)
        sums: dict[str, float] = {}
        for index, batch in enumerate(micro_batches):
            generator = step_generator(self.seed, step * count + index)
            with self._autocast():
                loss, numbers = self.objective(self.model, batch, generator)
            (loss / count).backward()
            for name, value in {"loss": float(loss.detach()), **numbers}.items():
                sums[name] = sums.get(name, 0.0) + value / count
        limit = self.settings.clip_norm or float("inf")
        norm = float(nn.utils.clip_grad_norm_(self.model.parameters(), limit))
        if not (norm < float("inf") and sums["loss"] < float("inf")):
            self.optimizer.zero_grad(set_to_none=True)
            raise FloatingPointError(
                f"loss {sums['loss']} and gradient norm {norm} at step {step} are not finite"
            )
        self.optimizer.step()
        if self.ema is not None:
            self.ema.update(self.model, step)
        return {**sums, "grad_norm": norm, "lr": lr}

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.precision == "bf16":
            return torch.autocast(self.device.type, torch.bfloat16)
        return nullcontext()
