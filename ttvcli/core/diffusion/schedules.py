"""Noise schedule of the CogVideoX family: float64 tables, trailing timesteps, steps to take.

Read from a diffusers `scheduler_config.json`. The class defaults of the public schedulers (epsilon
prediction, leading spacing, no zero-SNR rescale) fit no published CogVideoX checkpoint, so a key
that decides the numbers has to be present and is never guessed.

Shapes: T training timesteps (1000) · B batch.
"""

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

CLEAN = -1  # the "timestep" after the last step: alpha_bar = 1, no noise left

Previous = Literal["grid", "diffusers"]

# Keys with one accepted value. The first group has to be written down, because the public class
# default is a different value; the second group may be left out.
_FIXED_REQUIRED: dict[str, Any] = {
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
    "rescale_betas_zero_snr": True,
}
_FIXED_OPTIONAL: dict[str, Any] = {
    "clip_sample": False,
    "set_alpha_to_one": True,
    "steps_offset": 0,
    "thresholding": False,
    "trained_betas": None,
}
_NUMBERS: dict[str, str] = {
    "num_train_timesteps": "1000",
    "beta_start": "0.00085",
    "beta_end": "0.012",
    "snr_shift_scale": "3.0 for CogVideoX-2B, 1.0 for the 5B models",
}
# Meaningless while clipping and thresholding are off.
_IGNORED = {"clip_sample_range", "sample_max_value", "dynamic_thresholding_ratio"}


class Move(NamedTuple):
    """One sampling step: from `timestep` to `target` (`CLEAN` = no noise), coming from `origin`."""

    timestep: int
    target: int
    origin: int | None


