"""AdamW that updates the matrices of some groups with Muon instead.

Muon: momentum whose matrix is made orthogonal before it is applied, so that all directions of a
layer learn at the same rate (Jordan, https://kellerjordan.github.io/posts/muon/). The update is
scaled to the size of an AdamW update, so that one learning rate serves both (Liu et al.,
https://arxiv.org/abs/2502.16982, equation 4).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

# Coefficients of the fifth-order Newton-Schulz iteration, chosen by Jordan for steepness at 0.
_QUINTIC = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
_MOMENTUM = 0.95
_ADAMW_RMS = 0.2


@torch.no_grad()
def orthogonalise(matrix: Tensor, iterations: int = _ITERATIONS) -> Tensor:
    """Bring the singular values of `matrix` [rows, columns] near 1, keeping its directions.

    Returns:
        A bfloat16 matrix whose singular values lie between about 0.7 and 1.2, except those of
        `matrix` that are tiny beside its norm. Rounding does not matter to the method.

    Raises:
        ValueError: not a matrix.
    """
    if matrix.ndim != 2:
        raise ValueError(f"expected a matrix, got shape {tuple(matrix.shape)}")
    first, third, fifth = _QUINTIC
    x = matrix.float()
    x = (x / (x.norm() + 1e-7)).bfloat16()
    is_tall = x.shape[0] > x.shape[1]
    x = x.mT if is_tall else x
    for _ in range(iterations):
        square = x @ x.mT
        x = first * x + (third * square + fifth * square @ square) @ x
    return x.mT if is_tall else x


class MuonAdamW(torch.optim.AdamW):
    """AdamW; groups with `muon=True` hold matrices and are updated by Muon.

    Muon's groups use the group's `lr` and `weight_decay` as AdamW does; the betas have no effect
    on them.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all groups; `closure` is not supported.

        Raises:
            ValueError: a closure was given.
        """
        if closure is not None:
            raise ValueError("MuonAdamW takes no closure")
        hidden = []
        for group in self.param_groups:
            if not group.get("muon"):
                continue
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._orthogonal_step(parameter, group["lr"], group["weight_decay"])
                    hidden.append((parameter, parameter.grad))
                    parameter.grad = None  # AdamW passes over parameters without a gradient
        super().step()
        for parameter, gradient in hidden:
            parameter.grad = gradient

    def _orthogonal_step(self, parameter: Tensor, lr: float, weight_decay: float) -> None:
        assert parameter.grad is not None
        state = self.state[parameter]
        if not state:
            state["step"] = torch.tensor(0.0)  # AdamW looks for it when it loads a state
            state["momentum_buffer"] = torch.zeros_like(parameter, dtype=torch.float32)
        state["step"] += 1
        gradient = parameter.grad.float()
        momentum = state["momentum_buffer"].lerp_(gradient, 1 - _MOMENTUM)
        update = orthogonalise(gradient.lerp(momentum, _MOMENTUM))
        scale = _ADAMW_RMS * max(parameter.shape) ** 0.5
        parameter.mul_(1 - lr * weight_decay)
        parameter.add_(update.to(parameter.dtype), alpha=-lr * scale)
