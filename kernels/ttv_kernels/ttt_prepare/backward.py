"""Preparation of a TTT layer's inputs, backward; README.md derives the formulas.

Shape legend: B batch, H heads, L tokens, S tokens of one tile, K head width.
"""

import triton
import triton.language as tl

from ttv_kernels.triton_parts import (
    load_rows,
    load_vector,
    normalise,
    normalise_backward,
    store_rows,
    store_vector,
)
from ttv_kernels.ttt_prepare.forward import tile_rows, turned, unit


@triton.jit
def through_unit(dy, n, scale, rotary):
    """Gradient at x of `y = turned(n)`, `n = x * scale` of length 1."""
    dn = turned(dy, rotary, True)
    return (dn - n * tl.sum(dn * n, 1)[:, None]) * scale


@triton.jit(do_not_specialize=["heads", "length"])
def ttt_prepare_bwd_kernel(
    q,  # [B, H, L, K], strides stride_*; q, k and v are those before
    k,  # as q
    v,  # as q
    rotary,  # [L, K], fp32: cosine and sine in turns
    norm_weight,  # [H, K], fp32
    dq_out,  # as q
    dk_out,  # as q
    d_target,  # as q
    dq,  # as q
    dk,  # as q
    dv,  # as q
    norm_parts,  # [B, H, programs, 2, K], fp32
    l2_eps,
    target_eps,
    heads,
    length,
    stride_b,
    stride_h,
    stride_l,
    WIDTH: tl.constexpr,
    BLOCK_S: tl.constexpr,
    TILES: tl.constexpr,
):
    """TILES tiles of tokens; gradients of the norm are summed over them."""
    sequence = tl.program_id(0).to(tl.int64)
    head = sequence % heads
    at = sequence // heads * stride_b + head * stride_h
    weight = load_vector(norm_weight + head * WIDTH, WIDTH, WIDTH)[None, :]
    dweight = tl.zeros([WIDTH], tl.float32)
    dbias = tl.zeros([WIDTH], tl.float32)
    for tile in tl.range(0, TILES, num_stages=1):
        rows, real = tile_rows(tl.program_id(1) * TILES + tile, length, BLOCK_S)
        angles = load_rows(rotary, rows, WIDTH, real, WIDTH, WIDTH)

        x = load_rows(q + at, rows, stride_l, real, WIDTH, WIDTH).to(tl.float32)
        n, scale = unit(x, l2_eps)
        dy = load_rows(dq_out + at, rows, stride_l, real, WIDTH, WIDTH).to(tl.float32)
        dx = through_unit(dy, n, scale, angles)
        store_rows(dq + at, rows, stride_l, real, dx, WIDTH)

        # target = LN(v - k) of the new k
        x = load_rows(k + at, rows, stride_l, real, WIDTH, WIDTH).to(tl.float32)
        n, scale = unit(x, l2_eps)
        values = load_rows(v + at, rows, stride_l, real, WIDTH, WIDTH).to(tl.float32)
        normed, rstd = normalise(values - turned(n, angles, False), target_eps, WIDTH)
        dt = load_rows(d_target + at, rows, stride_l, real, WIDTH, WIDTH).to(tl.float32)
        dweight += tl.sum(dt * normed, 0)
        dbias += tl.sum(dt, 0)
        dvalues = normalise_backward(dt * weight, normed, rstd, WIDTH)
        store_rows(dv + at, rows, stride_l, real, dvalues, WIDTH)

        dy = load_rows(dk_out + at, rows, stride_l, real, WIDTH, WIDTH).to(tl.float32)
        dx = through_unit(dy - dvalues, n, scale, angles)
        store_rows(dk + at, rows, stride_l, real, dx, WIDTH)
    parts = norm_parts + (sequence * tl.num_programs(1) + tl.program_id(1)) * 2 * WIDTH
    store_vector(parts, dweight, WIDTH)
    store_vector(parts + WIDTH, dbias, WIDTH)
