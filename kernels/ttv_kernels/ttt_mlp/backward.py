"""TTT-MLP backward: one program walks the mini-batches of one checkpoint group from its end.

Shape legend: B batch, H heads, L tokens, S tokens of one mini-batch, K head width, F hidden width,
C hidden columns of one slice, P numbers of one state.

The states inside the group and the network's answers come from the forward kernel with TRACE. The
gradient at the state is in memory in the same layout as a state and is updated in place, slice by
slice. README.md derives the formulas; names here are those of the README.
"""

import triton
import triton.language as tl

from ttv_kernels.triton_parts import (
    add_product,
    gelu_derivatives,
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
from ttv_kernels.ttt_mlp.forward import inner_answer, load_slice, store_slice


@triton.jit(do_not_specialize=["heads", "length", "group", "first"])
def ttt_mlp_bwd_queries_kernel(
    q,  # [B, H, L, K], strides token_stride_*
    norm_weight,  # [H, K]
    weights,  # [B, H, group + 1, 2, K, F]
    biases,  # [B, H, group + 1, F + K]
    d_output,  # as q
    dq,  # as q
    d_weights,  # [B, H, group, 2, K, F]
    d_biases,  # [B, H, group, F + K]
    norm_parts,  # [B, H, group, 4, K]
    eps,
    heads,
    length,
    hidden,
    group,
    first,
    token_stride_b,
    token_stride_h,
    token_stride_l,
    WIDTH: tl.constexpr,
    BLOCK_K: tl.constexpr,
    MINI_BATCH: tl.constexpr,
    BLOCK_S: tl.constexpr,
    C: tl.constexpr,
    REVERSE: tl.constexpr,
    PRECISION: tl.constexpr,
    GRADIENT_DTYPE: tl.constexpr,
    GRADIENT_PRECISION: tl.constexpr,
):
    """Through the answers to the queries, all mini-batches of the group at once.

    Mini-batch i of the group reads state i + 1 and stores what its queries add to the gradient at
    that state.
    """
    sequence = tl.program_id(0).to(tl.int64)
    slot = tl.program_id(1)
    head = sequence % heads
    tokens = sequence // heads * token_stride_b + head * token_stride_h
    matrix = WIDTH * hidden
    weights += (sequence * (group + 1) + slot + 1) * 2 * matrix
    biases += (sequence * (group + 1) + slot + 1) * (hidden + WIDTH)
    d_weights += (sequence * group + slot) * 2 * matrix
    d_biases += (sequence * group + slot) * (hidden + WIDTH)
    norm_parts += (sequence * group + slot) * (4 * WIDTH)

    rows, real = mini_batch_rows(first + slot, length, MINI_BATCH, BLOCK_S, REVERSE)
    queries = load_rows(q + tokens, rows, token_stride_l, real, WIDTH, BLOCK_K)
    o = inner_answer(queries, weights, biases, hidden, WIDTH, BLOCK_K, BLOCK_S, C, PRECISION)

    # y = q + LN(o)
    dy = load_rows(d_output + tokens, rows, token_stride_l, real, WIDTH, BLOCK_K).to(tl.float32)
    weight = load_vector(norm_weight + head * WIDTH, WIDTH, BLOCK_K)[None, :]
    n, rstd = normalise(o, eps, WIDTH)
    store_vector(norm_parts, tl.sum(dy * n, 0), WIDTH)
    store_vector(norm_parts + WIDTH, tl.sum(dy, 0), WIDTH)
    do = normalise_backward(dy * weight, n, rstd, WIDTH)
    store_vector(d_biases + hidden, tl.sum(do, 0), WIDTH)
    do = do.to(GRADIENT_DTYPE)

    # o = gelu(q W1 + b1) W2 + b2
    for column in tl.range(0, hidden, C, num_stages=1, disable_licm=True):
        w1 = load_slice(weights, column, hidden, WIDTH, BLOCK_K, C)
        y1 = product(queries, w1, q.dtype.element_ty, PRECISION)
        y1 += load_vector(biases + column, C, C)[None, :]
        a, slope, _curvature = gelu_derivatives(y1)
        dw2 = product(do.T, a, GRADIENT_DTYPE, GRADIENT_PRECISION)
        store_slice(d_weights + matrix, column, hidden, dw2, WIDTH)
        w2 = load_slice(weights + matrix, column, hidden, WIDTH, BLOCK_K, C)
        dy1 = product(do, w2, GRADIENT_DTYPE, GRADIENT_PRECISION) * slope
        store_vector(d_biases + column, tl.sum(dy1, 0), C)
        dw1 = product(queries.T, dy1, GRADIENT_DTYPE, GRADIENT_PRECISION)
        store_slice(d_weights, column, hidden, dw1, WIDTH)
        dy = add_product(dy, dy1, w1.T, GRADIENT_DTYPE, GRADIENT_PRECISION)
    store_rows(dq + tokens, rows, token_stride_l, real, dy, WIDTH)


@triton.jit(do_not_specialize=["heads", "length", "group", "first", "count"])
def ttt_mlp_bwd_keys_kernel(
    k,  # [B, H, L, K], strides token_stride_*
    target,  # as k
    eta,  # [B, H, L], strides eta_stride_*
    norm_weight,  # [H, K]
    norm_bias,  # [H, K]
    weights,  # [B, H, group + 1, 2, K, F]
    biases,  # [B, H, group + 1, F + K]
    answers,  # [B, H, group, S, K]: z2
    query_d_weights,  # [B, H, group, 2, K, F]
    query_d_biases,  # [B, H, group, F + K]
    d_weights,  # [B, H, 2, K, F], updated in place
    d_biases,  # [B, H, F + K], updated in place
    d_operands,  # as d_weights, updated in place
    work,  # scratch [B, H, 2, S, K]
    dk,  # as k
    d_target,  # as k
    d_eta,  # as eta
    norm_parts,  # [B, H, group, 4, K]
    eps,
    heads,
    length,
    hidden,
    group,
    first,
    count,
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
    BLOCK_ROWS: tl.constexpr,
    C: tl.constexpr,
    REVERSE: tl.constexpr,
    PRECISION: tl.constexpr,
    GRADIENT_DTYPE: tl.constexpr,
    GRADIENT_PRECISION: tl.constexpr,
):
    sequence = tl.program_id(0).to(tl.int64)
    head = sequence % heads
    tokens = sequence // heads * token_stride_b + head * token_stride_h
    eta_at = sequence // heads * eta_stride_b + head * eta_stride_h
    matrix = WIDTH * hidden
    d_weights += sequence * 2 * matrix
    d_operands += sequence * 2 * matrix
    d_biases += sequence * (hidden + WIDTH)
    work += sequence * (2 * BLOCK_S * WIDTH)

    for back in tl.range(0, count, num_stages=1, disable_licm=True):
        slot = count - 1 - back
        index = first + slot
        w = weights + (sequence * (group + 1) + slot) * 2 * matrix
        b = biases + (sequence * (group + 1) + slot) * (hidden + WIDTH)

        # W1' = W1 + k^T g1, W2' = W2 + x2^T g2
        rows, real = mini_batch_rows(index, length, MINI_BATCH, BLOCK_S, REVERSE)
        keys = load_rows(k + tokens, rows, token_stride_l, real, WIDTH, BLOCK_K)
        total = tl.zeros([BLOCK_S, BLOCK_K], tl.float32)
        total += load_vector(d_biases + hidden, WIDTH, BLOCK_K)[None, :]
        for column in tl.range(0, hidden, C, num_stages=1, disable_licm=True):
            w1 = load_slice(w, column, hidden, WIDTH, BLOCK_K, C)
            z1 = product(keys, w1, k.dtype.element_ty, PRECISION)
            z1 += load_vector(b + column, C, C)[None, :]
            x2, slope, _curvature = gelu_derivatives(z1)
            dw2 = load_slice(d_operands + matrix, column, hidden, WIDTH, BLOCK_K, C)
            total = add_product(total, x2, dw2.T, GRADIENT_DTYPE, GRADIENT_PRECISION)
            dw1 = load_slice(d_operands, column, hidden, WIDTH, BLOCK_K, C)
            dg1 = product(keys, dw1, GRADIENT_DTYPE, GRADIENT_PRECISION)
            dg1 += load_vector(d_biases + column, C, C)[None, :]
            w2 = load_slice(w + matrix, column, hidden, WIDTH, BLOCK_K, C)
            total = add_product(total, dg1 * slope, w2.T, GRADIENT_DTYPE, GRADIENT_PRECISION)
        store_matrix(work, total, BLOCK_S, WIDTH)
        tl.debug_barrier()

        # g2 = -eta G(z2, target), a few tokens at a time
        db2 = load_vector(d_biases + hidden, WIDTH, BLOCK_K)
        dweight = tl.zeros([BLOCK_K], tl.float32)
        dbias = tl.zeros([BLOCK_K], tl.float32)
        for tile in tl.range(0, BLOCK_S // BLOCK_ROWS, num_stages=1, disable_licm=True):
            tile_rows, tile_real = mini_batch_rows(
                index, length, MINI_BATCH, BLOCK_ROWS, REVERSE, tile
            )
            targets = load_rows(
                target + tokens, tile_rows, token_stride_l, tile_real, WIDTH, BLOCK_K
            )
            weight = load_vector(norm_weight + head * WIDTH, WIDTH, BLOCK_K)[None, :]
            bias = load_vector(norm_bias + head * WIDTH, WIDTH, BLOCK_K)[None, :]
            at = tile * (BLOCK_ROWS * WIDTH)
            z2 = load_matrix(
                answers + (sequence * group + slot) * (BLOCK_S * WIDTH) + at,
                BLOCK_ROWS,
                WIDTH,
                BLOCK_ROWS,
                BLOCK_K,
            )
            G, n, rstd, error = loss_gradient(z2, targets.to(tl.float32), weight, bias, eps, WIDTH)
            dg2 = load_matrix(work + at, BLOCK_ROWS, WIDTH, BLOCK_ROWS, BLOCK_K)
            step = -load_scalars(eta + eta_at, tile_rows, eta_stride_l, tile_real)[:, None]
            store_scalars(d_eta + eta_at, tile_rows, eta_stride_l, tile_real, -tl.sum(dg2 * G, 1))
            dz2, dt, dweights, dbiases = loss_gradient_backward(
                dg2 * step, G, n, rstd, error, weight, WIDTH
            )
            store_rows(d_target + tokens, tile_rows, token_stride_l, tile_real, dt, WIDTH)
            dweight += tl.sum(dweights, 0)
            dbias += tl.sum(dbiases, 0)
            db2 += tl.sum(dz2, 0)
            tl.debug_barrier()
            store_matrix(work + at, G * step, BLOCK_ROWS, WIDTH)
            store_matrix(work + BLOCK_S * WIDTH + at, dz2, BLOCK_ROWS, WIDTH)
        parts = norm_parts + (sequence * group + slot) * (4 * WIDTH)
        store_vector(parts + 2 * WIDTH, dweight, WIDTH)
        store_vector(parts + 3 * WIDTH, dbias, WIDTH)
        added = sequence * group + tl.maximum(slot - 1, 0)
        more = slot > 0
        if more:
            db2 += load_vector(query_d_biases + added * (hidden + WIDTH) + hidden, WIDTH, BLOCK_K)
        tl.debug_barrier()
        store_vector(d_biases + hidden, db2, WIDTH)

        # z2 = gelu(k W1 + b1) W2 + b2, g1 = (g2 W2^T) gelu'(k W1 + b1)
        g2 = load_matrix(work, BLOCK_S, WIDTH, BLOCK_S, BLOCK_K).to(GRADIENT_DTYPE)
        dz2 = load_matrix(work + BLOCK_S * WIDTH, BLOCK_S, WIDTH, BLOCK_S, BLOCK_K)
        dz2 = dz2.to(GRADIENT_DTYPE)
        rows, real = mini_batch_rows(index, length, MINI_BATCH, BLOCK_S, REVERSE)
        keys = load_rows(k + tokens, rows, token_stride_l, real, WIDTH, BLOCK_K)
        total = tl.zeros([BLOCK_S, BLOCK_K], tl.float32)
        for column in tl.range(0, hidden, C, num_stages=1, disable_licm=True):
            w1 = load_slice(w, column, hidden, WIDTH, BLOCK_K, C)
            z1 = product(keys, w1, k.dtype.element_ty, PRECISION)
            z1 += load_vector(b + column, C, C)[None, :]
            x2, slope, curvature = gelu_derivatives(z1)
            w2 = load_slice(w + matrix, column, hidden, WIDTH, BLOCK_K, C)
            m = product(g2, w2, GRADIENT_DTYPE, GRADIENT_PRECISION)
            dw1 = load_slice(d_operands, column, hidden, WIDTH, BLOCK_K, C)
            total = add_product(total, m * slope, dw1.T, GRADIENT_DTYPE, GRADIENT_PRECISION)
            db1 = load_vector(d_biases + column, C, C)
            dg1 = product(keys, dw1, GRADIENT_DTYPE, GRADIENT_PRECISION) + db1[None, :]
            dz1 = dg1 * m * curvature
            dg1 *= slope
            dw2 = load_slice(d_operands + matrix, column, hidden, WIDTH, BLOCK_K, C)
            dx2 = product(dz2, w2, GRADIENT_DTYPE, GRADIENT_PRECISION)
            dx2 = add_product(dx2, g2, dw2, GRADIENT_DTYPE, GRADIENT_PRECISION)
            dz1 += dx2 * slope
            db1 += tl.sum(dz1, 0)
            total = add_product(total, dz1, w1.T, GRADIENT_DTYPE, GRADIENT_PRECISION)

            dw2 = load_slice(d_weights + matrix, column, hidden, WIDTH, BLOCK_K, C)
            dw2 = add_product(dw2, g2.T, dg1, GRADIENT_DTYPE, GRADIENT_PRECISION)
            dw2 = add_product(dw2, dz2.T, x2, GRADIENT_DTYPE, GRADIENT_PRECISION)
            if more:
                at = query_d_weights + added * 2 * matrix + matrix
                dw2 += load_slice(at, column, hidden, WIDTH, BLOCK_K, C)
            tl.debug_barrier()
            store_slice(d_weights + matrix, column, hidden, dw2, WIDTH)
            store_slice(d_operands + matrix, column, hidden, dw2, WIDTH)
            dw1 = load_slice(d_weights, column, hidden, WIDTH, BLOCK_K, C)
            dw1 = add_product(dw1, keys.T, dz1, GRADIENT_DTYPE, GRADIENT_PRECISION)
            if more:
                at = query_d_weights + added * 2 * matrix
                dw1 += load_slice(at, column, hidden, WIDTH, BLOCK_K, C)
                db1 += load_vector(query_d_biases + added * (hidden + WIDTH) + column, C, C)
            tl.debug_barrier()
            store_slice(d_weights, column, hidden, dw1, WIDTH)
            store_slice(d_operands, column, hidden, dw1, WIDTH)
            store_vector(d_biases + column, db1, C)
        rows, real = mini_batch_rows(index, length, MINI_BATCH, BLOCK_S, REVERSE)
        store_rows(dk + tokens, rows, token_stride_l, real, total, WIDTH)
        # the next mini-batch loads what other threads have stored
        tl.debug_barrier()
