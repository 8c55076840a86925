"""Preparation of a TTT layer's inputs: one program takes some tokens of one head.

Shape legend: B batch, H heads, L tokens, S tokens of one tile, K head width.
"""

import triton
import triton.language as tl

from ttv_kernels.triton_parts import load_rows, load_vector, normalise, store_rows


@triton.jit
def turned(x, rotary, BACK: tl.constexpr):
    """The pairs of neighbouring features `[S, K]`, turned by the angles of the table or BACK."""
    S: tl.constexpr = x.shape[0]
    HALF: tl.constexpr = x.shape[1] // 2
    a, b = tl.split(tl.reshape(x, [S, HALF, 2]))
    cos, sin = tl.split(tl.reshape(rotary, [S, HALF, 2]))
    if BACK:
        sin = -sin
    return tl.reshape(tl.join(a * cos - b * sin, a * sin + b * cos), [S, 2 * HALF])


@triton.jit
def unit(x, l2_eps):
    """x with length 1, and what it was multiplied by, `[S, 1]`."""
    scale = 1.0 / tl.maximum(tl.sqrt(tl.sum(x * x, 1)), l2_eps)[:, None]
    return x * scale, scale


@triton.jit
def tile_rows(tile, length, BLOCK_S: tl.constexpr):
    """Rows of a tile (int64), and whether each exists."""
    rows = tile.to(tl.int64) * BLOCK_S + tl.arange(0, BLOCK_S)
    return rows, rows < length


@triton.jit(do_not_specialize=["heads", "length"])
def ttt_prepare_fwd_kernel(
    q,  # [B, H, L, K], strides stride_*
    k,  # as q
    v,  # as q
    rotary,  # [L, K], fp32: cosine and sine in turns
    norm_weight,  # [H, K], fp32
    norm_bias,  # [H, K], fp32
    q_out,  # as q
    k_out,  # as q
    target,  # as q
    l2_eps,
    target_eps,
    heads,
    length,
    stride_b,
    stride_h,
    stride_l,
    WIDTH: tl.constexpr,
    BLOCK_S: tl.constexpr,
):
    """Unit length, rotation, and the LayerNorm of `v - k` as the target."""
    sequence = tl.program_id(0).to(tl.int64)
    head = sequence % heads
    at = sequence // heads * stride_b + head * stride_h
    rows, real = tile_rows(tl.program_id(1), length, BLOCK_S)
    angles = load_rows(rotary, rows, WIDTH, real, WIDTH, WIDTH)

    x = load_rows(q + at, rows, stride_l, real, WIDTH, WIDTH).to(tl.float32)
    n, _scale = unit(x, l2_eps)
    store_rows(q_out + at, rows, stride_l, real, turned(n, angles, False), WIDTH)

    x = load_rows(k + at, rows, stride_l, real, WIDTH, WIDTH).to(tl.float32)
    n, _scale = unit(x, l2_eps)
    keys = turned(n, angles, False)
    store_rows(k_out + at, rows, stride_l, real, keys, WIDTH)

    values = load_rows(v + at, rows, stride_l, real, WIDTH, WIDTH).to(tl.float32)
    n, _rstd = normalise(values - keys, target_eps, WIDTH)
    weight = load_vector(norm_weight + head * WIDTH, WIDTH, WIDTH)[None, :]
    bias = load_vector(norm_bias + head * WIDTH, WIDTH, WIDTH)[None, :]
    store_rows(target + at, rows, stride_l, real, n * weight + bias, WIDTH)
