"""Conversions between v, the clean sample and the noise."""

import pytest
import torch
from torch import Tensor

from ttvcli.core.diffusion.parameterization import clean_from_v, denoiser, noise_from_v
from ttvcli.core.diffusion.schedules import NoiseSchedule

SCHEDULE = NoiseSchedule()


def pair(*shape: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    clean, noise = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    return clean, noise


@pytest.mark.parametrize("timestep", [0, 19, 499, 998, 999])
def test_v_gives_back_the_clean_sample_and_the_noise(timestep: int) -> None:
    clean, noise = pair(4, 5)
    x = SCHEDULE.add_noise(clean, noise, timestep)
    v = SCHEDULE.velocity(clean, noise, timestep)
    assert torch.allclose(clean_from_v(SCHEDULE, x, v, timestep), clean, atol=1e-12)
    assert torch.allclose(noise_from_v(SCHEDULE, x, v, timestep), noise, atol=1e-12)


def test_batched_timesteps_convert_row_by_row() -> None:
    clean, noise = pair(3, 2, 2)
    timesteps = torch.tensor([7, 700, 999])
    x = SCHEDULE.add_noise(clean, noise, timesteps)
    v = SCHEDULE.velocity(clean, noise, timesteps)
    assert torch.allclose(clean_from_v(SCHEDULE, x, v, timesteps), clean, atol=1e-12)


def test_the_wrong_sign_of_v_does_not_give_the_clean_sample() -> None:
    clean, noise = pair(4, 5)
    x = SCHEDULE.add_noise(clean, noise, 499)
    v = SCHEDULE.velocity(clean, noise, 499)
    assert (clean_from_v(SCHEDULE, x, -v, 499) - clean).abs().max() > 0.5


def test_the_error_of_v_is_the_weighted_error_of_the_clean_sample() -> None:
    clean, noise = pair(2, 3)
    timesteps = torch.tensor([200, 900])
    x = SCHEDULE.add_noise(clean, noise, timesteps)
    v = SCHEDULE.velocity(clean, noise, timesteps)
    wrong = v + 0.3
    weight = 1 / (1 - SCHEDULE.alphas_cumprod[timesteps])[:, None]
    error = (clean_from_v(SCHEDULE, x, wrong, timesteps) - clean) ** 2 * weight
    assert torch.allclose(error, (wrong - v) ** 2)


def test_a_low_precision_prediction_is_converted_in_float32() -> None:
    x = torch.ones(2, 3)
    denoised = denoiser(lambda x, timestep, step: x.bfloat16() * 0.1, SCHEDULE)(x, 499, 0)
    assert denoised.dtype == torch.float32
    v = torch.full((2, 3), 0.1).bfloat16().float()
    assert torch.equal(denoised, clean_from_v(SCHEDULE, x, v, 499))


def test_a_prediction_of_another_shape_is_refused() -> None:
    denoise = denoiser(lambda x, timestep, step: x[:1], SCHEDULE)
    with pytest.raises(ValueError, match=r"\(1, 3\).*\(2, 3\)"):
        denoise(torch.ones(2, 3), 499, 0)
