"""The noise schedule: golden values, what it refuses, and the steps it takes."""

from itertools import pairwise

import pytest
import torch

from ttvcli.core.diffusion.schedules import CLEAN, NoiseSchedule, shift_snr, zero_terminal_snr

GOLDEN_TIMESTEPS = [0, 1, 19, 499, 979, 998, 999]
GOLDEN = {
    1.0: [0.99915, 0.99823345, 0.98101046, 0.24235917, 8.578784e-05, 1.967888e-07, 0.0],
    3.0: [0.99745433, 0.99480063, 0.94657298, 0.09596956, 2.719436e-05, 6.230788e-08, 0.0],
}
EXACT_COUNTS = [1, 2, 4, 5, 8, 10, 20, 25, 40, 50, 100]


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_signal_shares_have_the_published_values(shift: float) -> None:
    table = NoiseSchedule(snr_shift_scale=shift).alphas_cumprod
    assert table.dtype == torch.float64
    # the golden values are printed with seven or eight digits
    assert table[GOLDEN_TIMESTEPS].tolist() == pytest.approx(GOLDEN[shift], rel=1e-6)
    assert table[-1] == 0


def test_the_swapped_order_of_shift_and_rescale_gives_other_shares() -> None:
    roots = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64)
    plain = torch.cumprod(1 - roots**2, dim=0)
    right = NoiseSchedule(snr_shift_scale=3.0).alphas_cumprod
    assert torch.equal(zero_terminal_snr(shift_snr(plain, 3.0)), right)
    swapped = shift_snr(zero_terminal_snr(plain), 3.0)
    assert swapped[GOLDEN_TIMESTEPS].tolist() != pytest.approx(GOLDEN[3.0], rel=1e-3)


def test_config_survives_a_round_trip() -> None:
    schedule = NoiseSchedule(snr_shift_scale=3.0, beta_end=0.02, num_train_timesteps=500)
    assert NoiseSchedule.from_config(schedule.to_config()) == schedule


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("prediction_type", "epsilon"),
        ("timestep_spacing", "leading"),
        ("beta_schedule", "linear"),
        ("rescale_betas_zero_snr", False),
        ("clip_sample", True),
        ("set_alpha_to_one", False),
        ("steps_offset", 1),
        ("trained_betas", [0.1]),
        ("snr_shift_scale", "3"),
        ("snr_shift_scale", 0.0),
        ("beta_start", 0.5),
    ],
)
def test_a_config_of_another_schedule_is_refused(key: str, value: object) -> None:
    config = {**NoiseSchedule().to_config(), key: value}
    with pytest.raises(ValueError, match=key):
        NoiseSchedule.from_config(config)


@pytest.mark.parametrize(
    "key",
    [
        "num_train_timesteps",
        "beta_start",
        "beta_end",
        "beta_schedule",
        "prediction_type",
        "timestep_spacing",
        "rescale_betas_zero_snr",
        "snr_shift_scale",
    ],
)
def test_a_key_that_decides_the_numbers_is_never_guessed(key: str) -> None:
    config = NoiseSchedule().to_config()
    del config[key]
    with pytest.raises(ValueError, match=f"lacks '{key}'.*expected"):
        NoiseSchedule.from_config(config)


def test_an_unknown_key_is_refused_with_the_nearest_name() -> None:
    config = {**NoiseSchedule().to_config(), "snr_shift_scal": 1.0}
    with pytest.raises(ValueError, match="did you mean 'snr_shift_scale'"):
        NoiseSchedule.from_config(config)


def test_fifty_steps_use_the_published_timesteps() -> None:
    assert NoiseSchedule().timesteps(50) == list(range(999, 0, -20))


def test_every_grid_is_complete_and_strictly_decreasing() -> None:
    schedule = NoiseSchedule()
    for steps in range(1, 1001):
        grid = schedule.timesteps(steps)
        assert len(grid) == steps
        assert grid[0] == 999
        assert grid[-1] >= 0
        assert all(a > b for a, b in pairwise(grid))


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_an_impossible_number_of_steps_is_refused(steps: int) -> None:
    with pytest.raises(ValueError, match=str(steps)):
        NoiseSchedule().timesteps(steps)


def test_both_rules_for_the_next_timestep_agree_exactly_where_steps_divide_the_table() -> None:
    schedule = NoiseSchedule()
    agreeing = [
        steps
        for steps in range(1, 101)
        if schedule.moves(steps) == schedule.moves(steps, "diffusers")
    ]
    assert agreeing == EXACT_COUNTS


@pytest.mark.parametrize("steps", [1, 6, 7, 13, 30, 50, 999, 1000])
def test_moves_form_a_chain_from_noise_to_clean(steps: int) -> None:
    moves = NoiseSchedule().moves(steps)
    assert moves[0].origin is None
    assert moves[-1].target == CLEAN
    for before, after in pairwise(moves):
        assert before.target == after.timestep
        assert after.origin == before.timestep


@pytest.mark.parametrize("steps", [6, 7, 11, 13, 15, 17, 24, 28, 35])
def test_the_public_rule_stops_short_of_clean_for_these_counts(steps: int) -> None:
    assert NoiseSchedule().moves(steps, "diffusers")[-1].target == 0


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(ValueError, match="leading"):
        NoiseSchedule().moves(10, "leading")  # type: ignore[arg-type]


def test_noise_and_velocity_are_a_rotation_of_the_clean_sample_and_the_noise() -> None:
    schedule = NoiseSchedule()
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 5, 3, 4, generator=generator, dtype=torch.float64)
    timesteps = torch.tensor([0, 19, 499, 979, 999])
    x = schedule.add_noise(clean, noise, timesteps)
    v = schedule.velocity(clean, noise, timesteps)
    # a rotation keeps lengths
    assert torch.allclose(x**2 + v**2, clean**2 + noise**2, rtol=1e-12)
    assert torch.equal(x[-1], noise[-1])
    assert torch.equal(v[-1], -clean[-1])


def test_a_batch_of_timesteps_equals_one_timestep_at_a_time() -> None:
    schedule = NoiseSchedule()
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 3, 4, generator=generator)
    timesteps = [3, 500, 999]
    batched = schedule.add_noise(clean, noise, torch.tensor(timesteps))
    for row, timestep in enumerate(timesteps):
        assert torch.equal(batched[row], schedule.add_noise(clean[row], noise[row], timestep))


def test_low_precision_samples_keep_their_dtype_and_get_one_rounding() -> None:
    schedule = NoiseSchedule()
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 3, 64, generator=generator).bfloat16()
    timesteps = torch.tensor([10, 500, 990])
    exact = schedule.add_noise(clean.double(), noise.double(), timesteps)
    assert torch.equal(schedule.add_noise(clean, noise, timesteps), exact.float().bfloat16())


def test_wrong_shapes_and_timesteps_are_refused() -> None:
    schedule = NoiseSchedule()
    x = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=r"\(3, 3\)"):
        schedule.add_noise(x, torch.zeros(3, 3), 5)
    with pytest.raises(ValueError, match=r"expected \(2,\)"):
        schedule.velocity(x, x, torch.tensor([1, 2, 3]))
    with pytest.raises(ValueError, match="1000"):
        schedule.add_noise(x, x, 1000)
    with pytest.raises(ValueError, match="-5"):
        schedule.alpha(-5)
