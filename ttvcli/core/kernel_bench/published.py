"""The sizes at which the public PyTorch operations were measured on a CPU, and the work at each.

All are of one layer of 48 heads of width 64 on a video of 3 s, in fp32, except for the operation
alone with a gradient, which at 48 heads would take the public form hours.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from ttvcli.core.kernel_bench.shapes import HEAD_WIDTH, HEADS
from ttvcli.core.kernel_bench.sides import BASE_LR, CHECKPOINT_GROUP, arguments, operation
from ttvcli.core.models.ttt.layer import State, TTTLayer
from ttvcli.core.models.ttt.rotary import table

PUBLISHED_SIDES = ("scan", "public")
TOKENS = 18_048
FEW_HEADS = 4
CPU = torch.device("cpu")
# Large enough to load all code that a pass needs, and to start what starts once.
WARM_HEADS, WARM_MINI_BATCHES = 2, 3


@dataclass(frozen=True)
class Size:
    """One measurement.

    Attributes:
        row: "ttt_linear" or "ttt_mlp" (the operation alone) or "layer" (its projections besides).
        op: "ttt_linear" or "ttt_mlp".
        training: forward with a gradient, in checkpoint groups, and backward.
    """

    row: str
    op: str
    tokens: int = TOKENS
    heads: int = HEADS
    mini_batch: int = 64
    training: bool = False

    @property
    def name(self) -> str:
        return f"{self.op} layer" if self.row == "layer" else self.op

    @property
    def purpose(self) -> str:
        """For the plan."""
        passes = "forward and backward" if self.training else "without gradient"
        sizes = f"{self.tokens} tokens, {self.heads} heads, mini-batch {self.mini_batch}"
        return f"{passes}, {sizes}"

    def small(self) -> "Size":
        """The same work with next to no tokens."""
        return replace(self, heads=WARM_HEADS, tokens=WARM_MINI_BATCHES * self.mini_batch)


def _alone(op: str, mini_batches: int) -> Size:
    return Size(op, op, tokens=64 * mini_batches, heads=FEW_HEADS, training=True)


SIZES = (
    Size("ttt_linear", "ttt_linear"),
    Size("ttt_linear", "ttt_linear", mini_batch=16),
    Size("ttt_mlp", "ttt_mlp"),
    *[_alone("ttt_linear", mini_batches) for mini_batches in (256, 512, 1024)],
    _alone("ttt_mlp", 256),
    Size("layer", "ttt_mlp"),
    Size("layer", "ttt_linear", training=True),
    Size("layer", "ttt_mlp", training=True),
)


class PublicLayer(TTTLayer):
    """Our layer with the public operation in it, which alone is computed again in backward."""

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
        """As `TTTLayer.remember`, for all heads, from the first token, L in whole mini-batches."""
        return operation(self.kind, "public")(
            *(q, k, target, eta, *self.inner_norm, *self.initial),
            mini_batch=self.mini_batch,
            checkpoint_group=CHECKPOINT_GROUP,
            eps=self.norm_eps,
        )


def layer(size: Size, side: str) -> TTTLayer:
    """The layer of a side with the weights that training starts from, the same for both."""
    kind = PublicLayer if side == "public" else TTTLayer
    width = HEAD_WIDTH * size.heads
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = kind(width, size.heads, size.op, size.mini_batch, BASE_LR[size.op])
    if side != "public" and size.training:
        made.checkpoint_group = CHECKPOINT_GROUP
    return made


def layer_inputs(size: Size) -> tuple[Tensor, Tensor]:
    """Tokens `[1, L, D]` and their positions."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, size.tokens, HEAD_WIDTH * size.heads, generator=generator)
    angles = torch.rand(size.tokens, HEAD_WIDTH // 2, generator=generator)
    return x.requires_grad_(size.training), table(angles)


def work(size: Size, side: str) -> tuple[Callable[[], Tensor], list[Tensor]]:
    """The forward pass of a side, and all that gets a gradient in the backward pass after it."""
    if size.row == "layer":
        made, (x, rotary) = layer(size, side), layer_inputs(size)
        return partial(made, x, rotary), [x, *made.parameters()]
    given = arguments(
        size.op,
        side,
        size.heads,
        size.tokens,
        mini_batch=size.mini_batch,
        dtype=torch.float32,
        device=CPU,
        grad=size.training,
    )
    group = CHECKPOINT_GROUP if size.training else None
    run = operation(size.op, side)

    def forward() -> Tensor:
        return run(*given, mini_batch=size.mini_batch, checkpoint_group=group)[0]

    return forward, given
