"""TTT-Linear: one matrix per head that learns the sequence while reading it (README.md)."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ttv_kernels.dispatch import choose, run
from ttv_kernels.inner_step import TTT_NORM_EPS, check_shapes
from ttv_kernels.ttt_linear.reference import reference
from ttv_kernels.ttt_linear.scan import scan_linear


def ttt_linear(
    q: Tensor,
    k: Tensor,
    target: Tensor,
    eta: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    W1: Tensor,
    b1: Tensor,
    *,
    mini_batch: int,
    checkpoint_group: int | None = None,
    eps: float = TTT_NORM_EPS,
    reverse: bool = False,
    backend: str = "auto",
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Update the inner matrix mini-batch by mini-batch and answer the queries with it.

    Args:
        q, k: queries and keys `[B, H, L, K]`; they, target and eta may be in half precision while
            the other arguments are fp32.
        target: what the LayerNorm of the inner layer should give for k (V - K), `[B, H, L, K]`.
        eta: step size of each token, `[B, H, L]`, with 1/K and 1/mini_batch already in it.
        norm_weight, norm_bias: the inner LayerNorm of each head, `[H, K]`.
        W1, b1: initial state `[H, K, K]`, `[H, 1, K]`; with a batch axis in front to carry the
            state of an earlier call on.
        mini_batch: tokens of one update; a last one may be shorter.
        checkpoint_group: mini-batches between the states kept for the backward pass; None keeps
            everything (a Triton kernel: as much as suits it).
        eps: of the inner LayerNorm.
        reverse: read from the last token to the first; mini-batches are then counted from the end.
            Equal to flipping inputs and output along L.
        backend: "auto", "scan", "triton" or "reference" (see `ttv_kernels.dispatch`).

    Returns:
        The output `[B, H, L, K]`, which contains the query as residual, and the final state with
        its batch axis.

    Raises:
        ValueError: shapes do not fit together, a count is below 1, there is no such backend, or
            Triton was asked for and cannot run.
    """
    width = q.shape[-1]
    state = {"W1": (W1, (width, width)), "b1": (b1, (1, width))}
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
    output, final = run(
        choose(backend, q, mini_batch, width),
        (q, k, target, eta),
        norm,
        (W1, b1),
        scan=scan_linear,
        reference=reference,
        kernels=_kernels,
        mini_batch=mini_batch,
        checkpoint_group=checkpoint_group,
        eps=eps,
        reverse=reverse,
    )
    return output, (final[0], final[1])


def _kernels() -> Callable[..., Any]:
    from ttv_kernels.ttt_linear.autograd import triton_linear

    return triton_linear
