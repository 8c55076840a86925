"""TTT-Linear forward: one program walks all mini-batches of one sequence of one head.

Shape legend: B batch, H heads, L tokens, S tokens of one mini-batch, K head width, M mini-batches.
The state stays in registers, fp32; README.md has the maths.

Everything is transposed: the state is W^T `[K, K]` and b^T `[K, 1]`, tiles are `[K, S]`. Triton
splits the rows of chained products over the warps, so the warps share the features, of which there
are enough for all of them, and the state becomes an operand without leaving its registers.
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
)


@triton.jit
def ttt_linear_update(
    k,  # of the sequence, [L, K]
    target,  # as k
    eta,  # of the sequence, [L]
    index,  # of the mini-batch
    W,  # [K, K], transposed
    b,  # [K, 1]
    weight,  # [K, 1]
    bias,  # [K, 1]
    eps,
    length,
    token_stride,
    eta_stride,
    WIDTH: tl.constexpr,
    BLOCK_K: tl.constexpr,
    MINI_BATCH: tl.constexpr,
    BLOCK_S: tl.constexpr,
    REVERSE: tl.constexpr,
    STEP_SCALE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """The state after one mini-batch: `W - k^T g`, `b - sum(g)` with `g = eta G(k W + b, target)`.

    STEP_SCALE multiplies g while it is an operand: published step sizes are below fp16's range.
    """
    W_after, b_after = W, b
    for tile in tl.static_range((MINI_BATCH + BLOCK_S - 1) // BLOCK_S):
        rows, real = mini_batch_rows(index, length, MINI_BATCH, BLOCK_S, REVERSE, tile)
        keys = load_rows(k, rows, token_stride, real, WIDTH, BLOCK_K).T
        targets = load_rows(target, rows, token_stride, real, WIDTH, BLOCK_K).T.to(tl.float32)
        rates = load_scalars(eta, rows, eta_stride, real)[None, :]
        z = product(W, keys, keys.dtype, PRECISION) + b
        G, _, _, _ = loss_gradient(z, targets, weight, bias, eps, WIDTH, 0)
        step = G * (-STEP_SCALE * rates)
        if STEP_SCALE == 1:
            W_after = add_product(W_after, step, keys.T, keys.dtype, PRECISION)
            b_after += tl.sum(step, axis=1)[:, None]
        else:
            W_after += product(step, keys.T, keys.dtype, PRECISION) * (1.0 / STEP_SCALE)
            b_after += tl.sum(step, axis=1)[:, None] * (1.0 / STEP_SCALE)
    return W_after, b_after


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
    W_kept,  # [B, H, ceil(M / group), K, K], transposed; not touched without KEEP
    b_kept,  # [B, H, ceil(M / group), K, 1]
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
    etas = batch * eta_stride_b + head * eta_stride_h
    initial = sequence if INITIAL_PER_BATCH else head
    mini_batches = tl.cdiv(length, MINI_BATCH)
    kept = sequence * tl.cdiv(mini_batches, group)

    weight = load_vector(norm_weight + head * WIDTH, WIDTH, BLOCK_K)[:, None]
    bias = load_vector(norm_bias + head * WIDTH, WIDTH, BLOCK_K)[:, None]
    W = load_matrix(W_initial + initial * WIDTH * WIDTH, WIDTH, WIDTH, BLOCK_K, BLOCK_K).T
    b = load_vector(b_initial + initial * WIDTH, WIDTH, BLOCK_K)[:, None]

    for index in range(mini_batches):
        if KEEP:  # noqa: SIM102 (decided when compiling, the other when running)
            if index % group == 0:
                at = kept + index // group
                store_matrix(W_kept + at * WIDTH * WIDTH, W, WIDTH, WIDTH)
                store_matrix(b_kept + at * WIDTH, b, WIDTH, 1)
        W, b = ttt_linear_update(
            k + tokens,
            target + tokens,
            eta + etas,
            index,
            W,
            b,
            weight,
            bias,
            eps,
            length,
            token_stride_l,
            eta_stride_l,
            WIDTH,
            BLOCK_K,
            MINI_BATCH,
            BLOCK_S,
            REVERSE,
            STEP_SCALE,
            PRECISION,
        )
        for tile in tl.static_range((MINI_BATCH + BLOCK_S - 1) // BLOCK_S):
            rows, real = mini_batch_rows(index, length, MINI_BATCH, BLOCK_S, REVERSE, tile)
            queries = load_rows(q + tokens, rows, token_stride_l, real, WIDTH, BLOCK_K).T
            z = product(W, queries, queries.dtype, PRECISION) + b
            n, _ = normalise(z, eps, WIDTH, 0)
            answer = queries.to(tl.float32) + n * weight + bias
            store_rows(output + tokens, rows, token_stride_l, real, answer.T, WIDTH)

    store_matrix(W_final + sequence * WIDTH * WIDTH, W.T, WIDTH, WIDTH)
    store_matrix(b_final + sequence * WIDTH, b, WIDTH, 1)
