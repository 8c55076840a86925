"""A TTT layer of large chunks: the interface of `TTTLayer`, few and large updates.

Shape legend: B batch, L tokens in time order, D width, H heads, K head width, F inner width.

Test-Time Training Done Right, https://arxiv.org/abs/2505.23884. The inner network and its update
are in `ttv_kernels/ttt_large_chunk`; here are the projections around it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from ttv_kernels.ttt_large_chunk import ttt_large_chunk
from ttv_kernels.ttt_prepare.plain import at_least_fp32

from ttvcli.core.models.ttt.layer import (
    INNER_EXPANSION,
    POST_NORM_EPS,
    State,
    TTTLayer,
    project,
)
from ttvcli.core.models.ttt.rotary import rotate


class LargeChunkLayer(nn.Module):
    """Sequence in, sequence out; within a chunk every token sees every other.

    The output projection starts at 0: a pretrained model is unchanged until training begins.

    Args:
        width: D, of the tokens.
        heads: H; each has its own gated inner network, F = 4K.
        chunk_tokens: tokens of one update of the inner network.
        muon_steps: iterations that make the update orthogonal; 0 for none.
        base_lr: what the learned step sizes are multiplied by.

    Raises:
        ValueError: heads do not divide the width.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        chunk_tokens: int = 4096,
        muon_steps: int = 5,
        base_lr: float = 0.1,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not divisible by {heads} heads")
        self.heads = heads
        self.head_width = width // heads
        self.mini_batch = chunk_tokens
        self.muon_steps = muon_steps
        self.base_lr = base_lr
        self.checkpoint_group: int | None = None

        self.wq = nn.Linear(width, width)
        self.wk = nn.Linear(width, width)
        self.wv = nn.Linear(width, width)
        self.lr_weight = nn.Parameter(torch.empty(3, heads, width))
        self.lr_bias = nn.Parameter(torch.empty(3, heads))
        inner = self.head_width * INNER_EXPANSION
        self.W1 = nn.Parameter(torch.empty(heads, self.head_width, inner))
        self.W2 = nn.Parameter(torch.empty(heads, inner, self.head_width))
        self.W3 = nn.Parameter(torch.empty(heads, self.head_width, inner))
        self.ttt_norm_weight = nn.Parameter(torch.empty(heads, self.head_width))
        self.wo = nn.Linear(width, width)
        self.init_weights()

    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Fill every parameter: matrices N(0, 0.02), biases and `wo` 0, the norm the identity.

        The inner matrices keep the norms they start with, so they start at the size that keeps
        that of their input: N(0, 1/K) and N(0, 1/F).
        """
        for linear in (self.wq, self.wk, self.wv):
            nn.init.normal_(linear.weight, std=0.02, generator=generator)
            nn.init.zeros_(linear.bias)
        nn.init.zeros_(self.wo.weight)
        nn.init.zeros_(self.wo.bias)
        nn.init.normal_(self.lr_weight, std=0.02, generator=generator)
        nn.init.zeros_(self.lr_bias)
        for matrix in self.initial:
            nn.init.normal_(matrix, std=matrix.shape[-2] ** -0.5, generator=generator)
        nn.init.ones_(self.ttt_norm_weight)

    def forward(
        self,
        x_BLD: Tensor,
        rotary: Tensor,
        eta_source_L: Tensor | None = None,
        reverse: bool = False,
    ) -> Tensor:
        """Mix the tokens of each sequence, as `TTTLayer.forward` does."""
        eta = self.learning_rate(x_BLD)
        if eta_source_L is not None:
            eta = eta[..., eta_source_L]
        y, _ = self.mix(x_BLD, rotary, eta, reverse=reverse)
        return self.project_out(y)

    def mix(
        self,
        x_BLD: Tensor,
        rotary: Tensor,
        eta_3BHL: Tensor,
        state: State | None = None,
        heads: slice | None = None,
        reverse: bool = False,
    ) -> tuple[Tensor, State]:
        """Read tokens with the inner network of each head.

        Args:
            x_BLD, rotary, eta_3BHL: tokens in time order, their positions and learning rates.
            state: what the chunks before these left; None starts from the weights.
            heads: only these; `eta_3BHL` and `state` are then of these alone.
            reverse: read from the last token to the first.

        Returns:
            `[B, L, H*K]` in fp32, normalised, before the output projection, and the state left.
        """
        every = heads or slice(None)
        state = state or tuple(part[every] for part in self.initial)
        y, state = self.remember(x_BLD, rotary, eta_3BHL, state, heads, reverse)
        weight = at_least_fp32(self.ttt_norm_weight[every]).unsqueeze(1)
        y = F.rms_norm(y, (self.head_width,), eps=POST_NORM_EPS) * weight
        return y.transpose(1, 2).flatten(2), state

    def remember(
        self,
        x_BLD: Tensor,
        rotary: Tensor,
        eta_3BHL: Tensor,
        state: State,
        heads: slice | None,
        reverse: bool,
    ) -> tuple[Tensor, State]:
        """Run the inner networks over the chunks, in fp32 whatever the dtype around them."""
        q, k, v = (
            F.silu(self.split_heads(project(w, x_BLD, self.features(heads))))
            for w in (self.wq, self.wk, self.wv)
        )
        with torch.autocast(x_BLD.device.type, enabled=False):
            q = rotate(F.normalize(q, dim=-1), rotary)
            k = rotate(F.normalize(k, dim=-1), rotary)
            return ttt_large_chunk(
                *(q, k, v, eta_3BHL),
                *(at_least_fp32(part) for part in state),
                chunk=self.mini_batch,
                muon_steps=self.muon_steps,
                checkpoint_group=self.checkpoint_group,
                reverse=reverse,
            )

    def project_out(self, y_BLD: Tensor) -> Tensor:
        """Outputs of all heads to tokens."""
        return self.wo(y_BLD.to(self.wo.weight.dtype))

    @property
    def initial(self) -> State:
        """What the inner networks know before the first token, each part `[H, ...]`."""
        return self.W1, self.W2, self.W3

    def learning_rate(self, x_BLD: Tensor) -> Tensor:
        """Step size of each token and head for each inner matrix, `[3, B, H, L]`."""
        learned = F.linear(x_BLD, self.lr_weight.flatten(0, 1), self.lr_bias.flatten())
        rates = F.softplus(at_least_fp32(learned)) * self.base_lr
        return rates.unflatten(-1, (3, self.heads)).permute(2, 0, 3, 1)

    def features(self, heads: slice | None) -> slice | None:
        """The rows of the projections that belong to some heads."""
        if heads is None:
            return None
        return slice(heads.start * self.head_width, heads.stop * self.head_width)

    def split_heads(self, x_BLD: Tensor) -> Tensor:
        """`[B, L, D]` to fp32 `[B, H, L, K]`."""
        return at_least_fp32(x_BLD).unflatten(-1, (-1, self.head_width)).transpose(1, 2)


AnyTTTLayer = TTTLayer | LargeChunkLayer
