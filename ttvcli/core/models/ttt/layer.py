"""A TTT layer: attention's interface, with a small network per head as its memory.

Shape legend: B batch, L tokens in time order, D width, H heads, K head width, F inner width.

Learning to (Learn at Test Time), https://arxiv.org/abs/2407.04620, as used for video in One-Minute
Video Generation with Test-Time Training, https://arxiv.org/abs/2504.05298. The inner network and
its update are in `ttv_kernels`; here are the projections around it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from ttv_kernels.dispatch import choose
from ttv_kernels.inner_step import TTT_NORM_EPS, Recomputed, piece_sizes
from ttv_kernels.ttt_linear import ttt_linear
from ttv_kernels.ttt_mlp import ttt_mlp
from ttv_kernels.ttt_prepare import ttt_prepare
from ttv_kernels.ttt_prepare.plain import at_least_fp32

KINDS = ("ttt_linear", "ttt_mlp")
INNER_EXPANSION = 4
POST_NORM_EPS = 1e-6

State = tuple[Tensor, ...]


class TTTLayer(nn.Module):
    """Sequence in, sequence out; cost linear in length, memory of fixed size.

    Args:
        width: D, of the tokens.
        heads: H; each has its own inner network.
        kind: "ttt_linear" (one matrix) or "ttt_mlp" (two layers, F = 4K).
        mini_batch: tokens of one update of the inner network.
        base_lr: upper end of the learned step size (0.1 for the MLP, 1.0 for the matrix).
        norm_eps: of the inner LayerNorm; the public GPU kernels have 1e-6.

    Raises:
        ValueError: unknown kind, or heads do not divide the width.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        kind: str,
        mini_batch: int = 64,
        base_lr: float = 0.1,
        norm_eps: float = TTT_NORM_EPS,
    ) -> None:
        super().__init__()
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {KINDS}, got {kind!r}")
        if width % heads:
            raise ValueError(f"width {width} is not divisible by {heads} heads")
        self.heads = heads
        self.head_width = width // heads
        self.mini_batch = mini_batch
        self.base_lr = base_lr
        self.norm_eps = norm_eps
        self.checkpoint_group: int | None = None

        self.wq = nn.Linear(width, width)
        self.wk = nn.Linear(width, width)
        self.wv = nn.Linear(width, width)
        self.ttt_norm_weight = nn.Parameter(torch.empty(heads, self.head_width))
        self.ttt_norm_bias = nn.Parameter(torch.empty(heads, self.head_width))
        self.lr_weight = nn.Parameter(torch.empty(heads, width))
        self.lr_bias = nn.Parameter(torch.empty(heads))
        inner = self.head_width * (INNER_EXPANSION if kind == "ttt_mlp" else 1)
        self.W1 = nn.Parameter(torch.empty(heads, self.head_width, inner))
        self.b1 = nn.Parameter(torch.empty(heads, 1, inner))
        if kind == "ttt_mlp":
            self.W2 = nn.Parameter(torch.empty(heads, inner, self.head_width))
            self.b2 = nn.Parameter(torch.empty(heads, 1, self.head_width))
        self.kind = kind
        self.post_norm = nn.LayerNorm(width, eps=POST_NORM_EPS)
        self.wo = nn.Linear(width, width)
        self.init_weights()

    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Fill every parameter: matrices N(0, 0.02), biases 0, norms the identity.

        The published layer draws the same way but leaves the biases of wq, wk, wv and wo to
        chance; here they start at 0.
        """
        for linear in (self.wq, self.wk, self.wv, self.wo):
            nn.init.normal_(linear.weight, std=0.02, generator=generator)
            nn.init.zeros_(linear.bias)
        nn.init.normal_(self.lr_weight, std=0.02, generator=generator)
        nn.init.zeros_(self.lr_bias)
        nn.init.ones_(self.ttt_norm_weight)
        nn.init.zeros_(self.ttt_norm_bias)
        self.post_norm.reset_parameters()
        for name, parameter in self.named_parameters(recurse=False):
            if name in ("W1", "W2"):
                nn.init.normal_(parameter, std=0.02, generator=generator)
            elif name in ("b1", "b2"):
                nn.init.zeros_(parameter)

    def forward(
        self,
        x_BLD: Tensor,
        rotary: Tensor,
        eta_source_L: Tensor | None = None,
        reverse: bool = False,
    ) -> Tensor:
        """Mix the tokens of each sequence in their order.

        Args:
            x_BLD: tokens in time order, text of a segment before its frames.
            rotary: position of each of the L tokens (identity for text).
            eta_source_L: for each position, the position whose learning rate it gets (see
                `order.last_row_source`); None for its own.
            reverse: read from the last token to the first.

        Returns:
            `[B, L, D]` in the same order; no residual of x is in it.
        """
        eta = self.learning_rate(x_BLD)
        if eta_source_L is not None:
            eta = eta[..., eta_source_L]
        if self.checkpoint_group is not None and torch.is_grad_enabled():
            y = self.mix_in_groups(x_BLD, rotary, eta, self.checkpoint_group, reverse)
        else:
            y, _ = self.mix(x_BLD, rotary, eta, reverse=reverse)
        return self.project_out(y)

    def mix_in_groups(
        self, x_BLD: Tensor, rotary: Tensor, eta_BHL: Tensor, group: int, reverse: bool
    ) -> Tensor:
        """`mix`, keeping of every `group` mini-batches nothing but the state before them.

        Backward computes a group again, its projections included: they take more room than the
        inner network does.
        """
        names, weights = zip(*self.named_parameters(prefix="layer"), strict=True)
        reader = _Reader(self, reverse)

        def run(x: Tensor, rotary: Tensor, eta: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
            given = dict(zip(names, rest, strict=False))
            return functional_call(reader, given, (x, rotary, eta, *rest[len(names) :]))

        sizes = piece_sizes(x_BLD.shape[1], group * self.mini_batch, reverse)
        parts = zip(
            x_BLD.split(sizes, 1), rotary.split(sizes), eta_BHL.split(sizes, 2), strict=True
        )
        outputs: list[Tensor] = []
        state: State = ()
        for part in reversed(list(parts)) if reverse else parts:
            y, *state = Recomputed.apply(run, *part, *weights, *state)
            outputs.append(y)
        return torch.cat(outputs[::-1] if reverse else outputs, dim=1)

    def mix(
        self,
        x_BLD: Tensor,
        rotary: Tensor,
        eta_BHL: Tensor,
        state: State | None = None,
        heads: slice | None = None,
        reverse: bool = False,
    ) -> tuple[Tensor, State]:
        """Read tokens with the inner network of each head.

        Args:
            x_BLD, rotary, eta_BHL: tokens in time order, their positions and learning rates.
            state: what an earlier part of the sequence left; None starts from the weights.
            heads: only these; `eta_BHL` and `state` are then of these alone.
            reverse: read from the last token to the first.

        Returns:
            `[B, L, H*K]` before the output projection, and the state left. In fp32, but from Triton
            kernels, which compute in fp32 and multiply in the dtype of the projections, in that.
        """
        q, k, v = (
            self.split_heads(project(w, x_BLD, self.features(heads)))
            for w in (self.wq, self.wk, self.wv)
        )
        norm = tuple(part[heads or slice(None)] for part in self.inner_norm)
        with torch.autocast(x_BLD.device.type, enabled=False):
            backend = choose("auto", q, self.mini_batch, self.initial[0].shape[-1])
            tokens = ttt_prepare(q, k, v, rotary, *norm, backend=backend)
            y, state = self.remember(*tokens, eta_BHL, state, heads, reverse)
        return self.join_heads(y), state

    def project_out(self, y_BLD: Tensor) -> Tensor:
        """Outputs of all heads to tokens."""
        return self.wo(self.post_norm(y_BLD.to(self.post_norm.weight.dtype)))

    def features(self, heads: slice | None) -> slice | None:
        """The rows of the projections that belong to some heads."""
        if heads is None:
            return None
        return slice(heads.start * self.head_width, heads.stop * self.head_width)

    @property
    def inner_norm(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of each head's LayerNorm, `[H, K]`."""
        return self.ttt_norm_weight, self.ttt_norm_bias

    @property
    def initial(self) -> State:
        """What the inner networks know before the first token, each part `[H, ...]`."""
        if self.kind == "ttt_linear":
            return self.W1, self.b1
        return self.W1, self.b1, self.W2, self.b2

    def learning_rate(self, x_BLD: Tensor) -> Tensor:
        """Step size of each token and head, `[B, H, L]`: sigmoid gate times base rate."""
        gate = torch.sigmoid(at_least_fp32(F.linear(x_BLD, self.lr_weight, self.lr_bias)))
        return gate.mT * (self.base_lr / (self.head_width * self.mini_batch))

    def remember(
        self,
        q: Tensor,
        k: Tensor,
        target: Tensor,
        eta: Tensor,
        state: State | None = None,
        heads: slice | None = None,
        reverse: bool = False,
    ) -> tuple[Tensor, State]:
        """Run the inner network over the sequence; its weights are fp32 whatever is around it."""
        op = ttt_linear if self.kind == "ttt_linear" else ttt_mlp
        every = heads or slice(None)
        state = state or tuple(part[every] for part in self.initial)
        fixed = (*(part[every] for part in self.inner_norm), *state)
        return op(
            *(q, k, target, eta),
            *(at_least_fp32(parameter) for parameter in fixed),
            mini_batch=self.mini_batch,
            eps=self.norm_eps,
            reverse=reverse,
        )

    def split_heads(self, x_BLD: Tensor) -> Tensor:
        """`[B, L, D]` to `[B, H, L, K]`."""
        return x_BLD.unflatten(-1, (-1, self.head_width)).transpose(1, 2)

    def join_heads(self, x_BHLK: Tensor) -> Tensor:
        return x_BHLK.transpose(1, 2).flatten(2)


class _Reader(nn.Module):
    """`TTTLayer.mix` as a module, so that it can be called with weights of another graph."""

    def __init__(self, layer: TTTLayer, reverse: bool) -> None:
        super().__init__()
        self.layer = layer
        self.reverse = reverse

    def forward(self, x: Tensor, rotary: Tensor, eta: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        y, left = self.layer.mix(x, rotary, eta, state, reverse=self.reverse)
        return y, *left


def project(linear: nn.Linear, x: Tensor, features: slice | None) -> Tensor:
    """A linear layer, or only some of its output features."""
    if features is None:
        return linear(x)
    bias = None if linear.bias is None else linear.bias[features]
    return F.linear(x, linear.weight[features], bias)