@dataclass(frozen=True)
class NoiseSchedule:
    """`alphas_cumprod` [T] float64 on the CPU: the share of signal variance left at each timestep.

    The order of the two corrections matters: the SNR shift comes first, the rescale to zero
    terminal SNR second, so that `alphas_cumprod[-1]` is exactly 0 whatever the shift.
    """

    num_train_timesteps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012
    snr_shift_scale: float = 1.0

    def __post_init__(self) -> None:
        if self.num_train_timesteps < 2:
            raise ValueError(f"num_train_timesteps is {self.num_train_timesteps}, need 2 or more")
        if not 0 < self.beta_start < self.beta_end < 1:
            raise ValueError(
                "betas have to satisfy 0 < beta_start < beta_end < 1, got "
                f"{self.beta_start} and {self.beta_end}"
            )
        if not self.snr_shift_scale > 0:
            raise ValueError(f"snr_shift_scale is {self.snr_shift_scale}, has to be positive")
        # Frozen dataclass: the table is derived once, here, and never changes.
        object.__setattr__(self, "_alphas_cumprod", self._build())

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "NoiseSchedule":
        """Build from the content of `scheduler_config.json`; `ValueError` names the bad key."""
        _check_fixed(config, _FIXED_REQUIRED, required=True)
        _check_fixed(config, _FIXED_OPTIONAL, required=False)
        for key, expected in _NUMBERS.items():
            if key not in config:
                raise ValueError(f"scheduler config lacks {key!r} (expected {expected})")
            value = config[key]
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"scheduler config has {key} = {value!r}, expected {expected}")
        known = {*_FIXED_REQUIRED, *_FIXED_OPTIONAL, *_NUMBERS, *_IGNORED}
        for key in config:
            if key not in known and not key.startswith("_"):
                near = difflib.get_close_matches(key, known, n=1)
                hint = f", did you mean {near[0]!r}?" if near else ""
                raise ValueError(f"scheduler config has the unknown key {key!r}{hint}")
        return cls(
            num_train_timesteps=int(config["num_train_timesteps"]),
            beta_start=float(config["beta_start"]),
            beta_end=float(config["beta_end"]),
            snr_shift_scale=float(config["snr_shift_scale"]),
        )

    def to_config(self) -> dict[str, Any]:
        """Return a `scheduler_config.json` that diffusers reads to the same tables."""
        return {
            "_class_name": "CogVideoXDDIMScheduler",
            "num_train_timesteps": self.num_train_timesteps,
            "beta_start": self.beta_start,
            "beta_end": self.beta_end,
            "snr_shift_scale": self.snr_shift_scale,
            **_FIXED_REQUIRED,
            **{key: value for key, value in _FIXED_OPTIONAL.items() if key != "thresholding"},
        }

    @property
    def alphas_cumprod(self) -> Tensor:
        """Signal share [T], float64, CPU."""
        return self._alphas_cumprod  # type: ignore[attr-defined]

    def alpha(self, timestep: int) -> Tensor:
        """Signal share at one timestep as a float64 scalar tensor; 1 at `CLEAN`."""
        if timestep == CLEAN:
            return torch.ones((), dtype=torch.float64)
        if not 0 <= timestep < self.num_train_timesteps:
            raise ValueError(f"timestep {timestep} is outside 0..{self.num_train_timesteps - 1}")
        return self.alphas_cumprod[timestep]

    def timesteps(self, steps: int) -> list[int]:
        """Return the `steps` timesteps of the trailing grid, from T-1 downwards.

        The grid divides T evenly counting from the noisy end, so the first step always starts
        from pure noise: 50 steps give 999, 979, ..., 19. Halves round to even, and the stride is
        the one numpy's `arange` uses, rounding error included, which decides some of the halves
        (48 steps). The public schedulers return one entry too many for 61, 103, ... steps.
        """
        total = self.num_train_timesteps
        if not 1 <= steps <= total:
            raise ValueError(f"steps is {steps}, has to be between 1 and {total}")
        stride = (total - total / steps) - total
        return [round(total + index * stride) - 1 for index in range(steps)]

    def moves(self, steps: int, previous: Previous = "grid") -> list[Move]:
        """Return the transitions of a `steps`-step sampling run.

        `grid` (ours) goes from each grid entry to the next one and from the last to `CLEAN`.
        `diffusers` subtracts `T // steps` instead. Both agree when `steps` divides T; otherwise
        the public rule misses the next grid entry, and for many counts (6, 7, 11, 13, ...) its
        last step stops at timestep 0 with a little noise left. Use it to reproduce such runs.
        """
        grid = self.timesteps(steps)
        origins: list[int | None] = [None, *grid[:-1]]
        if previous == "grid":
            targets = [*grid[1:], CLEAN]
        elif previous == "diffusers":
            stride = self.num_train_timesteps // steps
            targets = [max(timestep - stride, CLEAN) for timestep in grid]
        else:
            raise ValueError(f"previous is {previous!r}, has to be 'grid' or 'diffusers'")
        return [Move(*move) for move in zip(grid, targets, origins, strict=True)]

    def signal_noise(self, timestep: int | Tensor, like: Tensor) -> tuple[Any, Any]:
        """Return `sqrt(alpha_bar)` and `sqrt(1 - alpha_bar)` ready to multiply `like`.

        Python floats for one timestep; for a `[B]` integer tensor, tensors of `like`'s dtype and
        device shaped `[B, 1, ...]`. The square roots are taken in float64 in both cases. Pass
        batched timesteps on the CPU: the lookup happens there.
        """
        if isinstance(timestep, int):
            alpha = self.alpha(timestep)
            return float(alpha.sqrt()), float((1 - alpha).sqrt())
        if timestep.ndim != 1 or timestep.shape[0] != like.shape[0]:
            raise ValueError(
                f"timesteps have shape {tuple(timestep.shape)}, expected ({like.shape[0]},)"
            )
        alpha = self.alphas_cumprod[timestep.to("cpu", torch.long)]
        alpha = alpha.reshape(-1, *[1] * (like.ndim - 1))
        dtype = like.dtype if like.dtype == torch.float64 else torch.float32
        return (
            alpha.sqrt().to(like.device, dtype),
            (1 - alpha).sqrt().to(like.device, dtype),
        )

    def add_noise(self, clean: Tensor, noise: Tensor, timestep: int | Tensor) -> Tensor:
        """Return `x_t = sqrt(a) clean + sqrt(1-a) noise`; `timestep` is an int or `[B]`."""
        _check_pair("noise", noise, clean)
        signal, sigma = self.signal_noise(timestep, clean)
        return (signal * clean + sigma * noise).to(clean.dtype)

    def velocity(self, clean: Tensor, noise: Tensor, timestep: int | Tensor) -> Tensor:
        """Return the training target `v = sqrt(a) noise - sqrt(1-a) clean`.

        The mean square error on v equals the clean-sample error divided by `1 - a`, which is the
        weighting CogVideoX was trained with.
        """
        _check_pair("noise", noise, clean)
        signal, sigma = self.signal_noise(timestep, clean)
        return (signal * noise - sigma * clean).to(clean.dtype)

    def _build(self) -> Tensor:
        roots = torch.linspace(
            math.sqrt(self.beta_start),
            math.sqrt(self.beta_end),
            self.num_train_timesteps,
            dtype=torch.float64,
        )
        unshifted = torch.cumprod(1 - roots**2, dim=0)
        return zero_terminal_snr(shift_snr(unshifted, self.snr_shift_scale))


def shift_snr(alphas_cumprod: Tensor, scale: float) -> Tensor:
    """Divide the signal-to-noise ratio `a / (1-a)` by `scale` at every timestep."""
    return alphas_cumprod / (scale + (1 - scale) * alphas_cumprod)


def zero_terminal_snr(alphas_cumprod: Tensor) -> Tensor:
    """Stretch `sqrt(a)` linearly so that the first entry stays and the last becomes 0.

    Algorithm 1 of "Common Diffusion Noise Schedules and Sample Steps are Flawed"
    (arXiv 2305.08891).
    """
    root = alphas_cumprod.sqrt()
    first, last = root[0], root[-1]
    return ((root - last) * (first / (first - last))) ** 2


def _check_fixed(config: Mapping[str, Any], expected: dict[str, Any], *, required: bool) -> None:
    for key, value in expected.items():
        if key not in config:
            if required:
                raise ValueError(f"scheduler config lacks {key!r} (expected {value!r})")
            continue
        if config[key] != value:
            raise ValueError(
                f"scheduler config has {key} = {config[key]!r}, only {value!r} is supported"
            )


def _check_pair(name: str, tensor: Tensor, reference: Tensor) -> None:
    if tensor.shape != reference.shape:
        raise ValueError(
            f"{name} has shape {tuple(tensor.shape)}, expected {tuple(reference.shape)}"
        )
