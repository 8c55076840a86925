"""What turns latents, text and timestep into tokens, and tokens back into latents.

Shape legend: B batch, T latent frames, C channels, H W latent size, n segments, L text tokens of a
segment, E text width, D token width, p and pt patch size in space and time.
"""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ttvcli.core.models.cogvideox.config import CogVideoXConfig
from ttvcli.core.models.cogvideox.positions import sine_table

MAX_PERIOD = 10000.0


def sinusoid(value_B: Tensor, width: int) -> Tensor:
    """Fourier features of a scalar, fp32 `[B, width]`: cosines, then sines."""
    half = width // 2
    exponent = -math.log(MAX_PERIOD) * torch.arange(half, device=value_B.device) / half
    angle = value_B[:, None].float() * exponent.exp()
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


class ScalarEmbedding(nn.Module):
    """A scalar (timestep, or the `ofs` of 1.5-I2V) as a vector, before any activation."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.features = features
        self.linear_1 = nn.Linear(features, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, value_B: Tensor, dtype: torch.dtype) -> Tensor:
        features = sinusoid(value_B, self.features).to(dtype)
        return self.linear_2(F.silu(self.linear_1(features)))


class PatchEmbed(nn.Module):
    """Latents and text embeddings to tokens, with additive positions where the model has them."""

    pos_embedding: Tensor

    def __init__(self, config: CogVideoXConfig) -> None:
        super().__init__()
        self.config = config
        p, pt = config.patch_size, config.patch_size_t
        self.proj: nn.Conv2d | nn.Linear
        if pt is None:
            self.proj = nn.Conv2d(config.in_channels, config.width, p, p, bias=config.patch_bias)
        else:
            self.proj = nn.Linear(config.in_channels * p * p * pt, config.width)
        self.text_proj = nn.Linear(config.text_embed_dim, config.width)
        if config.use_learned_positional_embeddings:
            tokens = config.sample_latent_frames
            tokens *= (config.sample_height // p) * (config.sample_width // p)
            table = torch.zeros(1, config.max_text_seq_length + tokens, config.width)
            self.register_buffer("pos_embedding", table)

    def forward(self, latents_BTCHW: Tensor, text_BNLE: Tensor) -> tuple[Tensor, Tensor]:
        """Return text tokens `[B, n*L, D]` and video tokens `[B, N, D]`."""
        text = self.text_proj(text_BNLE).flatten(1, 2)
        video = self.project(latents_BTCHW)
        if self.config.use_learned_positional_embeddings:
            return self.add_learned(text, video, latents_BTCHW)
        if not self.config.use_rotary_positional_embeddings:
            frames, rows, columns = token_grid(self.config, latents_BTCHW)
            table = sine_table(self.config, frames, rows, columns, video.device)
            video = video + table.to(video.dtype)
        return text, video

    def project(self, latents_BTCHW: Tensor) -> Tensor:
        p, pt = self.config.patch_size, self.config.patch_size_t
        if pt is None:
            patches = self.proj(latents_BTCHW.flatten(0, 1))
            return rearrange(patches, "(b t) d h w -> b (t h w) d", b=len(latents_BTCHW))
        patches = rearrange(
            latents_BTCHW,
            "b (t pt) c (h p) (w q) -> b (t h w) (c pt p q)",
            pt=pt,
            p=p,
            q=p,
        )
        return self.proj(patches)

    def add_learned(self, text: Tensor, video: Tensor, latents: Tensor) -> tuple[Tensor, Tensor]:
        # Such a table has no value for another size or length; diffusers swaps in the sine table
        # for another length, which the weights have never seen.
        config = self.config
        trained = (config.sample_latent_frames, config.sample_height, config.sample_width)
        given = (latents.shape[1], *latents.shape[-2:])
        if given != trained or text.shape[1] != config.max_text_seq_length:
            raise ValueError(
                f"the learned position table is for latents (T, H, W) {trained} with "
                f"{config.max_text_seq_length} text tokens, got {given} with {text.shape[1]}"
            )
        table = self.pos_embedding.to(video.dtype)
        return text + table[:, : text.shape[1]], video + table[:, text.shape[1] :]


def token_grid(config: CogVideoXConfig, latents_BTCHW: Tensor) -> tuple[int, int, int]:
    """Frames, rows and columns of tokens that latents of this shape become."""
    frames, _, height, width = latents_BTCHW.shape[1:]
    return (
        frames // (config.patch_size_t or 1),
        height // config.patch_size,
        width // config.patch_size,
    )


def unpatchify(tokens_BND: Tensor, config: CogVideoXConfig, rows: int, columns: int) -> Tensor:
    """Undo the patches: `[B, N, C*pt*p*p]` to `[B, T, C, H, W]`; a patch is ordered C, pt, p, p."""
    return rearrange(
        tokens_BND,
        "b (t h w) (c pt p q) -> b (t pt) c (h p) (w q)",
        h=rows,
        w=columns,
        pt=config.patch_size_t or 1,
        p=config.patch_size,
        q=config.patch_size,
    )
