"""TTT-Linear forward: one program walks all mini-batches of one sequence of one head.

Shape legend: B batch, H heads, L tokens, S tokens of one mini-batch, K head width, M mini-batches.
The state W `[K, K]` and b `[1, K]` stays in registers, fp32; README.md has the maths.
"""

import triton
import triton.language as tl

from ttv_kernels.triton_parts import (
    add_product,
    load_matrix,
    load_rows,
    load_scalars,
    load_vector,
    loss_gradient,
    mini_batch_rows,
    normalise,
    product,
    store_matrix,
    store_rows,
    store_vector,
)


@triton.jit
def ttt_linear_update(
    k,  # [S, K], the dtype of the products
    target,  # [S, K]
    eta,  # [S], 0 for tokens that do not exist
    W,  # [K, K]
    b,  # [1, K]
    weight,  # [1, K]
    bias,  # [1, K]
    eps,
    WIDTH: tl.constexpr,
    STEP_SCALE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """The state after one mini-batch: `W - k^T g`, `b - sum(g)` with `g = eta G(k W + b, target)`.

    STEP_SCALE multiplies g while it is an operand: published step sizes are below fp16's range.
    """
    z = product(k, W, k.dtype, PRECISION) + b
    G, _, _, _ = loss_gradient(z, target, weight, bias, eps, WIDTH)
    step = G * (-STEP_SCALE * eta)[:, None]  # [S, K]
    if STEP_SCALE == 1:
        W = add_product(W, tl.trans(k), step, k.dtype, PRECISION)
        b += tl.sum(step, axis=0)[None, :]
    else:
        W += product(tl.trans(k), step, k.dtype, PRECISION) * (1.0 / STEP_SCALE)
        b += tl.sum(step, axis=0)[None, :] * (1.0 / STEP_SCALE)
    return W, b


@triton.jit(do_not_specialize=["heads", "length", "group"])
def ttt_linear_fwd_kernel(
    q,  # [B, H, L, K], strides token_stride_*
    k,  # as q
    target,  # as q
    eta,  # [B, H, L], strides eta_stride_*
    norm_weight,  # [H, K]
    norm_bias,  # [H, K]
    W_initial,  # [B, H, K, K] or [H, K, K]
    b_initial,  # [B, H, 1, K] or [H, 1, K]
    output,  # as q
    W_final,  # [B, H, K, K]
    b_final,  # [B, H, 1, K]
    W_kept,  # [B, H, ceil(M / group), K, K]; not touched without KEEP
    b_kept,  # [B, H, ceil(M / group), 1, K]
    eps,
    heads,
    length,
    group,
    token_stride_b,
    token_stride_h,
    token_stride_l,
    eta_stride_b,
    eta_stride_h,
    eta_stride_l,
    WIDTH: tl.constexpr,
    BLOCK_K: tl.constexpr,
    MINI_BATCH: tl.constexpr,
    BLOCK_S: tl.constexpr,
    INITIAL_PER_BATCH: tl.constexpr,
    REVERSE: tl.constexpr,
    KEEP: tl.constexpr,
    STEP_SCALE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    sequence = tl.program_id(0).to(tl.int64)
    batch = sequence // heads
    head = sequence % heads
    tokens = batch * token_stride_b + head * token_stride_h
    etas = eta + batch * eta_stride_b + head * eta_stride_h
    initial = sequence if INITIAL_PER_BATCH else head
    mini_batches = tl.cdiv(length, MINI_BATCH)
    kept = sequence * tl.cdiv(mini_batches, group)

    weight = load_vector(norm_weight + head * WIDTH, WIDTH, BLOCK_K)[None, :]
    bias = load_vector(norm_bias + head * WIDTH, WIDTH, BLOCK_K)[None, :]
    W = load_matrix(W_initial + initial * WIDTH * WIDTH, WIDTH, WIDTH, BLOCK_K, BLOCK_K)
    b = load_vector(b_initial + initial * WIDTH, WIDTH, BLOCK_K)[None, :]

    for index in range(mini_batches):
        if KEEP:
            if index % group == 0:
                at = kept + index // group
                store_matrix(W_kept + at * WIDTH * WIDTH, W, WIDTH, WIDTH)
                store_matrix(b_kept + at * WIDTH, b, 1, WIDTH)
        rows, real = mini_batch_rows(index, length, MINI_BATCH, BLOCK_S, REVERSE)
        keys = load_rows(k + tokens, rows, token_stride_l, real, WIDTH, BLOCK_K)
        targets = load_rows(target + tokens, rows, token_stride_l, real, WIDTH, BLOCK_K)
        rates = load_scalars(etas, rows, eta_stride_l, real)
        queries = load_rows(q + tokens, rows, token_stride_l, real, WIDTH, BLOCK_K)

        W, b = ttt_linear_update(
            keys,
            targets.to(tl.float32),
            rates,
            W,
            b,
            weight,
            bias,
            eps,
            WIDTH,
            STEP_SCALE,
            PRECISION,
        )
        n, _ = normalise(product(queries, W, keys.dtype, PRECISION) + b, eps, WIDTH)
        answer = queries.to(tl.float32) + n * weight + bias
        store_rows(output + tokens, rows, token_stride_l, real, answer, WIDTH)

    store_matrix(W_final + sequence * WIDTH * WIDTH, W, WIDTH, WIDTH)
    store_matrix(b_final + sequence * WIDTH, b, 1, WIDTH)
