"""TTT-Linear backward: one program walks the mini-batches of one sequence of one head from the end.

Shape legend: B batch, H heads, L tokens, S tokens of one mini-batch, K head width, M mini-batches.
Group by group, the states inside the group are computed again from the one kept by the forward
pass; README.md derives the formulas.
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
    loss_gradient_backward,
    mini_batch_rows,
    normalise,
    normalise_backward,
    product,
    store_matrix,
    store_rows,
    store_scalars,
    store_vector,
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
    W_kept,  # [B, H, ceil(M / group), K, K]
    b_kept,  # [B, H, ceil(M / group), 1, K]
    W_final,  # [B, H, K, K]
    b_final,  # [B, H, 1, K]
    d_output,  # as q
    dW_final,  # [B, H, K, K]
    db_final,  # [B, H, 1, K]
    W_group,  # scratch [B, H, group, K, K], the dtype of q
    b_group,  # scratch [B, H, group, 1, K]
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
    scratch = sequence * group

    weight = load_vector(norm_weight + head * WIDTH, WIDTH, BLOCK_K)[None, :]
    bias = load_vector(norm_bias + head * WIDTH, WIDTH, BLOCK_K)[None, :]
    state = sequence * WIDTH * WIDTH
    # The state after a mini-batch is the one before the next, as an operand of products.
    W_after = load_matrix(W_final + state, WIDTH, WIDTH, BLOCK_K, BLOCK_K).to(W_group.dtype.element_ty)
    b_after = load_vector(b_final + sequence * WIDTH, WIDTH, BLOCK_K)[None, :]
    dW = load_matrix(dW_final + state, WIDTH, WIDTH, BLOCK_K, BLOCK_K)
    db = load_vector(db_final + sequence * WIDTH, WIDTH, BLOCK_K)[None, :]
    dweight = tl.zeros([BLOCK_K], tl.float32)
    dbias = tl.zeros([BLOCK_K], tl.float32)

    for group_from_end in range(groups):
        at = groups - 1 - group_from_end
        first = at * group
        count = tl.minimum(group, mini_batches - first)

        W = load_matrix(W_kept + (kept + at) * WIDTH * WIDTH, WIDTH, WIDTH, BLOCK_K, BLOCK_K)
        b = load_vector(b_kept + (kept + at) * WIDTH, WIDTH, BLOCK_K)[None, :]
        for offset in range(count):
            store_matrix(W_group + (scratch + offset) * WIDTH * WIDTH, W, WIDTH, WIDTH)
            store_matrix(b_group + (scratch + offset) * WIDTH, b, 1, WIDTH)
            rows, real = mini_batch_rows(first + offset, length, MINI_BATCH, BLOCK_S, REVERSE)
            keys = load_rows(k + tokens, rows, token_stride_l, real, WIDTH, BLOCK_K)
            targets = load_rows(target + tokens, rows, token_stride_l, real, WIDTH, BLOCK_K)
            rates = load_scalars(eta + etas, rows, eta_stride_l, real)
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
        # Other threads read below what this one has stored above.
        tl.debug_barrier()

        for offset_from_end in range(count):
            offset = count - 1 - offset_from_end
            rows, real = mini_batch_rows(first + offset, length, MINI_BATCH, BLOCK_S, REVERSE)

            # y = q + LN(q W' + b')
            queries = load_rows(q + tokens, rows, token_stride_l, real, WIDTH, BLOCK_K)
            dy = load_rows(d_output + tokens, rows, token_stride_l, real, WIDTH, BLOCK_K)
            dy = dy.to(tl.float32)
            z = product(queries, W_after, queries.dtype, PRECISION) + b_after
            n, rstd = normalise(z, eps, WIDTH)
            dweight += tl.sum(dy * n, axis=0)
            dbias += tl.sum(dy, axis=0)
            dz = normalise_backward(dy * weight, n, rstd, WIDTH)
            dqueries = add_product(dy, dz, tl.trans(W_after), GRADIENT_DTYPE, GRADIENT_PRECISION)
            store_rows(dq + tokens, rows, token_stride_l, real, dqueries, WIDTH)
            dW = add_product(dW, tl.trans(queries), dz, GRADIENT_DTYPE, GRADIENT_PRECISION)
            db += tl.sum(dz, axis=0)[None, :]

            # W' = W - k^T g, b' = b - sum(g), g = eta G(k W + b, target)
            keys = load_rows(k + tokens, rows, token_stride_l, real, WIDTH, BLOCK_K)
            targets = load_rows(target + tokens, rows, token_stride_l, real, WIDTH, BLOCK_K)
            rates = load_scalars(eta + etas, rows, eta_stride_l, real)
            slots = tl.arange(0, BLOCK_K)
            W_before = load_rows(
                W_group + (scratch + offset) * WIDTH * WIDTH, slots, WIDTH, slots < WIDTH, WIDTH, BLOCK_K
            )
            b_before = load_vector(b_group + (scratch + offset) * WIDTH, WIDTH, BLOCK_K)[None, :]
            z = product(keys, W_before, keys.dtype, PRECISION) + b_before
            G, n, rstd, error = loss_gradient(z, targets.to(tl.float32), weight, bias, eps, WIDTH)
            dg = product(keys, dW, GRADIENT_DTYPE, GRADIENT_PRECISION) + db  # negative, as is g
            step = G * -rates[:, None]
            dkeys = product(step, tl.trans(dW), GRADIENT_DTYPE, GRADIENT_PRECISION)
            store_scalars(d_eta + etas, rows, eta_stride_l, real, -tl.sum(dg * G, axis=1))
            dz, dtargets, dweights, derrors = loss_gradient_backward(
                dg * -rates[:, None], G, n, rstd, error, weight, WIDTH
            )
            dkeys = add_product(dkeys, dz, tl.trans(W_before), GRADIENT_DTYPE, GRADIENT_PRECISION)
            store_rows(dk + tokens, rows, token_stride_l, real, dkeys, WIDTH)
            store_rows(d_target + tokens, rows, token_stride_l, real, dtargets, WIDTH)
            dweight += tl.sum(dweights, axis=0)
            dbias += tl.sum(derrors, axis=0)
            dW = add_product(dW, tl.trans(keys), dz, GRADIENT_DTYPE, GRADIENT_PRECISION)
            db += tl.sum(dz, axis=0)[None, :]
            W_after, b_after = W_before, b_before
        # The next group stores over what this one has read.
        tl.debug_barrier()

    store_vector(d_norm_weight + sequence * WIDTH, dweight, WIDTH)
    store_vector(d_norm_bias + sequence * WIDTH, dbias, WIDTH)
    store_matrix(dW_initial + state, dW, WIDTH, WIDTH)
    store_matrix(db_initial + sequence * WIDTH, db, 1, WIDTH)
