"""Samplers on a problem with a known answer: data that is Gaussian in every element.

For data N(MEAN, STD^2) the ideal denoiser is linear and the deterministic samplers have to carry
noise z to MEAN + STD z; the stochastic one has to reproduce mean and deviation.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from ttvcli.core.diffusion.parameterization import Prediction, denoiser
from ttvcli.core.diffusion.samplers import SamplerState, ddim, dpm_pp_2m, dpm_pp_2m_sde
from ttvcli.core.diffusion.schedules import NoiseSchedule

SCHEDULE = NoiseSchedule()
MEAN, STD = 0.4, 0.5
ALL = [ddim, dpm_pp_2m, dpm_pp_2m_sde]


def ideal_v(schedule: NoiseSchedule) -> Prediction:
    """The best v-prediction for the Gaussian data under `schedule`."""

    def predict(x: Tensor, timestep: int, step: int) -> Tensor:
        alpha = float(schedule.alpha(timestep))
        gain = STD**2 * alpha**0.5 / (alpha * STD**2 + 1 - alpha)
        clean = MEAN + gain * (x - alpha**0.5 * MEAN)
        noise = (x - alpha**0.5 * clean) / (1 - alpha) ** 0.5
        return alpha**0.5 * noise - (1 - alpha) ** 0.5 * clean

    return predict


def draw(count: int = 2000, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, count, generator=generator, dtype=torch.float64)


def run(sampler: Callable[..., Tensor], x: Tensor, steps: int, **options: Any) -> Tensor:
    if sampler is dpm_pp_2m_sde:
        options.setdefault("generator", torch.Generator().manual_seed(7))
    return sampler(denoiser(ideal_v(SCHEDULE), SCHEDULE), x, SCHEDULE, steps, **options)


def error_at(timestep: int, sampler: Callable[..., Tensor], steps: int) -> float:
    """Largest distance from the exact curve where the run arrives at `timestep`.

    The flow of the data keeps every quantile, so z lands on the z-quantile of each marginal.
    """
    arrived: dict[int, Tensor] = {}
    targets = [move.target for move in SCHEDULE.moves(steps)]

    def keep(event: dict[str, Any]) -> None:
        arrived[targets[event["step"]]] = event["x"]

    z = draw()
    run(sampler, z, steps, callback=keep)
    alpha = float(SCHEDULE.alpha(timestep)) if timestep >= 0 else 1.0
    exact = alpha**0.5 * MEAN + (alpha * STD**2 + 1 - alpha) ** 0.5 * z
    return float((arrived[timestep] - exact).abs().max())


@pytest.mark.parametrize(("sampler", "order"), [(ddim, 1), (dpm_pp_2m, 2)])
@pytest.mark.parametrize("timestep", [39, 199, 599])
def test_deterministic_samplers_converge_with_their_order(
    sampler: Callable[..., Tensor], order: int, timestep: int
) -> None:
    errors = [error_at(timestep, sampler, steps) for steps in (25, 50, 100, 200)]
    for coarse, fine in pairwise(errors):
        # doubling the steps divides the error by 2 ** order; 39 lies close to the last, larger
        # steps in log-SNR, where the ratio has not settled yet
        assert 0.85 * 2**-order < fine / coarse < 1.4 * 2**-order


@pytest.mark.parametrize(("sampler", "bound"), [(ddim, 0.036), (dpm_pp_2m, 0.014)])
def test_deterministic_samplers_recover_the_data(
    sampler: Callable[..., Tensor], bound: float
) -> None:
    # The largest of 2000 deviations. Most of it comes from the last step, which is of first order
    # in every sampler; 1000 steps, the finest grid there is, give 0.0082 and 0.0024.
    assert error_at(-1, sampler, 200) < bound


def test_the_stochastic_sampler_reproduces_mean_and_deviation() -> None:
    x = run(dpm_pp_2m_sde, draw(50_000), 50)
    # Statistical error of 50,000 draws: 0.0022 on the mean, 0.0016 on the deviation; 50 steps make
    # the deviation too small by 0.010 (10 steps: 0.103, 250 steps: 0.002).
    assert float(x.mean()) == pytest.approx(MEAN, abs=0.007)
    assert float(x.std()) == pytest.approx(STD, abs=0.015)


@pytest.mark.parametrize("sampler", ALL)
def test_one_step_returns_the_prediction_from_pure_noise(sampler: Callable[..., Tensor]) -> None:
    x = run(sampler, draw(50), 1)
    assert torch.allclose(x, torch.full_like(x, MEAN), atol=1e-12)


@pytest.mark.parametrize("sampler", ALL)
@pytest.mark.parametrize("steps", [6, 7, 13, 30])
def test_step_counts_that_do_not_divide_the_table_end_clean(
    sampler: Callable[..., Tensor], steps: int
) -> None:
    last: dict[str, Any] = {}
    x = run(sampler, draw(50), steps, callback=last.update)
    # at the clean end nothing but the last prediction is left
    assert torch.allclose(x, last["denoised"], atol=1e-12)


def test_the_public_rule_leaves_noise_at_the_end_for_seven_steps() -> None:
    last: dict[str, Any] = {}
    x = run(dpm_pp_2m_sde, draw(500), 7, callback=last.update, previous="diffusers")
    assert float((x - last["denoised"]).std()) > 0.01


def test_the_wrong_sign_of_v_does_not_find_the_data() -> None:
    def flipped(x: Tensor, timestep: int, step: int) -> Tensor:
        return -ideal_v(SCHEDULE)(x, timestep, step)

    z = draw(200)
    x = ddim(denoiser(flipped, SCHEDULE), z, SCHEDULE, 100)
    assert float((x - (MEAN + STD * z)).abs().max()) > 0.3


@pytest.mark.parametrize("sampler", ALL)
@pytest.mark.parametrize("stop", [1, 4, 9])
def test_a_resumed_run_gives_the_same_bytes(sampler: Callable[..., Tensor], stop: int) -> None:
    z = draw(64).float()
    generators = [torch.Generator().manual_seed(3)]
    whole = run(sampler, z, 10, generator=generators)

    saved: dict[str, Any] = {}

    def save(event: dict[str, Any]) -> None:
        if event["step"] == stop - 1:
            saved.update(event)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(sampler, z, 10, generator=[torch.Generator().manual_seed(3)], callback=save)
    fresh = [torch.Generator().manual_seed(99)]
    noise = torch.zeros_like(z)  # gives shape and device; the values are those of the state
    rest = run(sampler, noise, 10, generator=fresh, state=saved["state"])
    assert torch.equal(rest, whole)


def test_resuming_without_the_saved_state_gives_another_sample() -> None:
    z = draw(64).float()
    events: list[dict[str, Any]] = []
    whole = run(dpm_pp_2m, z, 10, callback=events.append)
    rest = run(dpm_pp_2m, events[4]["x"], 10, start_step=5)
    assert not torch.equal(rest, whole)


@pytest.mark.parametrize("sampler", ALL)
def test_the_callback_sees_every_step_once(sampler: Callable[..., Tensor]) -> None:
    events: list[dict[str, Any]] = []
    x = run(sampler, draw(8), 5, callback=events.append)
    assert [event["step"] for event in events] == [0, 1, 2, 3, 4]
    assert [event["timestep"] for event in events] == SCHEDULE.timesteps(5)
    assert torch.equal(events[-1]["x"], x)
    assert events[2]["state"].next_step == 3


def test_start_step_skips_the_steps_before_it() -> None:
    seen: list[int] = []
    run(ddim, draw(8), 10, start_step=7, callback=lambda event: seen.append(event["step"]))
    assert seen == [7, 8, 9]


def test_a_sample_does_not_depend_on_its_batch() -> None:
    z = torch.cat([draw(64, seed) for seed in (1, 2, 3)]).float()
    seeds = [11, 12, 13]
    batch = run(dpm_pp_2m_sde, z, 8, generator=[torch.Generator().manual_seed(s) for s in seeds])
    alone = run(dpm_pp_2m_sde, z[1:2], 8, generator=[torch.Generator().manual_seed(12)])
    assert torch.equal(batch[1:2], alone)


def test_middle_steps_draw_twice_and_the_ends_once() -> None:
    generator, twin = torch.Generator().manual_seed(5), torch.Generator().manual_seed(5)
    run(dpm_pp_2m_sde, draw(64), 6, generator=generator)
    for _ in range(1 + 2 * 4 + 1):
        torch.randn(1, 64, generator=twin, dtype=torch.float64)
    assert torch.equal(generator.get_state(), twin.get_state())


@pytest.mark.parametrize("sampler", [ddim, dpm_pp_2m])
def test_the_deterministic_samplers_draw_nothing(sampler: Callable[..., Tensor]) -> None:
    generator = torch.Generator().manual_seed(5)
    before = generator.get_state()
    run(sampler, draw(8), 5, generator=generator)
    assert torch.equal(generator.get_state(), before)


def test_bad_arguments_are_refused() -> None:
    z = draw(8)
    with pytest.raises(ValueError, match="needs a generator"):
        run(dpm_pp_2m_sde, z, 5, generator=None)
    with pytest.raises(ValueError, match="bfloat16"):
        run(ddim, z.bfloat16(), 5)
    with pytest.raises(ValueError, match="between 0 and 5"):
        run(ddim, z, 5, start_step=6)
    with pytest.raises(ValueError, match="continues at 2"):
        run(ddim, z, 5, start_step=3, state=SamplerState(2, z))
    with pytest.raises(ValueError, match=r"saved sample is \(1, 8\) torch.float32"):
        run(ddim, z, 5, state=SamplerState(2, z.float()))
    with pytest.raises(ValueError, match="denoise returned shape"):
        ddim(lambda x, timestep, step: x[:, :3], z, SCHEDULE, 5)
