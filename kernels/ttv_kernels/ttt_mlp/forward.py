"""TTT-MLP forward: one program walks mini-batches of one sequence of one head.

Shape legend: B batch, H heads, L tokens, S tokens of one mini-batch, K head width, F hidden width,
C hidden columns of one slice, M mini-batches.

In memory a state is weights `[2, K, F]`, W1 and the transpose of W2, and biases `[F + K]`, b1 and
b2. It is too large for registers, so the program goes through it slice by slice: C hidden columns
are C columns of both matrices and concern nothing else of the state. README.md has the plan.
"""

import triton
import triton.language as tl

from ttv_kernels.triton_parts import (
    add_product,
    gelu,
    gelu_derivatives,
    load_rows,
    load_scalars,
    load_vector,
    loss_gradient,
    normalise,
    product,
    store_matrix,
    store_rows,
    store_vector,
)


@triton.jit
def near_rows(
    index,
    length,
    MINI_BATCH: tl.constexpr,
    BLOCK: tl.constexpr,
    REVERSE: tl.constexpr,
    tile=0,
):
    """As `mini_batch_rows`, but as a first row (int64) and small offsets from it (int32).

    What is wide in an address is then the same for all threads, and takes no registers of theirs.
    """
    skipped = tile * BLOCK
    offsets = tl.arange(0, BLOCK)
    first = index.to(tl.int64) * MINI_BATCH + skipped
    real = (offsets < MINI_BATCH - skipped) & (offsets < length - first)
    if REVERSE:
        first = length - 1 - first
        offsets = -offsets
    return first, offsets, real


@triton.jit
def load_slice(matrix, first, hidden, WIDTH: tl.constexpr, BLOCK_K: tl.constexpr, C: tl.constexpr):
    """`[BLOCK_K, C]`: the columns from `first` on of a matrix `[WIDTH, hidden]`, in its dtype."""
    rows = tl.arange(0, BLOCK_K)[:, None]
    at = matrix + (rows * hidden + (first + tl.arange(0, C))[None, :])
    return tl.load(at) if WIDTH == BLOCK_K else tl.load(at, mask=rows < WIDTH, other=0.0)


@triton.jit
def store_slice(matrix, first, hidden, tile, WIDTH: tl.constexpr):
    """The counterpart of `load_slice`; converts to the matrix's dtype."""
    rows = tl.arange(0, tile.shape[0])[:, None]
    at = matrix + (rows * hidden + (first + tl.arange(0, tile.shape[1]))[None, :])
    tile = tile.to(matrix.dtype.element_ty)
    if tile.shape[0] == WIDTH:
        tl.store(at, tile)
    else:
        tl.store(at, tile, mask=rows < WIDTH)


