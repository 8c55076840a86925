"""Noise schedule and samplers against diffusers' CogVideoX schedulers, to the bit."""

from typing import Any

import pytest
import torch
from torch import Tensor

from ttvcli.core.diffusion.parameterization import denoiser
from ttvcli.core.diffusion.samplers import ddim, dpm_pp_2m_sde
from ttvcli.core.diffusion.schedules import NoiseSchedule

diffusers = pytest.importorskip("diffusers")
pytestmark = pytest.mark.parity

SHAPE = (1, 3, 4, 8, 12)
# scheduler/scheduler_config.json of the public folders
HUB: dict[str, Any] = {
    "_class_name": "CogVideoXDDIMScheduler",
    "_diffusers_version": "0.30.0.dev0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "clip_sample_range": 1.0,
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "sample_max_value": 1.0,
    "set_alpha_to_one": True,
    "steps_offset": 0,
    "timestep_spacing": "trailing",
    "trained_betas": None,
}


def hub(shift: float) -> dict[str, Any]:
    return {**HUB, "snr_shift_scale": shift}


def inputs(steps: int) -> tuple[Tensor, Tensor]:
    """Initial noise and one fixed v-prediction for each step."""
    generator = torch.Generator().manual_seed(steps)
    x = torch.randn(SHAPE, generator=generator)
    return x, torch.randn(steps, *SHAPE, generator=generator)


def public_ddim(shift: float, steps: int, x: Tensor, v: Tensor) -> list[Tensor]:
    scheduler = diffusers.CogVideoXDDIMScheduler.from_config(hub(shift))
    scheduler.set_timesteps(steps)
    trajectory = []
    for step, timestep in enumerate(scheduler.timesteps):
        x = scheduler.step(v[step], timestep, x, return_dict=False)[0]
        trajectory.append(x)
    return trajectory


def public_dpm(
    shift: float, steps: int, x: Tensor, v: Tensor, generator: torch.Generator
) -> list[Tensor]:
    scheduler = diffusers.CogVideoXDPMScheduler.from_config(hub(shift))
    scheduler.set_timesteps(steps)
    trajectory, old, back = [], None, None
    for step, timestep in enumerate(scheduler.timesteps):
        x, old = scheduler.step(
            v[step], old, timestep, back, x, generator=generator, return_dict=False
        )
        back = timestep
        trajectory.append(x)
    return trajectory


def collect(sampler: Any, shift: float, steps: int, **options: Any) -> list[Tensor]:
    schedule = NoiseSchedule.from_config(hub(shift))
    x, v = inputs(steps)
    trajectory: list[Tensor] = []
    sampler(
        denoiser(lambda x, timestep, step: v[step], schedule),
        x,
        schedule,
        steps,
        callback=lambda event: trajectory.append(event["x"]),
        **options,
    )
    return trajectory


def assert_same_bytes(mine: list[Tensor], theirs: list[Tensor]) -> None:
    assert len(mine) == len(theirs)
    for step, (a, b) in enumerate(zip(mine, theirs, strict=True)):
        assert torch.equal(a, b), f"step {step}: {(a - b).abs().max()}"


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_the_tables_are_equal(shift: float) -> None:
    for name in ("CogVideoXDDIMScheduler", "CogVideoXDPMScheduler"):
        theirs = getattr(diffusers, name).from_config(hub(shift))
        assert torch.equal(
            NoiseSchedule.from_config(hub(shift)).alphas_cumprod, theirs.alphas_cumprod
        )


def test_diffusers_reads_our_config_to_the_same_table() -> None:
    schedule = NoiseSchedule(snr_shift_scale=3.0)
    theirs = diffusers.CogVideoXDDIMScheduler.from_config(schedule.to_config())
    assert torch.equal(theirs.alphas_cumprod, schedule.alphas_cumprod)
    assert theirs.config.prediction_type == "v_prediction"


def test_all_grids_are_equal() -> None:
    scheduler = diffusers.CogVideoXDDIMScheduler.from_config(hub(1.0))
    schedule = NoiseSchedule()
    for steps in range(1, 1001):
        scheduler.set_timesteps(steps)
        # theirs has a stray -1 at the end for some counts, 61 the smallest
        assert schedule.timesteps(steps) == scheduler.timesteps.tolist()[:steps]


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("steps", [1, 2, 8, 20, 25, 50])
def test_ddim_is_equal(shift: float, steps: int) -> None:
    theirs = public_ddim(shift, steps, *inputs(steps))
    assert_same_bytes(collect(ddim, shift, steps), theirs)


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("steps", [1, 2, 8, 20, 25, 50])
def test_dpm_and_its_noise_order_are_equal(shift: float, steps: int) -> None:
    generator = torch.Generator().manual_seed(3)
    theirs = public_dpm(shift, steps, *inputs(steps), generator)
    twin = torch.Generator().manual_seed(3)
    assert_same_bytes(collect(dpm_pp_2m_sde, shift, steps, generator=twin), theirs)
    assert torch.equal(generator.get_state(), twin.get_state())


@pytest.mark.parametrize("steps", [6, 7, 30, 48])
def test_counts_that_do_not_divide_the_table_are_equal_with_the_public_rule(steps: int) -> None:
    x, v = inputs(steps)
    mine = collect(ddim, 1.0, steps, previous="diffusers")
    assert_same_bytes(mine, public_ddim(1.0, steps, x, v))
    theirs = public_dpm(1.0, steps, x, v, torch.Generator().manual_seed(3))
    twin = torch.Generator().manual_seed(3)
    mine = collect(dpm_pp_2m_sde, 1.0, steps, previous="diffusers", generator=twin)
    assert_same_bytes(mine, theirs)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_added_noise_and_velocity_agree(shift: float) -> None:
    theirs = diffusers.CogVideoXDDIMScheduler.from_config(hub(shift))
    schedule = NoiseSchedule.from_config(hub(shift))
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 6, 3, 4, generator=generator)
    timesteps = torch.tensor([0, 19, 499, 979, 998, 999])
    # theirs rounds the table to float32 before the square root, which loses up to half the digits
    # of sqrt(1 - a) at the clean end; ours rounds the roots
    for mine, other in (
        (schedule.add_noise, theirs.add_noise),
        (schedule.velocity, theirs.get_velocity),
    ):
        torch.testing.assert_close(
            mine(clean, noise, timesteps), other(clean, noise, timesteps), rtol=0, atol=1e-5
        )
        exact = other(clean.double(), noise.double(), timesteps)
        torch.testing.assert_close(mine(clean, noise, timesteps).double(), exact, rtol=0, atol=5e-7)
