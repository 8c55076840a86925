"""Optimizer, parameter groups and learning-rate schedule."""

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn

# Names that are not decayed: biases, norms and the learned initial biases of the TTT state.
_NO_DECAY = ("bias", "norm", ".b1", ".b2")
_TTT = (".ttt.", "_gate_")


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW with a learning rate of its own for the TTT layers and their gates."""

    lr: float = field(default=1e-4, metadata={"help": "peak learning rate"})
    ttt_lr: float = field(default=1e-4, metadata={"help": "peak learning rate of TTT layers"})
    lr_end: float = field(default=1e-5, metadata={"help": "learning rate at the last step"})
    schedule: Literal["cosine", "linear", "constant"] = field(
        default="cosine", metadata={"help": "decay after warm-up: cosine, linear or constant"}
    )
    warmup_steps: int = field(default=100, metadata={"help": "steps of linear warm-up"})
    beta1: float = field(default=0.9, metadata={"help": "AdamW first-moment decay"})
    beta2: float = field(default=0.95, metadata={"help": "AdamW second-moment decay"})
    eps: float = field(default=1e-8, metadata={"help": "AdamW epsilon"})
    weight_decay: float = field(default=1e-4, metadata={"help": "decay of matrices"})
    clip_norm: float = field(default=1.0, metadata={"help": "gradient-norm limit; 0 turns it off"})

    def __post_init__(self) -> None:
        if self.lr <= 0 or self.ttt_lr <= 0:
            raise ValueError(f"learning rates must be positive, got {self.lr} and {self.ttt_lr}")
        if self.warmup_steps < 0:
            raise ValueError(f"warmup_steps must not be negative, got {self.warmup_steps}")


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW over the parameters that require gradients, in up to four groups.

    Each group carries `peak_lr`, which `set_learning_rate` scales.
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        is_ttt = any(mark in f".{name}" for mark in _TTT)
        decays = parameter.ndim >= 2 and not any(mark in f".{name}" for mark in _NO_DECAY)
        groups.setdefault((is_ttt, decays), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "lr": config.ttt_lr if is_ttt else config.lr,
                "peak_lr": config.ttt_lr if is_ttt else config.lr,
                "weight_decay": config.weight_decay if decays else 0.0,
            }
            for (is_ttt, decays), parameters in sorted(groups.items())
        ],
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        fused=True,
    )


def learning_rate(peak: float, step: int, total: int, config: OptimizerConfig) -> float:
    """Learning rate of 0-based `step`: linear warm-up to `peak`, then decay to `lr_end`."""
    if step < config.warmup_steps:
        return peak * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return peak
    span = max(total - config.warmup_steps - 1, 1)
    progress = min((step - config.warmup_steps) / span, 1.0)
    if config.schedule == "cosine":
        progress = (1 - math.cos(math.pi * progress)) / 2
    return peak + (min(config.lr_end, peak) - peak) * progress


def set_learning_rate(
    optimizer: torch.optim.Optimizer, step: int, total: int, config: OptimizerConfig
) -> float:
    """Set every group's learning rate for `step`; returns that of the first group."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(group["peak_lr"], step, total, config)
    return optimizer.param_groups[0]["lr"]
