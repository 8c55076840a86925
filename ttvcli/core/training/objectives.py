"""Losses: the diffusion model's, the VAE's and the text encoder's.

Shape legend: B batch, T latent frames, C channels, H W height and width, S segments, L tokens,
E text width.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ttvcli.core.diffusion.schedules import NoiseSchedule


@dataclass(frozen=True)
class LatentBatch:
    """`latents` [B, T, C, H, W] (scaled) and `text` [B, S, L, E]."""

    latents: Tensor
    text: Tensor


def stratified_timesteps(batch: int, train_steps: int, generator: torch.Generator) -> Tensor:
    """One uniform timestep from each of `batch` equal parts of 0..train_steps-1; int64 [B]."""
    parts = (torch.arange(batch) + torch.rand(batch, generator=generator)) / batch
    return (parts * train_steps).long().clamp(max=train_steps - 1)


def sample_posterior(mean: Tensor, logvar: Tensor, generator: torch.Generator) -> Tensor:
    """A draw from the VAE's Gaussian posterior; shapes and dtype of `mean`."""
    noise = torch.randn(mean.shape, generator=generator, dtype=torch.float32).to(mean)
    return mean + torch.exp(0.5 * logvar.clamp(-30.0, 20.0)) * noise


def drop_captions(
    text: Tensor, null_text: Tensor, probability: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Replace the whole text of some clips by the null text, for classifier-free guidance.

    Args:
        text: [B, S, L, E].
        null_text: [L, E], the embedding used for the unconditional branch when sampling.

    Returns:
        The text, and a bool [B] that is True where it was dropped.
    """
    dropped = torch.rand(text.shape[0], generator=generator) < probability
    null = null_text.to(text)
    return torch.where(dropped.to(text.device)[:, None, None, None], null, text), dropped


class DiffusionObjective:
    """Mean squared error on the v-prediction, at stratified uniform timesteps.

    v = sqrt(abar) eps - sqrt(1 - abar) x0 (Salimans and Ho, https://arxiv.org/abs/2202.00512);
    equal to the x0 error weighted by 1 / (1 - abar), as CogVideoX is trained.
    """

    def __init__(self, schedule: NoiseSchedule, null_text: Tensor, caption_dropout: float) -> None:
        self.schedule = schedule
        self.null_text = null_text
        self.caption_dropout = caption_dropout

    def __call__(
        self, model: nn.Module, batch: LatentBatch, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        latents = batch.latents
        train_steps = self.schedule.num_train_timesteps
        timesteps = stratified_timesteps(latents.shape[0], train_steps, generator)
        timesteps = timesteps.to(latents.device)
        text, dropped = drop_captions(batch.text, self.null_text, self.caption_dropout, generator)
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        noisy = self.schedule.add_noise(latents, noise, timesteps)
        target = self.schedule.velocity(latents, noise, timesteps)
        prediction = model(noisy, text, timesteps)
        loss = F.mse_loss(prediction.float(), target.float())
        return loss, {"captions_dropped": float(dropped.float().mean())}


class VAEObjective:
    """L1 and squared error of pixels, L1 of their differences, a weak pull to the unit Gaussian.

    The squared error makes small objects count, L1 and differences make edges crisp. The batch is
    pixels [B, 3, T, H, W] in [-1, 1]; the model has the `encode` and `decode` of a CausalVAE.
    """

    def __init__(
        self, *, l1_weight: float, mse_weight: float, edge_weight: float, kl_weight: float
    ) -> None:
        self.l1_weight = l1_weight
        self.mse_weight = mse_weight
        self.edge_weight = edge_weight
        self.kl_weight = kl_weight

    def __call__(
        self, model: Any, batch: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        mean, logvar = model.encode(batch)
        mean, logvar = mean.float(), logvar.float()
        decoded = model.decode(sample_posterior(mean, logvar, generator)).float()
        error = decoded - batch
        l1, mse = error.abs().mean(), error.square().mean()
        edges = sum(error.diff(dim=dim).abs().mean() for dim in (2, 3, 4) if error.shape[dim] > 1)
        kl = 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar).mean()
        loss = self.l1_weight * l1 + self.mse_weight * mse
        loss = loss + self.edge_weight * edges + self.kl_weight * kl
        shown = float((decoded.detach().clamp(-1, 1) - batch).square().mean()) / 4
        return loss, {
            "l1": float(l1.detach()),
            "kl": float(kl.detach()),
            "psnr_db": -10 * float(torch.log10(torch.tensor(shown + 1e-12))),
        }


class CaptionLabels(nn.Module):
    """A text encoder with one classifier for each labelled attribute of a caption.

    Teaches a small T5 to tell captions of a labelled world apart; the classifiers are thrown away.
    Each classifier reads the mean over the real tokens and the state of the closing token.
    """

    def __init__(self, encoder: nn.Module, width: int, classes: dict[str, int]) -> None:
        super().__init__()
        self.encoder = encoder
        self.heads = nn.ModuleDict({k: nn.Linear(2 * width, n) for k, n in classes.items()})

    def forward(self, ids_BL: Tensor) -> dict[str, Tensor]:
        states = self.encoder(ids_BL).float()
        real = (ids_BL != 0).float().unsqueeze(-1)
        mean = (states * real).sum(1) / real.sum(1)
        last = states[torch.arange(len(ids_BL)), (ids_BL != 0).sum(1) - 1]
        pooled = torch.cat([mean, last], dim=-1)
        return {name: head(pooled) for name, head in self.heads.items()}


def caption_label_objective(
    model: nn.Module, batch: dict[str, Any], generator: torch.Generator
) -> tuple[Tensor, dict[str, float]]:
    """Cross-entropy over all attributes; batch: `ids` int64 [B, L], `labels` {name: int64 [B]}."""
    logits = model(batch["ids"])
    losses = [F.cross_entropy(logits[name], labels) for name, labels in batch["labels"].items()]
    right = [
        (logits[name].argmax(-1) == labels).float().mean()
        for name, labels in batch["labels"].items()
    ]
    return torch.stack(losses).mean(), {"accuracy": float(torch.stack(right).mean())}
