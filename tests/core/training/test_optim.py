"""Which parameter gets which learning rate and decay, and the rate over the steps."""

import itertools
import math

import pytest
import torch
from tiny_model import transformer_config
from torch import nn

from ttvcli.core.models.cogvideox.model import CogVideoXTransformer
from ttvcli.core.training.optim import (
    OptimizerConfig,
    build_optimizer,
    learning_rate,
    set_learning_rate,
)


@pytest.fixture(scope="module")
def network() -> CogVideoXTransformer:
    return CogVideoXTransformer(transformer_config("ttt_mlp"))


def test_ttt_layers_and_their_gates_have_a_rate_of_their_own(network: CogVideoXTransformer) -> None:
    optimizer = build_optimizer(network, OptimizerConfig(lr=1e-3, ttt_lr=5e-4))
    rates = {id(p): group["peak_lr"] for group in optimizer.param_groups for p in group["params"]}
    names = dict(network.named_parameters())
    assert len(rates) == len(names)  # each parameter once
    own = {name for name, parameter in names.items() if rates[id(parameter)] == 5e-4}
    assert own == {name for name in names if ".ttt." in name or "_gate_" in name}
    assert len([name for name in own if "_gate_" in name]) == 2 * 4
    assert "transformer_blocks.0.ttt.W1" in own


def test_matrices_decay_and_vectors_do_not(network: CogVideoXTransformer) -> None:
    optimizer = build_optimizer(network, OptimizerConfig(weight_decay=0.1))
    decays = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    for name, parameter in network.named_parameters():
        if parameter.ndim < 2 or name.endswith((".bias", ".b1", ".b2")):
            assert decays[id(parameter)] == 0.0, name
    for name in ("proj_out.weight", "transformer_blocks.0.ttt.W1", "patch_embed.proj.weight"):
        assert decays[id(network.get_parameter(name))] == 0.1


def test_frozen_parameters_are_left_out() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    network[0].requires_grad_(False)
    groups = build_optimizer(network, OptimizerConfig()).param_groups
    assert sum(len(group["params"]) for group in groups) == 2


def test_warm_up_is_linear_and_cosine_ends_at_lr_end() -> None:
    config = OptimizerConfig(lr=1.0, lr_end=0.1, warmup_steps=10)
    rates = [learning_rate(1.0, step, 101, config) for step in range(101)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[10] == 1.0
    for step in (10, 33, 55, 100):
        progress = (step - 10) / 90
        expected = 0.1 + 0.9 * (1 + math.cos(math.pi * progress)) / 2
        assert rates[step] == pytest.approx(expected)
    assert rates[100] == pytest.approx(0.1)
    assert all(a > b for a, b in itertools.pairwise(rates[10:]))


def test_other_schedules() -> None:
    constant = OptimizerConfig(schedule="constant", warmup_steps=2)
    assert [learning_rate(0.4, step, 9, constant) for step in (0, 1, 2, 8)] == [0.2, 0.4, 0.4, 0.4]
    linear = OptimizerConfig(schedule="linear", warmup_steps=0, lr_end=0.0)
    assert [learning_rate(1.0, step, 5, linear) for step in range(5)] == [1, 0.75, 0.5, 0.25, 0]


def test_the_rate_never_ends_above_its_peak() -> None:
    config = OptimizerConfig(lr_end=1e-2, warmup_steps=0)
    assert learning_rate(1e-4, 50, 100, config) == pytest.approx(1e-4)


def test_every_group_is_scaled_from_its_own_peak() -> None:
    network = nn.Module()
    network.a = nn.Linear(2, 2)
    network.x_gate_y = nn.Parameter(torch.ones(2))
    config = OptimizerConfig(lr=1.0, ttt_lr=0.5, lr_end=0.0, warmup_steps=4)
    optimizer = build_optimizer(network, config)
    assert set_learning_rate(optimizer, 0, 10, config) == 0.25
    assert sorted(group["lr"] for group in optimizer.param_groups) == [0.125, 0.25, 0.25]
    set_learning_rate(optimizer, 9, 10, config)
    assert {group["lr"] for group in optimizer.param_groups} == {0.0}


@pytest.mark.parametrize("changes", [{"lr": 0.0}, {"ttt_lr": -1.0}, {"warmup_steps": -1}])
def test_rates_that_cannot_work_are_refused(changes: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="got"):
        OptimizerConfig(**changes)  # type: ignore[arg-type]
