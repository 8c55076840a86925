"""Device functions that the Triton kernels of both TTT operations share.

Shape legend: S tokens of one mini-batch, K head width, F any width; blocks are padded to powers of
two. Padding rows and columns are loaded as 0 and never stored. Importing this imports triton, so
only modules of a Triton backend do.

Tiles are fp32 unless a line says otherwise. Addresses are int64: a minute of video has more than
2^31 elements in one tensor.
"""

import triton
import triton.language as tl


@triton.jit
def mini_batch_rows(
    index, length, MINI_BATCH: tl.constexpr, BLOCK: tl.constexpr, REVERSE: tl.constexpr
):
    """Which tokens the mini-batch with this index holds, in the order of the walk.

    Returns the rows `[BLOCK]` (int64) in the tensors and whether each exists. A reversed walk
    counts from the last token on.
    """
    offsets = tl.arange(0, BLOCK).to(tl.int64)
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
def without_padding(x, WIDTH: tl.constexpr):
    """x with 0 in its padding columns."""
    if x.shape[1] > WIDTH:
        x = tl.where((tl.arange(0, x.shape[1]) < WIDTH)[None, :], x, 0.0)
    return x


@triton.jit
def row_mean(x, WIDTH: tl.constexpr):
    """Mean of each row, `[S, 1]`; padding columns must hold 0."""
    return (tl.sum(x, axis=1) * (1.0 / WIDTH))[:, None]


@triton.jit
def normalise(z, eps, WIDTH: tl.constexpr):
    """z with mean 0 and variance 1 in each row, and 1 / deviation `[S, 1]`."""
    centred = without_padding(z - row_mean(z, WIDTH), WIDTH)
    rstd = tl.rsqrt(row_mean(centred * centred, WIDTH) + eps)
    return centred * rstd, rstd


@triton.jit
def normalise_backward(dn, n, rstd, WIDTH: tl.constexpr):
    """Gradient at z of the n and rstd that `normalise` gave, from the gradient at n.

    A symmetric matrix for each row, and exact with eps: the mean of n squared is not quite 1.
    """
    dz = dn - row_mean(dn, WIDTH) - n * row_mean(dn * n, WIDTH)
    return without_padding(dz * rstd, WIDTH)


@triton.jit
def loss_gradient(z, target, weight, bias, eps, WIDTH: tl.constexpr):
    """G, the gradient of `0.5 * ||LN(z) - target||^2` at z; weight and bias are `[1, K]`.

    Returns G, and n, rstd and the error `LN(z) - target` for `loss_gradient_backward`.
    """
    n, rstd = normalise(z, eps, WIDTH)
    error = n * weight + bias - target
    return normalise_backward(error * weight, n, rstd, WIDTH), n, rstd, error


@triton.jit
def loss_gradient_backward(dG, G, n, rstd, error, weight, WIDTH: tl.constexpr):
    """Gradients of `sum(dG * G)`, the loss gradient's own gradient.

    Returns the gradients at z and target, and those at weight and bias of each row.
    G depends on z through u = error * weight, through n in the projection and through rstd.
    """
    du = normalise_backward(dG, n, rstd, WIDTH)
    u = error * weight
    derror = du * weight
    dn = derror * weight - rstd * (u * row_mean(dG * n, WIDTH) + dG * row_mean(u * n, WIDTH))
    dz = normalise_backward(dn, n, rstd, WIDTH) - rstd * n * row_mean(dG * G, WIDTH)
    return dz, -derror, du * (error + n * weight), derror


@triton.jit
def gelu(x):
    """GELU in its tanh form: x * sigmoid(2 * sqrt(2 / pi) * (x + 0.044715 x^3))."""
    return x * tl.sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x))


@triton.jit
def gelu_derivatives(x):
    """Value, first and second derivative of `gelu`."""
    square = x * x
    gate = tl.sigmoid(1.5957691216057308 * x * (1.0 + 0.044715 * square))
    slope = 1.5957691216057308 * (1.0 + 0.134145 * square)  # of what the sigmoid is taken of
    curvature = 0.4281288976356015 * x
    gate_slope = gate * (1.0 - gate)
    first = gate + x * gate_slope * slope
    second = gate_slope * (2.0 * slope + x * ((1.0 - 2.0 * gate) * slope * slope + curvature))
    return x * gate, first, second
