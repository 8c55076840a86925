"""Device functions that the Triton kernels of both TTT operations share.

Shape legend: S tokens of one mini-batch, K head width; blocks are padded to powers of two. Padding
tokens and features are loaded as 0 and never stored. Tiles are fp32 unless a line says otherwise.
AXIS is the one that features lie along: 1 for tiles `[S, K]`, 0 for `[K, S]`.

Addresses are int64: a minute of video has more than 2^31 elements in one tensor. Importing this
imports triton, so only modules of a Triton backend do.
"""

import triton
import triton.language as tl


@triton.jit
def mini_batch_rows(
    index,
    length,
    MINI_BATCH: tl.constexpr,
    BLOCK: tl.constexpr,
    REVERSE: tl.constexpr,
    tile=0,
):
    """Which tokens a tile of the mini-batch with this index holds, in the order of the walk.

    The mini-batch is cut in tiles of BLOCK tokens, counted by `tile`. Returns the rows `[BLOCK]`
    (int64) in the tensors and whether each exists. A reversed walk counts from the last token on.
    """
    offsets = tile * BLOCK + tl.arange(0, BLOCK).to(tl.int64)
    positions = index * MINI_BATCH + offsets
    real = (offsets < MINI_BATCH) & (positions < length)
    if REVERSE:
        positions = length - 1 - positions
    return positions, real


