"""TTT with large chunks: a gated network per head, one update per chunk of thousands of tokens."""

from collections.abc import Mapping

from torch import Tensor

from ttv_kernels.ttt_large_chunk.chunk import read_chunks


def ttt_large_chunk(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    eta: Tensor,
    W1: Tensor,
    W2: Tensor,
    W3: Tensor,
    *,
    chunk: int,
    muon_steps: int = 5,
    checkpoint_group: int | None = None,
    reverse: bool = False,
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """Update the inner network with a whole chunk, answer the chunk's queries, go to the next.

    Args:
        q, k, v: queries, keys and values `[B, H, L, K]`; positions are in q and k.
        eta: rate of each token for W1, W2 and W3, `[3, B, H, L]`.
        W1, W2, W3: initial state (gate, out, up) `[H, K, F]`, `[H, F, K]`, `[H, K, F]`; with a
            batch axis in front to carry the state of an earlier call on.
        chunk: tokens of one update; a last one may be shorter.
        muon_steps: iterations that make the update orthogonal; 0 leaves it as it is.
        checkpoint_group: chunks between the states kept for the backward pass, the rest being
            computed again; None keeps everything.
        reverse: read the chunks from the end of the sequence; the output keeps the order of q.

    Returns:
        The output `[B, H, L, K]`, without a residual of q, and the final state with its batch
        axis.

    Raises:
        ValueError: shapes do not fit together, or a count is too small.
    """
    _check_tokens(q, k, v, eta)
    heads, width, hidden = q.shape[1], q.shape[-1], W1.shape[-1]
    shapes = {"W1": (width, hidden), "W2": (hidden, width), "W3": (width, hidden)}
    _check_state({"W1": W1, "W2": W2, "W3": W3}, shapes, (q.shape[0], heads))
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1, got {chunk}")
    if muon_steps < 0:
        raise ValueError(f"muon_steps must be at least 0, got {muon_steps}")
    if checkpoint_group is not None and checkpoint_group < 1:
        raise ValueError(f"checkpoint_group must be at least 1, got {checkpoint_group}")
    return read_chunks(
        q,
        k,
        v,
        eta,
        (W1, W2, W3),
        chunk=chunk,
        muon_steps=muon_steps,
        checkpoint_group=checkpoint_group,
        reverse=reverse,
    )


def _check_tokens(q: Tensor, k: Tensor, v: Tensor, eta: Tensor) -> None:
    if q.ndim != 4:
        raise ValueError(f"q must be [B, H, L, K], got {q.ndim} dimensions: {tuple(q.shape)}")
    if q.shape[2] == 0:
        raise ValueError("q holds no tokens: L is 0")
    for name, tensor, shape in (
        ("k", k, q.shape),
        ("v", v, q.shape),
        ("eta", eta, (3, *q.shape[:3])),
    ):
        if tensor.shape != shape:
            raise ValueError(f"{name} must be {tuple(shape)}, got {tuple(tensor.shape)}")


def _check_state(
    state: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, int]], rows: tuple[int, int]
) -> None:
    batch, heads = rows
    for name, tensor in state.items():
        one, each = (heads, *shapes[name]), (batch, heads, *shapes[name])
        if tensor.shape not in (one, each):
            raise ValueError(f"{name} must be {one} or {each}, got {tuple(tensor.shape)}")
