"""Sizes of the measured operations, and the arithmetic and traffic that they cannot avoid.

Shape legend: B = 1 batch, H heads, L tokens, K head width, F inner width, n windows, W tokens of a
window.
"""

from dataclasses import dataclass

from ttvcli.core.models.ttt.order import Segments

# Video length in seconds -> text tokens of a 3 s segment, as published: L divides by 64.
TEXT_TOKENS = {3: 498, 9: 502, 18: 471, 30: 497, 63: 458}
FRAME_GRID = (30, 45)  # tokens of a latent frame at 720x480
HEADS = 48
HEAD_WIDTH = 64
INNER_EXPANSION = {"ttt_linear": 1, "ttt_mlp": 4, "ttt_large_chunk": 4}
# Matrix products of an update: tokens times K x F, forward. Backward has two for each of them.
PRODUCTS = {"ttt_linear": 3, "ttt_mlp": 7, "ttt_large_chunk": 9}
BACKWARD_PRODUCTS = 2
MATRICES = {"ttt_linear": 1, "ttt_mlp": 2, "ttt_large_chunk": 3}
# Attention: two products forward, five backward (the scores are computed again).
ATTENTION_BACKWARD = 2.5


@dataclass(frozen=True)
class Shape:
    """One video length at 720x480, 16 fps, for some of the heads of a layer."""

    seconds: int
    heads: int = HEADS
    mini_batch: int = 64

    @property
    def segments(self) -> Segments:
        """Its 3 s segments."""
        return Segments(
            count=self.seconds // 3,
            frames=4 * self.seconds + 1,
            frame_tokens=FRAME_GRID[0] * FRAME_GRID[1],
            text_tokens=TEXT_TOKENS[self.seconds],
        )

    @property
    def tokens(self) -> int:
        """L: text and video."""
        segments = self.segments
        return segments.text_total + segments.frames * segments.frame_tokens

    @property
    def window(self) -> int:
        """W: tokens of one window of local attention."""
        segments = self.segments
        return segments.text_tokens + segments.window_frames * segments.frame_tokens

    @property
    def width(self) -> int:
        """D: of a token."""
        return self.heads * HEAD_WIDTH


@dataclass(frozen=True)
class Cost:
    """What has to be done at least: floating-point operations, and bytes to and from memory."""

    flop: float
    bytes: float


def ttt_cost(op: str, shape: Shape, backward: bool, size: int) -> Cost:
    """One pass of a TTT operation, tokens in `size` bytes; computing again is not counted.

    Read: q, k, target, eta and the state; written: the output and the state. Backward reads the
    output's gradient in place of the output, and writes four gradients besides.
    """
    inner = HEAD_WIDTH * INNER_EXPANSION[op]
    flop = PRODUCTS[op] * 2.0 * shape.heads * shape.tokens * HEAD_WIDTH * inner
    token = shape.heads * shape.tokens * HEAD_WIDTH * size
    state = MATRICES[op] * shape.heads * HEAD_WIDTH * inner * 4
    rate = shape.heads * shape.tokens * 4
    if backward:
        return Cost(BACKWARD_PRODUCTS * flop, 7.0 * token + 2 * rate + 3 * state)
    return Cost(flop, 4.0 * token + rate + 2 * state)


def attention_cost(shape: Shape, backward: bool, size: int) -> Cost:
    """One pass of local attention: all windows."""
    windows = shape.segments.count
    flop = 4.0 * windows * shape.heads * shape.window**2 * HEAD_WIDTH
    token = windows * shape.heads * shape.window * HEAD_WIDTH * size
    if backward:
        return Cost(ATTENTION_BACKWARD * flop, 8.0 * token)
    return Cost(flop, 4.0 * token)


def layer_cost(op: str | None, shape: Shape, backward: bool, size: int) -> Cost:
    """A transformer block: projections, local attention, MLP, and TTT in both directions.

    Only the arithmetic is counted in full; of the traffic, that of attention and TTT.
    """
    attention = attention_cost(shape, backward, size)
    factor = BACKWARD_PRODUCTS if backward else 1
    windows = shape.segments.count * shape.window
    dense = 2.0 * shape.width**2 * (4 * windows + 8 * shape.tokens) * factor
    flop, traffic = attention.flop + dense, attention.bytes
    if op is not None:
        ttt = ttt_cost(op, shape, backward, size)
        projections = 2.0 * shape.width**2 * 4 * shape.tokens * factor
        flop, traffic = flop + 2 * (ttt.flop + projections), traffic + 2 * ttt.bytes
    return Cost(flop, traffic)


def room(op: str | None, side: str, shape: Shape, backward: bool, size: int) -> float:
    """Bytes that a pass surely occupies at its peak; the arrays of all tokens alone.

    `op` None is local attention. Forward: three inputs, the output in pieces and joined. Backward:
    the gradients of them all besides. The public operations have rates as wide as a mini-batch,
    and add up two gradients of full length for each input.
    """
    token = shape.heads * shape.tokens * HEAD_WIDTH * size
    if op is None:
        return (8.0 if backward else 4.0) * token
    if side != "public":
        return (9.0 if backward else 5.0) * token
    rates = token * shape.mini_batch / HEAD_WIDTH
    return (12.0 * token + 3 * rates) if backward else (5.0 * token + rates)


def quadratic_bytes(shape: Shape, size: int) -> float:
    """Bytes that the backward pass of the public operations writes.

    For every mini-batch and each of q, k, target and eta a gradient of full length, made and then
    added; for eta as wide as a mini-batch.
    """
    updates = -(-shape.tokens // shape.mini_batch)
    full = shape.heads * shape.tokens * (3 * HEAD_WIDTH + shape.mini_batch) * size
    return 2.0 * updates * full
