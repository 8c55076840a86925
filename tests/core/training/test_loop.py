"""One training step: accumulation, clipping, the average of the weights, numbers gone wrong."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ttvcli.core.training.ema import EMA
from ttvcli.core.training.loop import Trainer, step_generator
from ttvcli.core.training.optim import OptimizerConfig

Numbers = dict[str, float]


def squared_error(
    model: nn.Module, batch: Tensor, generator: torch.Generator
) -> tuple[Tensor, Numbers]:
    return (model(batch) - 1).square().mean(), {"first": float(batch.flatten()[0])}


def trainer(objective: Any = squared_error, *, ema: float = 0.0, **changes: Any) -> Trainer:
    torch.manual_seed(0)
    settings = {"lr": 0.1, "ttt_lr": 0.1, "warmup_steps": 0, "schedule": "constant", **changes}
    return Trainer(
        nn.Linear(3, 2),
        objective,
        OptimizerConfig(**settings),
        total_steps=10,
        ema_decay=ema,
        precision="fp32",
        device=torch.device("cpu"),
        seed=1,
    )


def weights(made: Trainer) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in made.model.parameters()]


BATCH = torch.arange(12.0).reshape(4, 3) / 6


def test_micro_batches_give_the_gradient_of_the_whole_batch() -> None:
    whole, parts = trainer(clip_norm=0.0), trainer(clip_norm=0.0)
    a = whole.train_step(0, [BATCH])
    b = parts.train_step(0, [BATCH[:2], BATCH[2:]])
    assert a["loss"] == pytest.approx(b["loss"])
    assert a["grad_norm"] == pytest.approx(b["grad_norm"])
    assert b["first"] == pytest.approx(float(BATCH[0, 0] + BATCH[2, 0]) / 2)
    for one, other in zip(weights(whole), weights(parts), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_gradients_are_clipped_to_the_norm_and_the_true_norm_is_told() -> None:
    free, clipped = trainer(clip_norm=0.0), trainer(clip_norm=1e-3)
    norm = free.train_step(0, [BATCH])["grad_norm"]
    assert clipped.train_step(0, [BATCH])["grad_norm"] == norm > 0.1

    def left(made: Trainer) -> float:
        grads = [p.grad.flatten() for p in made.model.parameters() if p.grad is not None]
        return float(torch.cat(grads).norm())

    assert left(free) == pytest.approx(norm)
    assert left(clipped) == pytest.approx(1e-3, rel=1e-3)


def test_every_micro_batch_has_random_numbers_of_its_own() -> None:
    drawn: list[float] = []

    def objective(model: nn.Module, batch: Tensor, gen: torch.Generator) -> tuple[Tensor, Numbers]:
        drawn.append(float(torch.rand(1, generator=gen)))
        return squared_error(model, batch, gen)

    made = trainer(objective)
    for step in range(3):
        made.train_step(step, [BATCH[:2], BATCH[2:]])
    assert len(set(drawn)) == 6
    again = trainer(objective)
    again.train_step(2, [BATCH[:2], BATCH[2:]])
    assert drawn[6:] == drawn[4:6]  # of the step alone, not of the steps before it


def test_generators_of_neighbours_differ() -> None:
    first = {
        float(torch.rand(1, generator=step_generator(seed, step)))
        for seed in range(4)
        for step in range(25)
    }
    assert len(first) == 100


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_loss_that_is_not_finite_changes_nothing(bad: float) -> None:
    made = trainer(ema=0.9)
    made.train_step(0, [BATCH])
    before = [*weights(made), *(v.clone() for v in made.ema.state_dict().values())]  # type: ignore
    moments = [v["exp_avg"].clone() for v in made.optimizer.state.values()]
    broken = BATCH.clone()
    broken[0, 0] = bad
    with pytest.raises(FloatingPointError, match="at step 1"):
        made.train_step(1, [broken])
    after = [*weights(made), *made.ema.state_dict().values()]  # type: ignore[union-attr]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    kept = [v["exp_avg"] for v in made.optimizer.state.values()]
    assert all(torch.equal(a, b) for a, b in zip(moments, kept, strict=True))


def test_a_fixed_batch_is_learned_by_heart() -> None:
    made = trainer()
    losses = [made.train_step(step, [BATCH])["loss"] for step in range(60)]
    assert losses[-1] < losses[0] / 100


def test_the_average_follows_its_formula() -> None:
    model = nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(1.0)
    ema = EMA(model, 0.5)
    expected = 1.0
    for step in range(12):
        model.weight.data.fill_(float(step))
        ema.update(model, step)
        decay = min(0.5, (1 + step) / (10 + step))  # 0.1 at first, 0.5 from step 8 on
        expected = decay * expected + (1 - decay) * step
        assert float(ema.state_dict()["weight"]) == pytest.approx(expected, rel=1e-6)


def test_the_average_is_float32_of_trainable_weights_only() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).bfloat16()
    model[1].requires_grad_(False)
    ema = EMA(model, 0.9)
    assert set(ema.state_dict()) == {"0.weight", "0.bias"}
    assert {v.dtype for v in ema.state_dict().values()} == {torch.float32}
    merged = ema.merged_state_dict(model)
    assert set(merged) == set(model.state_dict())  # buffers and frozen weights included
    assert merged["0.weight"].dtype == torch.bfloat16
    merged["0.weight"].zero_()
    assert ema.state_dict()["0.weight"].any()  # a copy


def test_a_state_of_another_model_is_refused() -> None:
    ema = EMA(nn.Linear(2, 2), 0.9)
    with pytest.raises(ValueError, match="bias"):
        ema.load_state_dict({"weight": torch.zeros(2, 2)})
    with pytest.raises(ValueError, match=r"got 1\.0"):
        EMA(nn.Linear(2, 2), 1.0)


def test_bf16_is_used_inside_the_forward_pass_only() -> None:
    seen = []

    def objective(model: nn.Module, batch: Tensor, gen: torch.Generator) -> tuple[Tensor, Numbers]:
        out = model(batch)
        seen.append(out.dtype)
        return out.float().square().mean(), {}

    made = trainer(objective)
    made.precision = "bf16"
    made.train_step(0, [BATCH])
    assert seen == [torch.bfloat16]
    assert {p.dtype for p in made.model.parameters()} == {torch.float32}