@triton.jit
def load_rows(start, rows, stride, real, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """`[S, BLOCK]` in the tensor's dtype: WIDTH neighbouring elements of each row."""
    columns = tl.arange(0, BLOCK)
    mask = real[:, None] & (columns < WIDTH)[None, :]
    return tl.load(start + rows[:, None] * stride + columns[None, :], mask=mask, other=0.0)


@triton.jit
def store_rows(start, rows, stride, real, tile, WIDTH: tl.constexpr):
    """The counterpart of `load_rows`; converts to the tensor's dtype."""
    columns = tl.arange(0, tile.shape[1])
    mask = real[:, None] & (columns < WIDTH)[None, :]
    at = start + rows[:, None] * stride + columns[None, :]
    tl.store(at, tile.to(start.dtype.element_ty), mask=mask)


@triton.jit
def load_scalars(start, rows, stride, real):
    """One number of each row, `[S]`, as fp32."""
    return tl.load(start + rows * stride, mask=real, other=0.0).to(tl.float32)


@triton.jit
def store_scalars(start, rows, stride, real, values):
    tl.store(start + rows * stride, values.to(start.dtype.element_ty), mask=real)


@triton.jit
def load_matrix(
    start,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK_HEIGHT: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
):
    """A contiguous matrix `[HEIGHT, WIDTH]` of any dtype, as fp32."""
    rows = tl.arange(0, BLOCK_HEIGHT)
    return load_rows(start, rows, WIDTH, rows < HEIGHT, WIDTH, BLOCK_WIDTH).to(tl.float32)


@triton.jit
def load_operand(start, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """A contiguous square matrix `[WIDTH, WIDTH]` in the dtype it is stored in."""
    rows = tl.arange(0, BLOCK)
    return load_rows(start, rows, WIDTH, rows < WIDTH, WIDTH, BLOCK)


@triton.jit
def store_matrix(start, tile, HEIGHT: tl.constexpr, WIDTH: tl.constexpr):
    rows = tl.arange(0, tile.shape[0])
    store_rows(start, rows, WIDTH, rows < HEIGHT, tile, WIDTH)


@triton.jit
def load_vector(start, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """A contiguous vector `[WIDTH]` of any dtype, as fp32."""
    columns = tl.arange(0, BLOCK)
    return tl.load(start + columns, mask=columns < WIDTH, other=0.0).to(tl.float32)


@triton.jit
def store_vector(start, values, WIDTH: tl.constexpr):
    columns = tl.arange(0, values.shape[0])
    tl.store(start + columns, values.to(start.dtype.element_ty), mask=columns < WIDTH)


@triton.jit
def product(a, b, DTYPE: tl.constexpr, PRECISION: tl.constexpr):
    """Matrix product of both rounded to DTYPE, summed in fp32; PRECISION counts for fp32 alone."""
    return tl.dot(a.to(DTYPE), b.to(DTYPE), input_precision=PRECISION)


@triton.jit
def add_product(total, a, b, DTYPE: tl.constexpr, PRECISION: tl.constexpr):
    """`total + product(a, b)`, summed onto the fp32 total in place."""
    return tl.dot(a.to(DTYPE), b.to(DTYPE), total, input_precision=PRECISION)


@triton.jit
def without_padding(x, WIDTH: tl.constexpr, AXIS: tl.constexpr = 1):
    """x with 0 in its padding features."""
    if x.shape[AXIS] > WIDTH:
        real = tl.arange(0, x.shape[AXIS]) < WIDTH
        x = tl.where(tl.expand_dims(real, 1 - AXIS), x, 0.0)
    return x


@triton.jit
def feature_mean(x, WIDTH: tl.constexpr, AXIS: tl.constexpr = 1):
    """Mean over the features of each token, kept as an axis of 1; padding features must hold 0."""
    return tl.expand_dims(tl.sum(x, axis=AXIS) * (1.0 / WIDTH), AXIS)


@triton.jit
def normalise(z, eps, WIDTH: tl.constexpr, AXIS: tl.constexpr = 1):
    """z with mean 0 and variance 1 for each token, and 1 / deviation."""
    centred = without_padding(z - feature_mean(z, WIDTH, AXIS), WIDTH, AXIS)
    rstd = tl.rsqrt(feature_mean(centred * centred, WIDTH, AXIS) + eps)
    return centred * rstd, rstd


@triton.jit
def normalise_backward(dn, n, rstd, WIDTH: tl.constexpr, AXIS: tl.constexpr = 1):
    """Gradient at z of the n and rstd that `normalise` gave, from the gradient at n.

    A symmetric matrix for each token, and exact with eps: the mean of n squared is not quite 1.
    """
    dz = dn - feature_mean(dn, WIDTH, AXIS) - n * feature_mean(dn * n, WIDTH, AXIS)
    return without_padding(dz * rstd, WIDTH, AXIS)


@triton.jit
def loss_gradient(z, target, weight, bias, eps, WIDTH: tl.constexpr, AXIS: tl.constexpr = 1):
    """G, the gradient of `0.5 * ||LN(z) - target||^2` at z; weight and bias broadcast over tokens.

    Returns G, and n, rstd and the error `LN(z) - target` for `loss_gradient_backward`.
    """
    n, rstd = normalise(z, eps, WIDTH, AXIS)
    error = n * weight + bias - target
    return normalise_backward(error * weight, n, rstd, WIDTH, AXIS), n, rstd, error


@triton.jit
def loss_gradient_backward(
    dG, G, n, rstd, error, weight, WIDTH: tl.constexpr, AXIS: tl.constexpr = 1
):
    """Gradients of `sum(dG * G)`, the loss gradient's own gradient.

    Returns the gradients at z and target, and those at weight and bias of each token.
    G depends on z through u = error * weight, through n in the projection and through rstd.
    """
    du = normalise_backward(dG, n, rstd, WIDTH, AXIS)
    u = error * weight
    derror = du * weight
    through_n = u * feature_mean(dG * n, WIDTH, AXIS) + dG * feature_mean(u * n, WIDTH, AXIS)
    dn = derror * weight - rstd * through_n
    dz = normalise_backward(dn, n, rstd, WIDTH, AXIS)
    dz -= rstd * n * feature_mean(dG * G, WIDTH, AXIS)
    return dz, -derror, du * (error + n * weight), derror


@triton.jit
def gelu(x):
    """GELU in its tanh form: x * sigmoid(2 * sqrt(2 / pi) * (x + 0.044715 x^3))."""
    return x * _gelu_gate(x, x * x)


@triton.jit
def gelu_derivatives(x):
    """Value, first and second derivative of `gelu`."""
    square = x * x
    gate = _gelu_gate(x, square)
    slope = 1.5957691216057308 + 0.21406444881780076 * square  # of what the sigmoid is taken of
    curvature = 0.4281288976356015 * x
    gate_slope = gate * (1.0 - gate)
    first = gate + x * gate_slope * slope
    second = gate_slope * (2.0 * slope + x * ((1.0 - 2.0 * gate) * slope * slope + curvature))
    return x * gate, first, second


@triton.jit
def _gelu_gate(x, square):
    """The sigmoid by powers of two, which cards have: log2(e) is in the constants."""
    return 1.0 / (1.0 + tl.exp2(x * (-2.302208198144325 - 0.1029432395800235 * square)))
