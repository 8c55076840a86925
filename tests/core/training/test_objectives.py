"""What the losses feed to the networks: timesteps, noise, dropped captions, posterior draws."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ttvcli.core.diffusion.schedules import NoiseSchedule
from ttvcli.core.training.objectives import (
    CaptionLabels,
    DiffusionObjective,
    LatentBatch,
    VAEObjective,
    caption_label_objective,
    drop_captions,
    sample_posterior,
    stratified_timesteps,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_each_clip_of_a_batch_gets_a_part_of_the_timesteps() -> None:
    for seed in range(50):
        times = stratified_timesteps(8, 1000, generator(seed))
        assert times.dtype == torch.int64
        assert (times // 125).tolist() == list(range(8))


def test_timesteps_cover_the_whole_range_evenly() -> None:
    times = torch.cat([stratified_timesteps(4, 100, generator(seed)) for seed in range(2500)])
    counts = torch.bincount(times, minlength=100)
    assert len(counts) == 100  # 0 and 99 included, nothing beyond
    assert int(counts.min()) > 60
    assert int(counts.max()) < 140


def test_posterior_draws_have_its_mean_and_deviation() -> None:
    mean = torch.tensor([-2.0, 3.0])[:, None].expand(2, 20_000)
    logvar = torch.tensor([math.log(4.0), -200.0])[:, None].expand(2, 20_000)
    drawn = sample_posterior(mean, logvar, generator())
    assert float(drawn[0].mean()) == pytest.approx(-2.0, abs=0.05)
    assert float(drawn[0].std()) == pytest.approx(2.0, abs=0.05)
    assert torch.allclose(drawn[1], mean[1], atol=1e-5)  # the log-variance is clamped
    assert not torch.equal(drawn, sample_posterior(mean, logvar, generator(1)))


@pytest.mark.parametrize(("probability", "low", "high"), [(0.0, 0, 0), (0.1, 160, 240)])
def test_captions_are_dropped_at_their_rate(probability: float, low: int, high: int) -> None:
    text, null = torch.ones(2000, 3, 2, 4), torch.zeros(2, 4)
    kept, dropped = drop_captions(text, null, probability, generator())
    assert low <= int(dropped.sum()) <= high
    # The whole clip loses its text, all segments of it, and no other does.
    assert torch.equal(kept == 0, dropped[:, None, None, None].expand_as(text))


class Seen(nn.Module):
    """A network that records its inputs and answers zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs: list[tuple[Tensor, Tensor, Tensor]] = []

    def forward(self, x: Tensor, text: Tensor, timesteps: Tensor) -> Tensor:
        self.inputs.append((x, text, timesteps))
        return torch.zeros_like(x)


def batch(count: int = 16) -> LatentBatch:
    latents = torch.randn(count, 3, 4, 2, 2, generator=generator(5))
    return LatentBatch(latents, torch.ones(count, 2, 5, 8))


@pytest.mark.parametrize(("dropout", "low", "high"), [(0.0, 0, 0), (0.3, 60, 132)])
def test_the_network_sees_the_null_text_for_dropped_captions(
    dropout: float, low: int, high: int
) -> None:
    null = torch.full((5, 8), 7.0)
    objective = DiffusionObjective(NoiseSchedule(), null, dropout)
    network, told = Seen(), 0.0
    for seed in range(20):
        _, numbers = objective(network, batch(), generator(seed))
        told += numbers["captions_dropped"] * 16
    texts = torch.cat([text for _, text, _ in network.inputs])
    is_null = (texts == null).flatten(1).all(dim=1)
    assert torch.equal(is_null, (texts != 1).flatten(1).all(dim=1))
    assert low <= int(is_null.sum()) <= high
    assert told == pytest.approx(int(is_null.sum()))


