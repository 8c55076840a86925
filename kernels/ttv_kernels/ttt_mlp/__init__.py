"""TTT-MLP: a two-layer network per head that learns the sequence while reading it (README.md)."""

from torch import Tensor

from ttv_kernels.inner_step import TTT_NORM_EPS, check_shapes
from ttv_kernels.ttt_mlp.scan import scan_mlp


def ttt_mlp(
    q: Tensor,
    k: Tensor,
    target: Tensor,
    eta: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    W1: Tensor,
    b1: Tensor,
    W2: Tensor,
    b2: Tensor,
    *,
    mini_batch: int,
    checkpoint_group: int | None = None,
    eps: float = TTT_NORM_EPS,
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Update the inner MLP mini-batch by mini-batch and answer the queries with it.

    Args:
        q, k: queries and keys `[B, H, L, K]`.
        target: what the LayerNorm of the inner network should give for k (V - K), `[B, H, L, K]`.
        eta: step size of each token, `[B, H, L]`, with 1/K and 1/mini_batch already in it.
        norm_weight, norm_bias: the inner LayerNorm of each head, `[H, K]`.
        W1, b1, W2, b2: initial state `[H, K, F]`, `[H, 1, F]`, `[H, F, K]`, `[H, 1, K]`; with a
            batch axis in front to carry the state of an earlier call on.
        mini_batch: tokens of one update; a last one may be shorter.
        checkpoint_group: mini-batches between the states kept for the backward pass; None keeps
            everything.
        eps: of the inner LayerNorm.

    Returns:
        The output `[B, H, L, K]`, which contains the query as residual, and the final state with
        its batch axis.

    Raises:
        ValueError: shapes do not fit together, or a count is below 1.
    """
    width, hidden = q.shape[-1], W1.shape[-1]
    state = {
        "W1": (W1, (width, hidden)),
        "b1": (b1, (1, hidden)),
        "W2": (W2, (hidden, width)),
        "b2": (b2, (1, width)),
    }
    norm = (norm_weight, norm_bias)
    check_shapes(
        q,
        k,
        target,
        eta,
        norm,
        state=state,
        mini_batch=mini_batch,
        checkpoint_group=checkpoint_group,
    )
    output, final = scan_mlp(
        q,
        k,
        target,
        eta,
        norm,
        (W1, b1, W2, b2),
        mini_batch=mini_batch,
        checkpoint_group=checkpoint_group,
        eps=eps,
    )
    return output, (final[0], final[1], final[2], final[3])
