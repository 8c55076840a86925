"""The CogVideoX transformer, with TTT layers for videos longer than 3 s.

Shape legend: B batch, T latent frames, C channels, H W latent size, n segments of 3 s, L text
tokens of a segment, E text width, M = n*L text tokens, N video tokens, D width.

CogVideoX: https://arxiv.org/abs/2408.06072; parameter names are those of diffusers'
`CogVideoXTransformer3DModel`. TTT: https://arxiv.org/abs/2504.05298.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ttvcli.core.models.cogvideox.block import GATE_INIT, AdaptiveNorm, Block, Positions
from ttvcli.core.models.cogvideox.config import CogVideoXConfig
from ttvcli.core.models.cogvideox.embeddings import (
    PatchEmbed,
    ScalarEmbedding,
    token_grid,
    unpatchify,
)
from ttvcli.core.models.cogvideox.positions import rotary_table
from ttvcli.core.models.ttt.large_chunk import AnyTTTLayer
from ttvcli.core.models.ttt.order import Segments, last_row_source
from ttvcli.core.models.ttt.rotary import identity


class FinalNorm(nn.Module):
    """LayerNorm with shift and scale from the timestep, before the output projection."""

    def __init__(self, config: CogVideoXConfig) -> None:
        super().__init__()
        self.linear = nn.Linear(config.time_embed_dim, 2 * config.width)
        self.norm = nn.LayerNorm(
            config.width, config.norm_eps, elementwise_affine=config.norm_elementwise_affine
        )

    def forward(self, video_BND: Tensor, emb_BE: Tensor) -> Tensor:
        return self.shifted(video_BND, *self.modulation(emb_BE))

    def modulation(self, emb_BE: Tensor) -> tuple[Tensor, Tensor]:
        """Shift and scale, each `[B, 1, D]`."""
        shift, scale = self.linear(F.silu(emb_BE)).unsqueeze(1).chunk(2, dim=-1)
        return shift, scale

    def shifted(self, video_BND: Tensor, shift_B1D: Tensor, scale_B1D: Tensor) -> Tensor:
        """All tokens, or some of them, normalised, scaled and shifted."""
        return self.norm(video_BND) * (1 + scale_B1D) + shift_B1D


class CogVideoXTransformer(nn.Module):
    """Predict v from noisy latents, the text of each segment and the timestep.

    With one segment and `ssm="none"` this is CogVideoX as published (2B, 5B, 5B-I2V, 1.5 and
    1.5-I2V, by their config).
    """

    def __init__(self, config: CogVideoXConfig) -> None:
        super().__init__()
        self.config = config
        self.checkpoint_blocks = False
        self.time_embedding = ScalarEmbedding(config.width, config.time_embed_dim)
        self.ofs_embedding: ScalarEmbedding | None = None
        if config.ofs_embed_dim is not None:
            self.ofs_embedding = ScalarEmbedding(config.ofs_embed_dim, config.ofs_embed_dim)
        self.patch_embed = PatchEmbed(config)
        self.embedding_dropout = nn.Dropout(config.dropout)
        self.transformer_blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm_final = nn.LayerNorm(
            config.width, config.norm_eps, elementwise_affine=config.norm_elementwise_affine
        )
        self.norm_out = FinalNorm(config)
        patch = config.patch_size**2 * (config.patch_size_t or 1)
        self.proj_out = nn.Linear(config.width, patch * config.out_channels)

    def forward(
        self,
        latents_BTCHW: Tensor,
        text_BNLE: Tensor,
        timestep_B: Tensor,
        ofs: Tensor | None = None,
    ) -> Tensor:
        """Denoise one step.

        Args:
            latents_BTCHW: noisy latents, image latents behind them on C for image-to-video.
            text_BNLE: text embeddings of each segment, `[B, n, L, E]`; n is 1 for 3 s.
            timestep_B: 0 to 999.
            ofs: `[1]`, 2.0; for 1.5-I2V only.

        Returns:
            v, `[B, T, C, H, W]`.

        Raises:
            ValueError: shapes that do not fit the config or each other.
        """
        self.check(latents_BTCHW, text_BNLE, timestep_B, ofs)
        _, rows, columns = token_grid(self.config, latents_BTCHW)
        positions = self.positions(latents_BTCHW, text_BNLE)

        emb = self.condition(timestep_B, ofs, latents_BTCHW.dtype)
        text, video = self.patch_embed(latents_BTCHW, text_BNLE)
        text, video = self.embedding_dropout(text), self.embedding_dropout(video)

        for block in self.transformer_blocks:
            if self.checkpoint_blocks and torch.is_grad_enabled():
                text, video = checkpoint(block, text, video, emb, positions, use_reentrant=False)
            else:
                text, video = block(text, video, emb, positions)

        video = self.norm_out(self.norm_final(video), emb)
        return unpatchify(self.proj_out(video), self.config, rows, columns)

    def condition(self, timestep_B: Tensor, ofs: Tensor | None, dtype: torch.dtype) -> Tensor:
        """The vector `[B, E]` that steers every block's norms and gates."""
        emb = self.time_embedding(timestep_B, dtype)
        if self.ofs_embedding is not None and ofs is not None:
            emb = emb + self.ofs_embedding(ofs, dtype)
        return emb

    def positions(self, latents_BTCHW: Tensor, text_BNLE: Tensor) -> Positions:
        """Segments and rotary tables of one forward; all blocks share them."""
        config = self.config
        frames, rows, columns = token_grid(config, latents_BTCHW)
        segments = Segments(
            count=text_BNLE.shape[1],
            frames=frames,
            frame_tokens=rows * columns,
            text_tokens=text_BNLE.shape[2],
        )
        if not config.needs_rotary:
            return Positions(segments, None)

        device = latents_BTCHW.device
        table = rotary_table(config, frames, rows, columns, device)
        window = None
        if config.use_rotary_positional_embeddings:
            video = table[: segments.owned_tokens[0]]
            window = torch.cat([identity(segments.text_tokens, table), video])
        if config.ssm == "none":
            return Positions(segments, window)

        text = identity(segments.text_total, table)
        sequence = segments.to_time_order(text[None], table[None])[0]
        source = None
        if config.ttt_lr_mode == "last-row" and segments.count > 1:
            source = last_row_source(segments, config.ttt_mini_batch, device)
        return Positions(segments, window, sequence, source)

    def check(self, latents: Tensor, text: Tensor, timestep: Tensor, ofs: Tensor | None) -> None:
        """Raise ValueError where inputs do not fit the config or each other."""
        config = self.config
        if latents.ndim != 5 or latents.shape[2] != config.in_channels:
            raise ValueError(
                f"latents must be [B, T, {config.in_channels}, H, W], got {tuple(latents.shape)}"
            )
        if text.ndim != 4 or text.shape[-1] != config.text_embed_dim:
            raise ValueError(
                f"text must be [B, segments, tokens, {config.text_embed_dim}], "
                f"got {tuple(text.shape)}"
            )
        if not len(latents) == len(text) == len(timestep):
            raise ValueError(
                f"batch sizes differ: latents {len(latents)}, text {len(text)}, "
                f"timestep {len(timestep)}"
            )
        frames, height, width = latents.shape[1], *latents.shape[-2:]
        if frames % (config.patch_size_t or 1):
            raise ValueError(f"{frames} latent frames do not divide by {config.patch_size_t}")
        if height % config.patch_size or width % config.patch_size:
            raise ValueError(
                f"latents of {height} x {width} do not divide into patches of {config.patch_size}"
            )
        if (ofs is None) != (config.ofs_embed_dim is None):
            raise ValueError("ofs must be given exactly when the config has ofs_embed_dim")

    def set_checkpointing(self, blocks: bool = False, ttt_mini_batches: int | None = None) -> None:
        """Trade time for memory in training.

        Args:
            blocks: keep only the input of each block and compute it again in backward.
            ttt_mini_batches: keep the inner state only after so many mini-batches (or chunks).
        """
        self.checkpoint_blocks = blocks
        for module in self.modules():
            if isinstance(module, AnyTTTLayer):
                module.checkpoint_group = ttt_mini_batches

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Fill every parameter for training from scratch.

        Linear and convolution weights are Xavier-uniform with zero bias, timestep embeddings
        N(0, 0.02). The projections that make shift, scale and gate start at 0, so that every
        block starts as the identity, and so does the output projection: the first prediction is
        0 (as in DiT, https://arxiv.org/abs/2212.09748). TTT parts: see `init_weights` of the
        layers; TTT gates 0.1.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                weight = module.weight.view(len(module.weight), -1)
                nn.init.xavier_uniform_(weight, generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.LayerNorm):
                module.reset_parameters()
        for module in self.modules():
            if isinstance(module, ScalarEmbedding):
                nn.init.normal_(module.linear_1.weight, std=0.02, generator=generator)
                nn.init.normal_(module.linear_2.weight, std=0.02, generator=generator)
            elif isinstance(module, AdaptiveNorm | FinalNorm):
                nn.init.zeros_(module.linear.weight)
            elif isinstance(module, AnyTTTLayer):
                module.init_weights(generator)
            elif isinstance(module, Block) and module.ttt is not None:
                for direction in ("forward", "backward"):
                    for stream in ("video", "text"):
                        getattr(module, f"{direction}_gate_{stream}").fill_(GATE_INIT)
        nn.init.zeros_(self.proj_out.weight)