def test_the_loss_is_that_of_v_on_the_noisy_input() -> None:
    schedule = NoiseSchedule()
    objective, network, clips = (
        DiffusionObjective(schedule, torch.zeros(5, 8), 0.0),
        Seen(),
        batch(),
    )
    loss, _ = objective(network, clips, generator(3))
    noisy, _, timesteps = network.inputs[0]
    alpha = schedule.alphas_cumprod[timesteps].float()[:, None, None, None, None]
    noise = (noisy - alpha.sqrt() * clips.latents) / (1 - alpha).sqrt()
    assert float(noise.std()) == pytest.approx(1.0, abs=0.1)
    v = alpha.sqrt() * noise - (1 - alpha).sqrt() * clips.latents
    assert float(loss) == pytest.approx(float(v.square().mean()), rel=1e-4)


def test_the_same_generator_gives_the_same_loss() -> None:
    objective = DiffusionObjective(NoiseSchedule(), torch.zeros(5, 8), 0.5)
    losses = [float(objective(Seen(), batch(), generator(seed))[0]) for seed in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]


class FakeVAE(nn.Module):
    """Mean is the pixels, log-variance a constant; decodes to the latents plus an offset."""

    def __init__(self, offset: float, logvar: float = -30.0) -> None:
        super().__init__()
        self.offset, self.logvar = offset, logvar

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        return pixels, torch.full_like(pixels, self.logvar)

    def decode(self, latents: Tensor) -> Tensor:
        return latents + self.offset


WEIGHTS: dict[str, Any] = dict.fromkeys(
    ("l1_weight", "mse_weight", "edge_weight", "kl_weight"), 0.0
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("l1_weight", 0.5),
        ("mse_weight", 0.25),
        ("edge_weight", 0.0),  # an offset leaves the differences between neighbours alone
        ("kl_weight", 0.5 * (0.04 + math.exp(-1) - 1 + 1)),
    ],
)
def test_each_term_of_the_vae_loss_has_its_weight(name: str, expected: float) -> None:
    pixels = torch.full((1, 3, 9, 8, 8), 0.2)
    objective = VAEObjective(**{**WEIGHTS, name: 2.0})
    model = FakeVAE(0.5, -1.0 if name == "kl_weight" else -30.0)
    loss, numbers = objective(model, pixels, generator())
    assert float(loss) == pytest.approx(2 * expected, abs=1e-5)
    if name != "kl_weight":
        assert numbers["l1"] == pytest.approx(0.5, abs=1e-5)
        assert numbers["psnr_db"] == pytest.approx(-10 * math.log10(0.25 / 4), abs=1e-3)


def test_edges_that_move_cost_more_than_a_shade(monkeypatch: pytest.MonkeyPatch) -> None:
    objective = VAEObjective(**{**WEIGHTS, "edge_weight": 1.0})
    pixels = torch.rand(1, 3, 1, 8, 8, generator=generator())  # one frame: no time differences
    model = FakeVAE(0.0)
    monkeypatch.setattr(model, "decode", lambda latents: latents.flip(-1))
    assert float(objective(model, pixels, generator())[0]) > 0.3


def test_caption_labels_are_learned_from_real_tokens_only() -> None:
    torch.manual_seed(0)
    embed = nn.Embedding(20, 6)
    model = CaptionLabels(embed, 6, {"colour": 3, "shape": 2})
    ids = torch.tensor([[5, 6, 1, 0, 0], [7, 8, 9, 1, 0]])
    before = model(ids)
    assert {name: tuple(logits.shape) for name, logits in before.items()} == {
        "colour": (2, 3),
        "shape": (2, 2),
    }
    with torch.no_grad():
        embed.weight[0] += 100.0  # the padding
    assert torch.equal(model(ids)["colour"], before["colour"])
    labels = {"colour": torch.tensor([0, 2]), "shape": torch.tensor([1, 0])}
    optimizer = torch.optim.Adam(model.parameters(), 0.1)
    for _ in range(30):
        loss, numbers = caption_label_objective(model, {"ids": ids, "labels": labels}, generator())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert numbers["accuracy"] == 1.0
    assert float(loss.detach()) < 0.05
