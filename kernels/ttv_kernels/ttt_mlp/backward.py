"""TTT-MLP backward, one checkpoint group at a time; README.md derives the formulas.

Shape legend: B batch, H heads, L tokens, S tokens of one mini-batch, K head width, F hidden width,
C hidden columns of one slice.

The states inside the group come from the forward kernel with TRACE. What the queries do needs no
recurrence: the first kernel here has a program for each mini-batch. The second walks the
mini-batches from the last to the first, with the gradient at the state in memory, in the layout of
a state, slice by slice. States are operands only, so they have the dtype of q; the gradient at the
state is fp32, with a copy in the dtype of operands: rounded first, a matrix is a quarter of the
registers when it becomes one.
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
    normalise,
    normalise_backward,
    product,
    store_matrix,
    store_rows,
    store_scalars,
    store_vector,
)
from ttv_kernels.ttt_mlp.forward import inner_answer, load_slice, near_rows, store_slice


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
    """Through the answers to the queries of a mini-batch: dq, and what is added at its state.

    The queries of mini-batch i of the group were answered with state i + 1.
    """
    sequence = tl.program_id(0).to(tl.int64)
    slot = tl.program_id(1)
    head = sequence % heads
    matrix = WIDTH * hidden
    weights += (sequence * (group + 1) + slot + 1) * 2 * matrix
    biases += (sequence * (group + 1) + slot + 1) * (hidden + WIDTH)
    d_weights += (sequence * group + slot) * 2 * matrix
    d_biases += (sequence * group + slot) * (hidden + WIDTH)
    norm_parts += (sequence * group + slot) * 4 * WIDTH

    row, rows, real = near_rows(first + slot, length, MINI_BATCH, BLOCK_S, REVERSE)
    tokens = sequence // heads * token_stride_b + head * token_stride_h + row * token_stride_l
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


@triton.jit
def at_step(
    keys,  # [S, K]
    weights,  # [2, K, F], before the update
    biases,  # [F + K]
    d_operands,  # [2, K, F], at the state after the update
    d_biases,  # [F + K]
    hidden,
    WIDTH: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_S: tl.constexpr,
    C: tl.constexpr,
    PRECISION: tl.constexpr,
    GRADIENT_DTYPE: tl.constexpr,
    GRADIENT_PRECISION: tl.constexpr,
):
    """Gradient at g2, `[S, K]`, from the gradient at the state after the update.

    Of `W1' = W1 + k^T g1`, `W2' = W2 + x2^T g2`, `g1 = (g2 W2^T) gelu'(k W1 + b1)` and biases.
    """
    matrix = WIDTH * hidden
    dg2 = tl.zeros([BLOCK_S, BLOCK_K], tl.float32)
    dg2 += load_vector(d_biases + hidden, WIDTH, BLOCK_K)[None, :]
    for column in tl.range(0, hidden, C, num_stages=1, disable_licm=True):
        w1 = load_slice(weights, column, hidden, WIDTH, BLOCK_K, C)
        z1 = product(keys, w1, keys.dtype, PRECISION)
        z1 += load_vector(biases + column, C, C)[None, :]
        x2, slope, _curvature = gelu_derivatives(z1)
        dw2 = load_slice(d_operands + matrix, column, hidden, WIDTH, BLOCK_K, C)
        dg2 = add_product(dg2, x2, dw2.T, GRADIENT_DTYPE, GRADIENT_PRECISION)
        dw1 = load_slice(d_operands, column, hidden, WIDTH, BLOCK_K, C)
        dg1 = product(keys, dw1, GRADIENT_DTYPE, GRADIENT_PRECISION)
        dg1 += load_vector(d_biases + column, C, C)[None, :]
        w2 = load_slice(weights + matrix, column, hidden, WIDTH, BLOCK_K, C)
        dg2 = add_product(dg2, dg1 * slope, w2.T, GRADIENT_DTYPE, GRADIENT_PRECISION)
    return dg2


@triton.jit
def through_loss_gradient(
    work,  # [2, S, K]: dg2 in the first part; g2 and dz2 out
    answers,  # [S, K]: z2
    target,  # of the sequence
    d_target,
    eta,
    d_eta,
    weight,  # [1, K]
    bias,
    norm_parts,  # [2, K]
    index,
    length,
    eps,
    token_stride,
    eta_stride,
    WIDTH: tl.constexpr,
    BLOCK_K: tl.constexpr,
    MINI_BATCH: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    REVERSE: tl.constexpr,
):
    """Through `g2 = -eta G(z2, target)`, BLOCK_ROWS tokens at a time; returns the sum of dz2."""
    dz2_sum = tl.zeros([BLOCK_K], tl.float32)
    dweight = tl.zeros([BLOCK_K], tl.float32)
    dbias = tl.zeros([BLOCK_K], tl.float32)
    for tile in tl.range(0, BLOCK_S // BLOCK_ROWS, num_stages=1, disable_licm=True):
        row, rows, real = near_rows(index, length, MINI_BATCH, BLOCK_ROWS, REVERSE, tile)
        at = tile * (BLOCK_ROWS * WIDTH)
        z2 = load_matrix(answers + at, BLOCK_ROWS, WIDTH, BLOCK_ROWS, BLOCK_K)
        start = row * token_stride
        targets = load_rows(target + start, rows, token_stride, real, WIDTH, BLOCK_K)
        G, n, rstd, error = loss_gradient(z2, targets.to(tl.float32), weight, bias, eps, WIDTH)
        dg2 = load_matrix(work + at, BLOCK_ROWS, WIDTH, BLOCK_ROWS, BLOCK_K)
        step = -load_scalars(eta + row * eta_stride, rows, eta_stride, real)[:, None]
        deta = -tl.sum(dg2 * G, 1)
        store_scalars(d_eta + row * eta_stride, rows, eta_stride, real, deta)
        dz2, dtargets, dweights, dbiases = loss_gradient_backward(
            dg2 * step, G, n, rstd, error, weight, WIDTH
        )
        store_rows(d_target + start, rows, token_stride, real, dtargets, WIDTH)
        dweight += tl.sum(dweights, 0)
        dbias += tl.sum(dbiases, 0)
        dz2_sum += tl.sum(dz2, 0)
        # no thread may store what another still has to load
        tl.debug_barrier()
        store_matrix(work + at, G * step, BLOCK_ROWS, WIDTH)
        store_matrix(work + BLOCK_S * WIDTH + at, dz2, BLOCK_ROWS, WIDTH)
    store_vector(norm_parts, dweight, WIDTH)
    store_vector(norm_parts + WIDTH, dbias, WIDTH)
    return dz2_sum


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
    query_d_weights,  # [B, H, group, 2, K, F], of the other kernel
    query_d_biases,  # [B, H, group, F + K]
    d_weights,  # [B, H, 2, K, F], updated in place; holds those of the last queries at the start
    d_biases,  # [B, H, F + K], the same
    d_operands,  # d_weights as operands
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
    """Through the updates by the keys, from mini-batch `first + count - 1` down to `first`."""
    sequence = tl.program_id(0).to(tl.int64)
    head = sequence % heads
    tokens = sequence // heads * token_stride_b + head * token_stride_h
    etas = sequence // heads * eta_stride_b + head * eta_stride_h
    matrix = WIDTH * hidden
    d_weights += sequence * 2 * matrix
    d_operands += sequence * 2 * matrix
    d_biases += sequence * (hidden + WIDTH)
    work += sequence * 2 * BLOCK_S * WIDTH

    for back in tl.range(0, count, num_stages=1, disable_licm=True):
        slot = count - 1 - back
        index = first + slot
        of_group = sequence * group + slot
        w = weights + (of_group + sequence) * 2 * matrix
        b = biases + (of_group + sequence) * (hidden + WIDTH)

        row, rows, real = near_rows(index, length, MINI_BATCH, BLOCK_S, REVERSE)
        start = tokens + row * token_stride_l
        keys = load_rows(k + start, rows, token_stride_l, real, WIDTH, BLOCK_K)
        dg2 = at_step(
            keys,
            w,
            b,
            d_operands,
            d_biases,
            hidden,
            WIDTH,
            BLOCK_K,
            BLOCK_S,
            C,
            PRECISION,
            GRADIENT_DTYPE,
            GRADIENT_PRECISION,
        )
        store_matrix(work, dg2, BLOCK_S, WIDTH)
        db2 = load_vector(d_biases + hidden, WIDTH, BLOCK_K)
        # other threads load what this one has stored
        tl.debug_barrier()
        db2 += through_loss_gradient(
            work,
            answers + of_group * BLOCK_S * WIDTH,
            target + tokens,
            d_target + tokens,
            eta + etas,
            d_eta + etas,
            load_vector(norm_weight + head * WIDTH, WIDTH, BLOCK_K)[None, :],
            load_vector(norm_bias + head * WIDTH, WIDTH, BLOCK_K)[None, :],
            norm_parts + of_group * 4 * WIDTH + 2 * WIDTH,
            index,
            length,
            eps,
            token_stride_l,
            eta_stride_l,
            WIDTH,
            BLOCK_K,
            MINI_BATCH,
            BLOCK_S,
            BLOCK_ROWS,
            REVERSE,
        )
        # the queries of the mini-batch before were answered with this state
        more = slot > 0
        added = query_d_weights + (of_group - 1) * 2 * matrix
        added_biases = query_d_biases + (of_group - 1) * (hidden + WIDTH)
        if more:
            db2 += load_vector(added_biases + hidden, WIDTH, BLOCK_K)
        store_vector(d_biases + hidden, db2, WIDTH)
        tl.debug_barrier()

        # z2 = gelu(k W1 + b1) W2 + b2, g1 = (g2 W2^T) gelu'(k W1 + b1), W1' = W1 + k^T g1
        g2 = load_matrix(work, BLOCK_S, WIDTH, BLOCK_S, BLOCK_K).to(GRADIENT_DTYPE)
        dz2 = load_matrix(work + BLOCK_S * WIDTH, BLOCK_S, WIDTH, BLOCK_S, BLOCK_K)
        dz2 = dz2.to(GRADIENT_DTYPE)
        keys = load_rows(k + start, rows, token_stride_l, real, WIDTH, BLOCK_K)
        dkeys = tl.zeros([BLOCK_S, BLOCK_K], tl.float32)
        for column in tl.range(0, hidden, C, num_stages=1, disable_licm=True):
            w2 = load_slice(w + matrix, column, hidden, WIDTH, BLOCK_K, C)
            m = product(g2, w2, GRADIENT_DTYPE, GRADIENT_PRECISION)
            dx2 = product(dz2, w2, GRADIENT_DTYPE, GRADIENT_PRECISION)
            dw2 = load_slice(d_operands + matrix, column, hidden, WIDTH, BLOCK_K, C)
            dx2 = add_product(dx2, g2, dw2, GRADIENT_DTYPE, GRADIENT_PRECISION)

            w1 = load_slice(w, column, hidden, WIDTH, BLOCK_K, C)
            z1 = product(keys, w1, k.dtype.element_ty, PRECISION)
            z1 += load_vector(b + column, C, C)[None, :]
            x2, slope, curvature = gelu_derivatives(z1)
            dw1 = load_slice(d_operands, column, hidden, WIDTH, BLOCK_K, C)
            dkeys = add_product(dkeys, m * slope, dw1.T, GRADIENT_DTYPE, GRADIENT_PRECISION)
            db1 = load_vector(d_biases + column, C, C)
            dg1 = product(keys, dw1, GRADIENT_DTYPE, GRADIENT_PRECISION) + db1[None, :]
            dz1 = dx2 * slope + dg1 * m * curvature
            dg1 *= slope
            db1 += tl.sum(dz1, 0)
            dkeys = add_product(dkeys, dz1, w1.T, GRADIENT_DTYPE, GRADIENT_PRECISION)

            if GRADIENT_PRECISION == "tf32":
                # held as operands both ways round, the tiles would take 148 KiB
                g2 = load_matrix(work, BLOCK_S, WIDTH, BLOCK_S, BLOCK_K)
                dz2 = load_matrix(work + BLOCK_S * WIDTH, BLOCK_S, WIDTH, BLOCK_S, BLOCK_K)
                keys = load_rows(k + start, rows, token_stride_l, real, WIDTH, BLOCK_K)
            dw2 = load_slice(d_weights + matrix, column, hidden, WIDTH, BLOCK_K, C)
            dw2 = add_product(dw2, g2.T, dg1, GRADIENT_DTYPE, GRADIENT_PRECISION)
            dw2 = add_product(dw2, dz2.T, x2, GRADIENT_DTYPE, GRADIENT_PRECISION)
            if more:
                dw2 += load_slice(added + matrix, column, hidden, WIDTH, BLOCK_K, C)
            # no thread may store what another still has to load
            tl.debug_barrier()
            store_slice(d_weights + matrix, column, hidden, dw2, WIDTH)
            store_slice(d_operands + matrix, column, hidden, dw2, WIDTH)
            dw1 = load_slice(d_weights, column, hidden, WIDTH, BLOCK_K, C)
            dw1 = add_product(dw1, keys.T, dz1, GRADIENT_DTYPE, GRADIENT_PRECISION)
            if more:
                dw1 += load_slice(added, column, hidden, WIDTH, BLOCK_K, C)
                db1 += load_vector(added_biases + column, C, C)
            tl.debug_barrier()
            store_slice(d_weights, column, hidden, dw1, WIDTH)
            store_slice(d_operands, column, hidden, dw1, WIDTH)
            store_vector(d_biases + column, db1, C)
        store_rows(dk + start, rows, token_stride_l, real, dkeys, WIDTH)
        # the next mini-batch loads what other threads have stored
        tl.debug_barrier()
