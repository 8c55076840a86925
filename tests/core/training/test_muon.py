"""Muon: orthogonal updates, the published rule, and AdamW for the rest."""

import copy

import pytest
import torch
from torch import nn

from ttvcli.core.models.cogvideox.model import CogVideoXTransformer
from ttvcli.core.training.muon import MuonAdamW, orthogonalise
from ttvcli.core.training.optim import OptimizerConfig, build_optimizer


@pytest.mark.parametrize("shape", [(256, 64), (64, 256)])
def test_singular_values_come_near_one_and_directions_stay(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    result = orthogonalise(matrix).float()
    values = torch.linalg.svdvals(result)
    assert values.min() > 0.6
    assert values.max() < 1.25
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    inner = left.mT @ result @ right.mT
    off_diagonal = inner - torch.diag(inner.diagonal())
    assert off_diagonal.abs().max() < 0.05


def test_only_matrices_are_orthogonalised() -> None:
    with pytest.raises(ValueError, match="expected a matrix"):
        orthogonalise(torch.ones(2, 2, 2))


def test_steps_are_those_of_the_optimizer_in_torch() -> None:
    torch.manual_seed(0)
    ours = nn.Parameter(torch.randn(48, 96))
    theirs = nn.Parameter(ours.detach().clone())
    start = ours.detach().clone()
    settings = {"lr": 1e-2, "weight_decay": 0.1}
    one = MuonAdamW([{"params": [ours], "muon": True, **settings}])
    other = torch.optim.Muon([theirs], adjust_lr_fn="match_rms_adamw", **settings)
    for _ in range(4):
        gradient = torch.randn(48, 96)
        for parameter, optimizer in ((ours, one), (theirs, other)):
            parameter.grad = gradient.clone()
            optimizer.step()
    moved = (theirs - start).norm()
    # Both round to bfloat16 inside.
    assert (ours - theirs).norm() < 0.02 * moved


def test_other_parameters_are_updated_by_adamw_to_the_bit() -> None:
    torch.manual_seed(0)
    mixed, plain = nn.Linear(8, 8), nn.Linear(8, 8)
    plain.load_state_dict(mixed.state_dict())
    one = MuonAdamW(
        [{"params": [mixed.weight], "muon": True}, {"params": [mixed.bias], "muon": False}]
    )
    other = torch.optim.AdamW(plain.parameters())
    for _ in range(3):
        for parameter, twin in zip(mixed.parameters(), plain.parameters(), strict=True):
            parameter.grad = torch.randn_like(parameter)
            twin.grad = parameter.grad.clone()
        one.step()
        other.step()
    assert torch.equal(mixed.bias, plain.bias)
    assert not torch.equal(mixed.weight, plain.weight)
    assert mixed.weight.grad is not None


def test_a_restored_optimizer_goes_on_to_the_bit() -> None:
    torch.manual_seed(0)
    first, second = nn.Linear(6, 6), nn.Linear(6, 6)

    def optimizer(network: nn.Linear) -> MuonAdamW:
        return MuonAdamW(
            [{"params": [network.weight], "muon": True}, {"params": [network.bias], "muon": False}]
        )

    one = optimizer(first)
    gradients = [torch.randn(6, 6) for _ in range(4)]
    for number, gradient in enumerate(gradients):
        if number == 2:
            second.load_state_dict(first.state_dict())
            other = optimizer(second)
            other.load_state_dict(copy.deepcopy(one.state_dict()))
        for network, chosen in ((first, one), (second, other)) if number >= 2 else ((first, one),):
            network.weight.grad, network.bias.grad = gradient.clone(), gradient[0].clone()
            chosen.step()
    assert torch.equal(first.weight, second.weight)
    assert torch.equal(first.bias, second.bias)


def test_muon_takes_the_matrices_inside_blocks_but_not_those_of_ttt_layers() -> None:
    from tiny_model import transformer_config

    network = CogVideoXTransformer(transformer_config("ttt_linear"))
    optimizer = build_optimizer(network, OptimizerConfig(matrices="muon"))
    assert isinstance(optimizer, MuonAdamW)
    names = {id(p): name for name, p in network.named_parameters()}
    chosen = {names[id(p)] for g in optimizer.param_groups if g["muon"] for p in g["params"]}
    first = {n.removeprefix("transformer_blocks.0.") for n in chosen if ".0." in n[:21]}
    assert first == {
        *(f"attn1.to_{part}.weight" for part in ("q", "k", "v")),
        "attn1.to_out.0.weight",
        "ff.net.0.proj.weight",
        "ff.net.2.weight",
    }
    assert all(name.startswith("transformer_blocks.") for name in chosen)
