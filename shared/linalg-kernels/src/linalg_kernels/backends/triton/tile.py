"""Matrices of order n <= N as N x N tiles in registers: reading, writing, products, solves.

N is a power of two. Whatever a kernel reads beyond n is 0, and it writes nothing there. Offsets
are of 64 bits, so a batch may hold more than 2^31 numbers. Functions here are inlined into the
kernels; they run on tensors of the CPU when Triton interprets.
"""

import triton
import triton.language as tl

# What may be found in a matrix: the bits of `backends.native`.
NOT_FINITE = tl.constexpr(1)
NOT_CONVERGED = tl.constexpr(2)
NOT_POSITIVE = tl.constexpr(4)
ASYMMETRIC = tl.constexpr(8)


@triton.jit
def div(x, y):
    """x / y, rounded correctly: Triton's own division of float32 is not."""
    if x.dtype == tl.float64:
        return x / y
    else:
        return tl.div_rn(x, y)


@triton.jit
def sqrt(x):
    """The square root, rounded correctly."""
    if x.dtype == tl.float64:
        return tl.sqrt(x)
    else:
        return tl.sqrt_rn(x)


@triton.jit
def matrix_index(first):
    """Which matrix of the batch this program has, of 64 bits; launches start at `first`."""
    return tl.program_id(0).to(tl.int64) + first


@triton.jit
def load_matrix(A, index, n, N: tl.constexpr):
    """Matrix number `index` of A (batch, n, n)."""
    i = tl.arange(0, N)
    row, col = i[:, None], i[None, :]
    inside = (row < n) & (col < n)
    return tl.load(A + index * n * n + row * n + col, mask=inside, other=0.0)


@triton.jit
def load_transposed(A, index, n, N: tl.constexpr):
    """The transpose of matrix number `index`."""
    i = tl.arange(0, N)
    row, col = i[:, None], i[None, :]
    inside = (row < n) & (col < n)
    return tl.load(A + index * n * n + col * n + row, mask=inside, other=0.0)


@triton.jit
def reload_with_transpose(A, index, n, N: tl.constexpr):
    """A matrix and its transpose, read anew.

    Factors that several products share would be kept in registers from the first to the last.
    """
    tl.debug_barrier()
    return load_matrix(A, index, n, N), load_transposed(A, index, n, N)


@triton.jit
def store_matrix(A, index, X, n, N: tl.constexpr):
    i = tl.arange(0, N)
    row, col = i[:, None], i[None, :]
    inside = (row < n) & (col < n)
    tl.store(A + index * n * n + row * n + col, X, mask=inside)


@triton.jit
def load_vector(v, index, n, N: tl.constexpr):
    """Vector number `index` of v (batch, n)."""
    i = tl.arange(0, N)
    return tl.load(v + index * n + i, mask=i < n, other=0.0)


@triton.jit
def store_vector(v, index, x, n, N: tl.constexpr):
    i = tl.arange(0, N)
    tl.store(v + index * n + i, x, mask=i < n)


@triton.jit
def load_symmetric(A, index, n, tolerance, N: tl.constexpr, SYMMETRIZE: tl.constexpr):
    """(A + A^T)/2, or what the lower triangle stands for, and the bits of what was found in it.

    A matrix that is not finite comes as 0. `tolerance` is the asymmetry, relative to the largest
    entry, beyond which a matrix is said to be asymmetric.
    """
    i = tl.arange(0, N)
    row, col = i[:, None], i[None, :]
    inside = (row < n) & (col < n)
    base = A + index * n * n
    found = tl.full((), 0, tl.int32)
    if SYMMETRIZE:
        X = tl.load(base + row * n + col, mask=inside, other=0.0)
        Y = tl.load(base + col * n + row, mask=inside, other=0.0)
        H = (X + Y) * 0.5
        skew = tl.max(tl.max(tl.abs(X - Y), 1), 0)
        size = tl.max(tl.max(tl.abs(X), 1), 0)
        found = tl.where(skew > tolerance * size, found | 8, found)
    else:
        low = tl.maximum(row, col) * n + tl.minimum(row, col)
        H = tl.load(base + low, mask=inside, other=0.0)
    bad = count_not_finite(H) > 0
    return tl.where(bad, 0.0, H), tl.where(bad, found | 1, found)


@triton.jit
def count_not_finite(X):
    """How many entries of a tile are NaN or infinite."""
    return tl.sum(tl.sum(tl.where(X - X == 0, 0, 1), 1), 0)


@triton.jit
def ones(like):
    """1 in the shape and dtype of `like`, whatever that holds."""
    return tl.where(like == like, 1.0, 1.0).to(like.dtype)


@triton.jit
def identity(like, N: tl.constexpr):
    i = tl.arange(0, N)
    return tl.where(i[:, None] == i[None, :], 1.0, 0.0).to(like.dtype)


@triton.jit
def diagonal(X, N: tl.constexpr):
    i = tl.arange(0, N)
    return tl.sum(tl.where(i[:, None] == i[None, :], X, 0.0), 0)


@triton.jit
def product(A, B):
    """A B in full precision."""
    return tl.dot(A, B, input_precision="ieee", out_dtype=A.dtype)


@triton.jit
def symmetric_part(X):
    """(X + X^T)/2, symmetric to the last bit."""
    return (X + tl.trans(X)) * 0.5


@triton.jit
def power_of_two_below(x):
    """2^-k with 2^k <= x < 2^(k+1), for which x 2^-k lies in [1, 2); k is kept in range."""
    if x.dtype == tl.float64:
        biased = tl.minimum(tl.maximum((x.to(tl.int64, bitcast=True) >> 52) & 2047, 1), 2045)
        return ((2046 - biased) << 52).to(tl.float64, bitcast=True)
    else:
        biased = tl.minimum(tl.maximum((x.to(tl.int32, bitcast=True) >> 23) & 255, 1), 253)
        return ((254 - biased) << 23).to(tl.float32, bitcast=True)


@triton.jit
def largest(X):
    """The largest absolute entry of a tile."""
    return tl.max(tl.max(tl.abs(X), 1), 0)


@triton.jit
def row_of(X, k, N: tl.constexpr):
    return tl.sum(tl.where(tl.arange(0, N)[:, None] == k, X, 0.0), 0)


@triton.jit
def column_of(X, k, N: tl.constexpr):
    return tl.sum(tl.where(tl.arange(0, N)[None, :] == k, X, 0.0), 1)


@triton.jit
def entry(x, k, N: tl.constexpr):
    """x_k of a vector."""
    return tl.sum(tl.where(tl.arange(0, N) == k, x, 0.0), 0)


@triton.jit
def solve_lower(L, X, n, N: tl.constexpr):
    """L^-1 X for lower triangular L, by forward substitution."""
    i = tl.arange(0, N)
    for k in range(n):
        column = column_of(L, k, N)
        x = div(row_of(X, k, N), entry(column, k, N))
        rest = tl.where(i > k, column, 0.0)
        X = tl.where(i[:, None] == k, x[None, :], X - rest[:, None] * x[None, :])
    return X


@triton.jit
def solve_lower_transposed(L, X, n, N: tl.constexpr):
    """L^-T X for lower triangular L, by back substitution."""
    i = tl.arange(0, N)
    for step in range(n):
        k = n - 1 - step
        row = row_of(L, k, N)
        x = div(row_of(X, k, N), entry(row, k, N))
        rest = tl.where(i < k, row, 0.0)
        X = tl.where(i[:, None] == k, x[None, :], X - rest[:, None] * x[None, :])
    return X
