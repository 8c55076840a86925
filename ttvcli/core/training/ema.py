"""Exponential moving average of a model's weights."""

import torch
from torch import Tensor, nn


class EMA:
    """Float32 running average of the trainable parameters.

    The decay is `min(decay, (1 + step) / (10 + step))`, so that the random start fades quickly.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"EMA decay must be in [0, 1), got {decay}")
        self.decay = decay
        self.shadow: dict[str, Tensor] = {
            name: parameter.detach().float().clone()
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        }

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move the average towards the weights after 0-based `step`."""
        decay = min(self.decay, (1 + step) / (10 + step))
        names = list(self.shadow)
        parameters = dict(model.named_parameters())
        current = [parameters[name].detach().float() for name in names]
        torch._foreach_lerp_([self.shadow[name] for name in names], current, 1 - decay)

    def state_dict(self) -> dict[str, Tensor]:
        """The averaged tensors by parameter name."""
        return self.shadow

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore the average.

        Raises:
            ValueError: the names differ from the model's.
        """
        if state.keys() != self.shadow.keys():
            odd = sorted(state.keys() ^ self.shadow.keys())
            raise ValueError(f"EMA state does not match the model: {odd[:5]}")
        for name, value in state.items():
            self.shadow[name].copy_(value)

    def merged_state_dict(self, model: nn.Module) -> dict[str, Tensor]:
        """The model's state dict with the averaged weights in place of the trained ones."""
        merged = {name: value.detach().clone() for name, value in model.state_dict().items()}
        for name, value in self.shadow.items():
            merged[name] = value.to(merged[name].dtype).clone()
        return merged