@triton.jit
def inner_answer(
    tokens,  # [S, K]
    weights,  # [2, K, F]
    biases,  # [F + K]
    hidden,
    WIDTH: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_S: tl.constexpr,
    C: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """`gelu(tokens W1 + b1) W2 + b2`, `[S, K]`."""
    answer = tl.zeros([BLOCK_S, BLOCK_K], tl.float32)
    answer += load_vector(biases + hidden, WIDTH, BLOCK_K)[None, :]
    for column in tl.range(0, hidden, C, num_stages=1, disable_licm=True):
        w1 = load_slice(weights, column, hidden, WIDTH, BLOCK_K, C)
        z1 = product(tokens, w1, tokens.dtype, PRECISION)
        z1 += load_vector(biases + column, C, C)[None, :]
        w2 = load_slice(weights + WIDTH * hidden, column, hidden, WIDTH, BLOCK_K, C)
        answer = add_product(answer, gelu(z1), w2.T, tokens.dtype, PRECISION)
    return answer


@triton.jit(do_not_specialize=["heads", "length", "group", "first", "count", "slots"])
def ttt_mlp_fwd_kernel(
    q,  # [B, H, L, K], strides token_stride_*
    k,  # as q
    target,  # as q
    eta,  # [B, H, L], strides eta_stride_*
    norm_weight,  # [H, K]
    norm_bias,  # [H, K]
    weights,  # [B, H, 2, K, F], fp32, updated in place
    biases,  # [B, H, F + K], fp32, updated in place
    kept_weights,  # [B, H, slots, 2, K, F], any dtype; not touched without KEEP
    kept_biases,  # [B, H, slots, F + K]
    output,  # as q; with TRACE [B, H, slots - 1, S, K], fp32: the answers to the keys
    eps,
    heads,
    length,
    hidden,
    group,
    first,
    count,
    slots,
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
    C: tl.constexpr,
    REVERSE: tl.constexpr,
    KEEP: tl.constexpr,
    TRACE: tl.constexpr,
    STEP_SCALE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Walk `count` mini-batches from number `first` on; KEEP the state before every `group`-th.

    With TRACE, for the backward pass, the queries are not answered; what the network answers to the
    keys of each mini-batch before the update is stored instead.
    """
    sequence = tl.program_id(0).to(tl.int64)
    head = sequence % heads
    tokens = sequence // heads * token_stride_b + head * token_stride_h
    q += tokens
    k += tokens
    target += tokens
    eta += sequence // heads * eta_stride_b + head * eta_stride_h
    norm_weight += head * WIDTH
    norm_bias += head * WIDTH
    matrix = WIDTH * hidden
    weights += sequence * 2 * matrix
    biases += sequence * (hidden + WIDTH)
    DTYPE: tl.constexpr = q.dtype.element_ty

    row, rows, real = near_rows(first, length, MINI_BATCH, BLOCK_S, REVERSE)
    keys = load_rows(k + row * token_stride_l, rows, token_stride_l, real, WIDTH, BLOCK_K)
    z2 = inner_answer(keys, weights, biases, hidden, WIDTH, BLOCK_K, BLOCK_S, C, PRECISION)

    for step in tl.range(0, count, num_stages=1, disable_licm=True):
        index = first + step
        keeps = (step % group == 0) if KEEP else False
        kept = kept_weights + (sequence * slots + step // group) * 2 * matrix
        kept_b = kept_biases + (sequence * slots + step // group) * (hidden + WIDTH)
        if TRACE:
            traced = output + (sequence * (slots - 1) + step) * BLOCK_S * WIDTH
            store_matrix(traced, z2, BLOCK_S, WIDTH)

        # g2 = -eta G(z2, target)
        row, rows, real = near_rows(index, length, MINI_BATCH, BLOCK_S, REVERSE)
        start = target + row * token_stride_l
        targets = load_rows(start, rows, token_stride_l, real, WIDTH, BLOCK_K).to(tl.float32)
        weight = load_vector(norm_weight, WIDTH, BLOCK_K)[None, :]
        bias = load_vector(norm_bias, WIDTH, BLOCK_K)[None, :]
        g2, _n, _rstd, _error = loss_gradient(z2, targets, weight, bias, eps, WIDTH)
        rates = load_scalars(eta + row * eta_stride_l, rows, eta_stride_l, real)
        g2 *= rates[:, None] * (-STEP_SCALE)
        b2 = load_vector(biases + hidden, WIDTH, BLOCK_K)
        if keeps:
            store_vector(kept_b + hidden, b2, WIDTH)
        b2 += tl.sum(g2, 0) * (1.0 / STEP_SCALE)
        # no thread may store what another still has to load
        tl.debug_barrier()
        store_vector(biases + hidden, b2, WIDTH)

        g2 = g2.to(DTYPE)
        keys = load_rows(k + row * token_stride_l, rows, token_stride_l, real, WIDTH, BLOCK_K)
        queries = load_rows(q + row * token_stride_l, rows, token_stride_l, real, WIDTH, BLOCK_K)
        row, rows, real = near_rows(index + 1, length, MINI_BATCH, BLOCK_S, REVERSE)
        next_keys = load_rows(k + row * token_stride_l, rows, token_stride_l, real, WIDTH, BLOCK_K)
        answer = tl.zeros([BLOCK_S, BLOCK_K], tl.float32) + b2[None, :]
        z2 = answer
        for column in tl.range(0, hidden, C, num_stages=1, disable_licm=True):
            w1 = load_slice(weights, column, hidden, WIDTH, BLOCK_K, C)
            w2 = load_slice(weights + matrix, column, hidden, WIDTH, BLOCK_K, C)
            b1 = load_vector(biases + column, C, C)
            if keeps:
                store_slice(kept, column, hidden, w1, WIDTH)
                store_slice(kept + matrix, column, hidden, w2, WIDTH)
                store_vector(kept_b + column, b1, C)

            # W1' = W1 + k^T g1, W2' = W2 + x2^T g2 with g1 = (g2 W2^T) gelu'(z1)
            z1 = product(keys, w1, DTYPE, PRECISION) + b1[None, :]
            x2, slope, _curvature = gelu_derivatives(z1)
            g1 = product(g2, w2, DTYPE, PRECISION) * slope
            if STEP_SCALE == 1:
                b1 += tl.sum(g1, 0)
                w1 = add_product(w1, keys.T, g1, DTYPE, PRECISION)
                w2 = add_product(w2, g2.T, x2, DTYPE, PRECISION)
            else:
                b1 += tl.sum(g1, 0) * (1.0 / STEP_SCALE)
                w1 += product(keys.T, g1, DTYPE, PRECISION) * (1.0 / STEP_SCALE)
                w2 += product(g2.T, x2, DTYPE, PRECISION) * (1.0 / STEP_SCALE)
            tl.debug_barrier()
            store_slice(weights, column, hidden, w1, WIDTH)
            store_slice(weights + matrix, column, hidden, w2, WIDTH)
            store_vector(biases + column, b1, C)

            # this mini-batch's queries and the next one's keys
            if not TRACE:
                y1 = product(queries, w1, DTYPE, PRECISION) + b1[None, :]
                answer = add_product(answer, gelu(y1), w2.T, DTYPE, PRECISION)
            z1 = product(next_keys, w1, DTYPE, PRECISION) + b1[None, :]
            z2 = add_product(z2, gelu(z1), w2.T, DTYPE, PRECISION)

        if not TRACE:
            row, rows, real = near_rows(index, length, MINI_BATCH, BLOCK_S, REVERSE)
            start = row * token_stride_l
            queries = load_rows(q + start, rows, token_stride_l, real, WIDTH, BLOCK_K)
            weight = load_vector(norm_weight, WIDTH, BLOCK_K)[None, :]
            bias = load_vector(norm_bias, WIDTH, BLOCK_K)[None, :]
            n, _rstd = normalise(answer, eps, WIDTH)
            y = queries.to(tl.float32) + n * weight + bias
            store_rows(output + tokens + start, rows, token_stride_l, real, y, WIDTH)
        # the next mini-batch loads what other threads have stored
        tl.debug_barrier()
