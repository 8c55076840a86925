"""Guidance: the scale at each step and the evaluation of the two branches."""

import pytest
import torch
from torch import Tensor

from ttvcli.core.diffusion.guidance import constant, guide, legacy, ramp
from ttvcli.core.diffusion.schedules import NoiseSchedule

# The dynamic scale of the public pipelines for 50 steps and scale 6, to four digits.
LEGACY_50 = [
    2.2915, 2.5435, 6.9744, 6.4204, 2.7881, 4.2719, 1.0376, 4.1704, 1.6180, 6.9831,
    1.0048, 2.8720, 6.9768, 1.6331, 4.3297, 2.4366, 6.3773, 6.0068, 3.4479, 3.1981,
    1.6548, 6.6100, 1.1947, 4.2953, 6.9854, 1.5213, 1.7616, 1.0579, 4.1275, 1.4823,
    2.0026, 5.9477, 4.1432, 6.5305, 6.1398, 6.9999, 6.1684, 1.1199, 2.0975, 6.6850,
    6.9992, 2.3432, 6.2128, 1.2505, 6.9996, 6.8644, 1.0636, 1.0000, 1.0000, 1.1234,
]  # fmt: skip


def test_legacy_scale_has_the_published_values() -> None:
    scale = legacy(6.0)
    values = [scale(step, t, 50) for step, t in enumerate(NoiseSchedule().timesteps(50))]
    assert values == pytest.approx(LEGACY_50, abs=5e-5)


def test_ramp_rises_from_one_without_a_step_back() -> None:
    scale = ramp(6.0)
    values = [scale(step, 0, 50) for step in range(50)]
    assert values[0] == 1.0
    assert values == sorted(values)
    assert [values[30], values[40]] == pytest.approx([1.09, 2.45], abs=5e-3)
    assert 6.8 < values[-1] < 7.0


def test_constant_scale_ignores_the_step() -> None:
    scale = constant(4.5)
    assert {scale(step, 999 - step, 50) for step in range(50)} == {4.5}


class Recorder:
    """A model that is linear in the text and records the batch sizes it was called with."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, x: Tensor, timestep: int, text: Tensor) -> Tensor:
        self.batches.append(len(x))
        return x * text.mean(dim=(1, 2), keepdim=True) + timestep


X = torch.arange(6.0).reshape(2, 3, 1)
UNCOND, COND = torch.full((2, 4, 5), 0.5), torch.full((2, 4, 5), 2.0)


@pytest.mark.parametrize(("batched", "batches"), [(True, [4]), (False, [2, 2])])
def test_guidance_extrapolates_from_the_unconditional_prediction(
    batched: bool, batches: list[int]
) -> None:
    model = Recorder()
    v = guide(model, UNCOND, COND, constant(3.0), 50, batched=batched)(X, 7, 0)
    assert model.batches == batches
    assert torch.equal(v, X * (0.5 + 3.0 * 1.5) + 7)


def test_scale_one_evaluates_the_conditional_branch_only() -> None:
    model = Recorder()
    v = guide(model, None, COND, constant(1.0), 50)(X, 7, 0)
    assert model.batches == [2]
    assert torch.equal(v, X * 2.0 + 7)


def test_the_scale_is_asked_at_every_step() -> None:
    model = Recorder()
    predict = guide(model, UNCOND, COND, lambda step, timestep, steps: 1.0 + step, 50)
    predict(X, 7, 0)
    predict(X, 7, 1)
    assert model.batches == [2, 4]


def test_low_precision_predictions_are_combined_in_float32() -> None:
    def model(x: Tensor, timestep: int, text: Tensor) -> Tensor:
        return Recorder()(x, timestep, text).bfloat16()

    assert guide(model, UNCOND, COND, constant(6.0), 50)(X, 7, 0).dtype == torch.float32


def test_missing_or_unequal_unconditional_text_is_refused() -> None:
    with pytest.raises(ValueError, match="needs unconditional text"):
        guide(Recorder(), None, COND, constant(3.0), 50)(X, 7, 0)
    with pytest.raises(ValueError, match=r"\(2, 3, 5\).*\(2, 4, 5\)"):
        guide(Recorder(), UNCOND[:, :3], COND, constant(3.0), 50)
