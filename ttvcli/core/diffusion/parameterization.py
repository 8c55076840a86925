"""Conversions between what the network predicts (v) and what a sampler needs (the clean sample).

With `a` the signal share of the schedule at a timestep: `x = sqrt(a) x0 + sqrt(1-a) eps` and
`v = sqrt(a) eps - sqrt(1-a) x0`, a rotation of (x0, eps); its inverse needs no division, so the
conversions hold at zero terminal SNR (a = 0) too. Scalars are float64, tensors keep their dtype.
`timestep` is an int, or `[B]` for one timestep per sample.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ttvcli.core.diffusion.schedules import NoiseSchedule

# (x, timestep, step) -> tensor of x's shape
Prediction = Callable[[Tensor, int, int], Tensor]


def clean_from_v(schedule: NoiseSchedule, x: Tensor, v: Tensor, timestep: int | Tensor) -> Tensor:
    """Return the clean sample `x0 = sqrt(a) x - sqrt(1-a) v`."""
    signal, sigma = schedule.signal_noise(timestep, x)
    return signal * x - sigma * v


def noise_from_v(schedule: NoiseSchedule, x: Tensor, v: Tensor, timestep: int | Tensor) -> Tensor:
    """Return the noise `eps = sqrt(a) v + sqrt(1-a) x`."""
    signal, sigma = schedule.signal_noise(timestep, x)
    return signal * v + sigma * x


def denoiser(predict_v: Prediction, schedule: NoiseSchedule) -> Prediction:
    """Wrap a v-prediction into the clean-sample prediction, in float32, that samplers call."""

    def denoise(x: Tensor, timestep: int, step: int) -> Tensor:
        v = predict_v(x, timestep, step)
        if v.shape != x.shape:
            raise ValueError(
                f"the prediction has shape {tuple(v.shape)}, the sample {tuple(x.shape)}"
            )
        v = v.to(torch.promote_types(v.dtype, torch.float32))
        return clean_from_v(schedule, x, v, timestep)

    return denoise
