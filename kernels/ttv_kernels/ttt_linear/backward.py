"""TTT-Linear backward: one program walks the mini-batches of one sequence of one head from the end.

Shape legend: B batch, H heads, L tokens, S tokens of one mini-batch, K head width, M mini-batches.
Group by group, the states inside the group are computed again from the one kept by the forward
pass; README.md derives the formulas. Everything is transposed, as in the forward kernel: states and
their gradients are W^T `[K, K]` and b^T `[K, 1]`, tiles are `[K, S]`.
"""

import triton
import triton.language as tl

from ttv_kernels.triton_parts import (
    add_product,
    load_matrix,
    load_operand,
    load_rows,
    load_scalars,
    load_vector,
    loss_gradient,
    loss_gradient_backward,
    mini_batch_rows,
    normalise,
    normalise_backward,
    product,
    store_matrix,
    store_rows,
    store_scalars,
)
from ttv_kernels.ttt_linear.forward import ttt_linear_update


@triton.jit(do_not_specialize=["heads", "length", "group"])
def ttt_linear_bwd_kernel(
    q,  # [B, H, L, K], strides token_stride_*
    k,  # as q
    target,  # as q
    eta,  # [B, H, L], strides eta_stride_*
    norm_weight,  # [H, K]
    norm_bias,  # [H, K]
    W_kept,  # [B, H, ceil(M / group), K, K], transposed
    b_kept,  # [B, H, ceil(M / group), K, 1]
    d_output,  # as q
    dW_final,  # [B, H, K, K]
    db_final,  # [B, H, 1, K]
    W_group,  # scratch [B, H, group + 1, K, K], transposed, the dtype of q
    b_group,  # scratch [B, H, group + 1, K, 1]
    dq,  # as q
    dk,  # as q
    d_target,  # as q
    d_eta,  # as eta
    d_norm_weight,  # [B, H, K]
    d_norm_bias,  # [B, H, K]
    dW_initial,  # [B, H, K, K]
    db_initial,  # [B, H, 1, K]
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
    REVERSE: tl.constexpr,
    STEP_SCALE: tl.constexpr,
    PRECISION: tl.constexpr,
    GRADIENT_DTYPE: tl.constexpr,
    GRADIENT_PRECISION: tl.constexpr,
):
    sequence = tl.program_id(0).to(tl.int64)
    batch = sequence // heads
    head = sequence % heads
    tokens = batch * token_stride_b + head * token_stride_h
    etas = batch * eta_stride_b + head * eta_stride_h
    mini_batches = tl.cdiv(length, MINI_BATCH)
    groups = tl.cdiv(mini_batches, group)
    kept = sequence * groups
    scratch = sequence * (group + 1)

    weight = load_vector(norm_weight + head * WIDTH, WIDTH, BLOCK_K)[:, None]
    bias = load_vector(norm_bias + head * WIDTH, WIDTH, BLOCK_K)[:, None]
    state = sequence * WIDTH * WIDTH
    dW = load_matrix(dW_final + state, WIDTH, WIDTH, BLOCK_K, BLOCK_K).T
    db = load_vector(db_final + sequence * WIDTH, WIDTH, BLOCK_K)[:, None]
    dweight = tl.zeros([BLOCK_K, 1], tl.float32)
    dbias = tl.zeros([BLOCK_K, 1], tl.float32)

    for group_from_end in range(groups):
        at = groups - 1 - group_from_end
        first = at * group
        count = tl.minimum(group, mini_batches - first)

        W = load_matrix(W_kept + (kept + at) * WIDTH * WIDTH, WIDTH, WIDTH, BLOCK_K, BLOCK_K)
        b = load_vector(b_kept + (kept + at) * WIDTH, WIDTH, BLOCK_K)[:, None]
        store_matrix(W_group + scratch * WIDTH * WIDTH, W, WIDTH, WIDTH)
        store_matrix(b_group + scratch * WIDTH, b, WIDTH, 1)
        for offset in range(count):
            W, b = ttt_linear_update(
                k + tokens,
                target + tokens,
                eta + etas,
                first + offset,
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
            slot = scratch + offset + 1
            store_matrix(W_group + slot * WIDTH * WIDTH, W, WIDTH, WIDTH)
            store_matrix(b_group + slot * WIDTH, b, WIDTH, 1)
        # Other threads read below what this one has stored above.
        tl.debug_barrier()

        for offset_from_end in range(count):
            offset = count - 1 - offset_from_end
            slot = scratch + offset + 1

            # y = q + LN(q W' + b')
            W_after = load_operand(W_group + slot * WIDTH * WIDTH, WIDTH, BLOCK_K)
            b_after = load_vector(b_group + slot * WIDTH, WIDTH, BLOCK_K)[:, None]
            for tile in tl.range((MINI_BATCH + BLOCK_S - 1) // BLOCK_S):
                rows, real = mini_batch_rows(
                    first + offset, length, MINI_BATCH, BLOCK_S, REVERSE, tile
                )
                queries = load_rows(q + tokens, rows, token_stride_l, real, WIDTH, BLOCK_K).T
                dy = load_rows(d_output + tokens, rows, token_stride_l, real, WIDTH, BLOCK_K).T
                dy = dy.to(tl.float32)
                z = product(W_after, queries, queries.dtype, PRECISION) + b_after
                n, rstd = normalise(z, eps, WIDTH, 0)
                dweight += tl.sum(dy * n, axis=1)[:, None]
                dbias += tl.sum(dy, axis=1)[:, None]
                dz = normalise_backward(dy * weight, n, rstd, WIDTH, 0)
                dqueries = add_product(dy, W_after.T, dz, GRADIENT_DTYPE, GRADIENT_PRECISION)
                store_rows(dq + tokens, rows, token_stride_l, real, dqueries.T, WIDTH)
                dW = add_product(dW, dz, queries.T, GRADIENT_DTYPE, GRADIENT_PRECISION)
                db += tl.sum(dz, axis=1)[:, None]

            # W' = W - k^T g, b' = b - sum(g), g = eta G(k W + b, target)
            slot -= 1
            W_before = load_operand(W_group + slot * WIDTH * WIDTH, WIDTH, BLOCK_K)
            b_before = load_vector(b_group + slot * WIDTH, WIDTH, BLOCK_K)[:, None]
            dW_before, db_before = dW, db
            for tile in tl.range((MINI_BATCH + BLOCK_S - 1) // BLOCK_S):
                rows, real = mini_batch_rows(
                    first + offset, length, MINI_BATCH, BLOCK_S, REVERSE, tile
                )
                keys = load_rows(k + tokens, rows, token_stride_l, real, WIDTH, BLOCK_K).T
                targets = load_rows(target + tokens, rows, token_stride_l, real, WIDTH, BLOCK_K).T
                rates = load_scalars(eta + etas, rows, eta_stride_l, real)[None, :]
                z = product(W_before, keys, keys.dtype, PRECISION) + b_before
                G, n, rstd, error = loss_gradient(
                    z, targets.to(tl.float32), weight, bias, eps, WIDTH, 0
                )
                # minus the gradient at g
                dg = product(dW, keys, GRADIENT_DTYPE, GRADIENT_PRECISION) + db
                store_scalars(d_eta + etas, rows, eta_stride_l, real, -tl.sum(dg * G, axis=0))
                dkeys = product(dW.T, G * -rates, GRADIENT_DTYPE, GRADIENT_PRECISION)
                dz, dtargets, dweights, derror = loss_gradient_backward(
                    dg * -rates, G, n, rstd, error, weight, WIDTH, 0
                )
                dkeys = add_product(dkeys, W_before.T, dz, GRADIENT_DTYPE, GRADIENT_PRECISION)
                store_rows(dk + tokens, rows, token_stride_l, real, dkeys.T, WIDTH)
                store_rows(d_target + tokens, rows, token_stride_l, real, dtargets.T, WIDTH)
                dweight += tl.sum(dweights, axis=1)[:, None]
                dbias += tl.sum(derror, axis=1)[:, None]
                dW_before = add_product(dW_before, dz, keys.T, GRADIENT_DTYPE, GRADIENT_PRECISION)
                db_before += tl.sum(dz, axis=1)[:, None]
            dW, db = dW_before, db_before
        # The next group stores over what this one has read.
        tl.debug_barrier()

    store_matrix(d_norm_weight + sequence * WIDTH, dweight, WIDTH, 1)
    store_matrix(d_norm_bias + sequence * WIDTH, dbias, WIDTH, 1)
    store_matrix(dW_initial + state, dW.T, WIDTH, WIDTH)
    store_matrix(db_initial + sequence * WIDTH, db, WIDTH, 1)
