"""The leading singular triple of a tall matrix, and what is left without it.

The Gram matrix and its powers never leave the chip; see `subspace.leading_eigenvector` for the
iteration and why no start is unfavourable to it.
"""

import triton
import triton.language as tl

from linalg_kernels.backends.triton.tile import (
    column_of,
    diagonal,
    div,
    matrix_index,
    ones,
    power_of_two_below,
    product,
    sqrt,
    symmetric_part,
)


@triton.jit
def _trace_one(P, N: tl.constexpr):
    """P / tr P, and the first unit vector's projector for 0."""
    i = tl.arange(0, N)
    trace = tl.sum(diagonal(P, N), 0)
    first = tl.where((i[:, None] == 0) & (i[None, :] == 0), 1.0, 0.0).to(P.dtype)
    inverse = div(ones(trace), tl.where(trace == 0, 1.0, trace))
    return tl.where(trace == 0, first, P * inverse)


@triton.jit
def _largest_column(P, N: tl.constexpr):
    """The normalised column of the largest diagonal entry."""
    x = column_of(P, tl.argmax(diagonal(P, N), 0), N)
    return div(x, sqrt(tl.sum(x * x, 0)) + x * 0.0)


@triton.jit
def _leading(G, iters, tolerance, N: tl.constexpr):
    """The unit eigenvector of the largest eigenvalue of positive semidefinite G."""
    P = _trace_one(G, N)
    x = _largest_column(P, N)
    step = 0
    unfinished = iters > 0
    while unfinished:
        P = _trace_one(symmetric_part(product(P, P)), N)
        x = _largest_column(P, N)
        Gx = tl.sum(G * x[:, None], 0)
        value = tl.sum(x * Gx, 0)
        rest = Gx - value * x
        residual = sqrt(tl.sum(rest * rest, 0))
        share = tl.sum(tl.sum(P * x[:, None], 0) * x, 0)
        step += 1
        unfinished = ((residual > tolerance * value) | (share <= 0.5)) & (step < iters)
    return x


@triton.jit(do_not_specialize=["m", "n", "iters", "first"])
def rank_one_kernel(
    X, u_ptr, s_ptr, v_ptr, out, m, n, row_stride, col_stride, iters, first, tolerance,
    ROWS: tl.constexpr, N: tl.constexpr, REMOVE: tl.constexpr,
):  # fmt: skip
    """u, s, v of X (batch, m, n) with n <= N; with REMOVE instead X - s u v^T.

    Strides are those within a matrix, so that a wide matrix is read as its transpose; `out` has
    the same.
    """
    index = matrix_index(first)
    col = tl.arange(0, N)
    base = index * m * n
    G = tl.full((N, N), 0.0, X.dtype.element_ty)
    size = tl.full((), 0.0, X.dtype.element_ty)
    scale = power_of_two_below(size)
    bad = tl.full((), 0, tl.int32)
    for start in range(0, m, ROWS):
        row = start + tl.arange(0, ROWS)
        inside = (row[:, None] < m) & (col[None, :] < n)
        place = row[:, None].to(tl.int64) * row_stride + col[None, :].to(tl.int64) * col_stride
        Y = tl.load(X + base + place, mask=inside, other=0.0)
        finite = Y - Y == 0
        bad += tl.sum(tl.sum(tl.where(finite, 0, 1), 1), 0)
        Y = tl.where(finite, Y, 0.0)
        # Units of the largest entry so far: squares of others would leave the range.
        size = tl.maximum(size, tl.max(tl.max(tl.abs(Y), 1), 0))
        unit = power_of_two_below(size)
        change = div(unit, scale)
        scale = unit
        G = G * (change * change) + product(tl.trans(Y * unit), Y * unit)
    v = _leading(G, iters, tolerance, N)
    v = tl.where(bad > 0, float("nan"), v)
    square = tl.full((), 0.0, X.dtype.element_ty)
    for start in range(0, m, ROWS):
        row = start + tl.arange(0, ROWS)
        inside = (row[:, None] < m) & (col[None, :] < n)
        place = row[:, None].to(tl.int64) * row_stride + col[None, :].to(tl.int64) * col_stride
        Y = tl.load(X + base + place, mask=inside, other=0.0)
        y = tl.sum((Y * scale) * v[None, :], 1)
        if REMOVE:
            y = div(y, y * 0.0 + scale)
            tl.store(out + base + place, Y - y[:, None] * v[None, :], mask=inside)
        else:
            square += tl.sum(y * y, 0)
            tl.store(u_ptr + index * m + row, y, mask=row < m)
    if REMOVE == 0:
        norm = sqrt(square)
        tl.store(s_ptr + index, div(norm, scale))
        tl.store(v_ptr + index * n + col, v, mask=col < n)
        for start in range(0, m, ROWS):
            row = start + tl.arange(0, ROWS)
            y = tl.load(u_ptr + index * m + row, mask=row < m, other=0.0)
            first_unit = tl.where(row == 0, 1.0, 0.0).to(y.dtype)
            zero = norm == 0
            y = tl.where(zero, first_unit, div(y, tl.where(zero, 1.0, norm) + y * 0.0))
            tl.store(u_ptr + index * m + row, y, mask=row < m)
