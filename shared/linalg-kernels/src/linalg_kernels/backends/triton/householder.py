"""Products of Householder reflections, one after the other on columns that stay on chip."""

import triton
import triton.language as tl

from linalg_kernels.backends.triton.tile import div, matrix_index, ones, power_of_two_below


@triton.jit(do_not_specialize=["n", "k", "m", "first"])
def householder_kernel(
    V, X, out, n, k, m, first,
    N: tl.constexpr, COLUMNS: tl.constexpr, ADJOINT: tl.constexpr,
):  # fmt: skip
    """H_1 ... H_k X, or with ADJOINT H_k ... H_1 X, for V (batch, n, k) and X (batch, n, m)."""
    index = matrix_index(first)
    row = tl.arange(0, N)
    col = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = (row[:, None] < n) & (col[None, :] < m)
    place = index * n * m + row[:, None].to(tl.int64) * m + col[None, :]
    Y = tl.load(X + place, mask=inside, other=0.0)
    for step in range(k):
        j = step if ADJOINT else k - 1 - step
        v = tl.load(V + index * n * k + row.to(tl.int64) * k + j, mask=row < n, other=0.0)
        # The direction does not depend on the scale, which the squares might not survive.
        v = v * power_of_two_below(tl.max(tl.abs(v), 0))
        square = tl.sum(v * v, 0)
        zero = square == 0
        beta = tl.where(zero, 0.0, div(ones(square) * 2.0, tl.where(zero, 1.0, square)))
        along = tl.sum(v[:, None] * Y, 0)
        Y = Y - (v * beta)[:, None] * along[None, :]
    tl.store(out + place, Y, mask=inside)
