"""One transformer block: local attention, optional TTT in both directions of time, MLP.

Shape legend: B batch, M text tokens, N video tokens, L = M + N, D width, E width of the timestep
embedding.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ttvcli.core.models.cogvideox.attention import LocalAttention
from ttvcli.core.models.cogvideox.config import CogVideoXConfig
from ttvcli.core.models.ttt.large_chunk import AnyTTTLayer, LargeChunkLayer
from ttvcli.core.models.ttt.layer import TTTLayer
from ttvcli.core.models.ttt.order import Segments

GATE_INIT = 0.1


@dataclass(frozen=True)
class Positions:
    """What all blocks of one forward share: the segments and where each token stands.

    Attributes:
        segments: how frames and text are divided.
        window: rotary table of one attention window, text rows included; None without RoPE.
        sequence: rotary table of the whole video in TTT's time order; None without TTT.
        eta_source: see `order.last_row_source`; None for each token's own learning rate.
    """

    segments: Segments
    window: Tensor | None
    sequence: Tensor | None = None
    eta_source: Tensor | None = None

    @cached_property
    def from_end(self) -> tuple[Tensor | None, Tensor | None]:
        """`sequence` and `eta_source` for a sequence that TTT reads from its last token."""
        rotary = None if self.sequence is None else self.sequence.flip(0)
        source = self.eta_source
        return rotary, None if source is None else len(source) - 1 - source.flip(0)


class AdaptiveNorm(nn.Module):
    """LayerNorm of both streams, then shift and scale from the timestep; also gives the gates."""

    def __init__(self, config: CogVideoXConfig) -> None:
        super().__init__()
        self.linear = nn.Linear(config.time_embed_dim, 6 * config.width)
        self.norm = nn.LayerNorm(
            config.width, config.norm_eps, elementwise_affine=config.norm_elementwise_affine
        )

    def forward(
        self, text_BMD: Tensor, video_BND: Tensor, emb_BE: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return text, video, text gate, video gate; gates are `[B, 1, D]`."""
        shift, scale, gate, text_shift, text_scale, text_gate = self.modulation(emb_BE).unbind(1)
        text = self.shifted(text_BMD, text_shift, text_scale)
        video = self.shifted(video_BND, shift, scale)
        return text, video, text_gate, gate

    def modulation(self, emb_BE: Tensor) -> Tensor:
        """Shift, scale and gate of video, then of text: `[B, 6, 1, D]`."""
        return self.linear(F.silu(emb_BE)).unflatten(-1, (6, 1, -1))

    def shifted(self, x_BLD: Tensor, shift_B1D: Tensor, scale_B1D: Tensor) -> Tensor:
        """One stream, or some of its tokens, normalised, scaled and shifted."""
        return self.norm(x_BLD) * (1 + scale_B1D) + shift_B1D


class GeluProjection(nn.Module):
    """Linear, then the tanh form of GELU."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, inner)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.proj(x), approximate="tanh")


class FeedForward(nn.Module):
    """The MLP of a block, four times as wide inside."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.net = nn.Sequential(
            GeluProjection(width, 4 * width),
            nn.Dropout(dropout),
            nn.Linear(4 * width, width),
            nn.Dropout(dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def ttt_layer(config: CogVideoXConfig) -> AnyTTTLayer:
    """The layer that `config.ssm` names."""
    size, base_lr = (config.width, config.num_attention_heads), config.ttt_base_lr
    if config.ssm == "ttt_large_chunk":
        return LargeChunkLayer(*size, config.ttt_chunk_tokens, config.ttt_muon_steps, base_lr)
    return TTTLayer(*size, config.ssm, config.ttt_mini_batch, base_lr, config.ttt_norm_eps)


class Block(nn.Module):
    """Text and video through attention (and TTT) and MLP, each gated by the timestep."""

    def __init__(self, config: CogVideoXConfig) -> None:
        super().__init__()
        width = config.width
        self.norm1 = AdaptiveNorm(config)
        self.attn1 = LocalAttention(
            width, config.num_attention_heads, config.attention_bias, config.dropout
        )
        self.ttt: AnyTTTLayer | None = None
        if config.ssm != "none":
            self.ttt = ttt_layer(config)
            self.forward_gate_video = nn.Parameter(torch.full((width,), GATE_INIT))
            self.forward_gate_text = nn.Parameter(torch.full((width,), GATE_INIT))
            self.backward_gate_video = nn.Parameter(torch.full((width,), GATE_INIT))
            self.backward_gate_text = nn.Parameter(torch.full((width,), GATE_INIT))
        self.norm2 = AdaptiveNorm(config)
        self.ff = FeedForward(width, config.dropout)

    def forward(
        self, text_BMD: Tensor, video_BND: Tensor, emb_BE: Tensor, positions: Positions
    ) -> tuple[Tensor, Tensor]:
        text, video, text_gate, video_gate = self.norm1(text_BMD, video_BND, emb_BE)
        text, video = self.mix(text, video, positions)
        text_BMD = text_BMD + text_gate * text
        video_BND = video_BND + video_gate * video

        text, video, text_gate, video_gate = self.norm2(text_BMD, video_BND, emb_BE)
        text_BMD = text_BMD + text_gate * self.ff(text)
        video_BND = video_BND + video_gate * self.ff(video)
        return text_BMD, video_BND

    def mix(self, text: Tensor, video: Tensor, positions: Positions) -> tuple[Tensor, Tensor]:
        """Move information between tokens: near by attention, far by TTT in both directions."""
        text, video = self.attn1(text, video, positions.segments, positions.window)
        if self.ttt is None:
            return text, video

        text_new, video_new = self.read(text, video, positions)
        text = text + torch.tanh(self.forward_gate_text) * text_new
        video = video + torch.tanh(self.forward_gate_video) * video_new

        text_new, video_new = self.read(text, video, positions, from_end=True)
        text = text + torch.tanh(self.backward_gate_text) * text_new
        video = video + torch.tanh(self.backward_gate_video) * video_new
        return text, video

    def read(
        self, text: Tensor, video: Tensor, positions: Positions, from_end: bool = False
    ) -> tuple[Tensor, Tensor]:
        """One pass of TTT over the whole video in time order; the same weights either way."""
        assert self.ttt is not None
        rotary, source = positions.sequence, positions.eta_source
        if from_end:
            rotary, source = positions.from_end
        assert rotary is not None
        sequence = positions.segments.to_time_order(text, video, from_end)
        sequence = self.ttt(sequence, rotary, source, reverse=from_end)
        return positions.segments.from_time_order(sequence, from_end)
