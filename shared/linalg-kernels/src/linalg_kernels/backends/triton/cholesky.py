"""Cholesky factors and their adjoint."""

import triton
import triton.language as tl

from linalg_kernels.backends.triton.tile import (
    div,
    entry,
    load_matrix,
    load_symmetric,
    load_transposed,
    matrix_index,
    product,
    row_of,
    solve_lower_transposed,
    sqrt,
    store_matrix,
    symmetric_part,
)


@triton.jit
def factor(A, n, N: tl.constexpr):
    """L with L L^T = A, and 0 or the order of the first leading minor that is not positive."""
    i = tl.arange(0, N)
    L = A * 0.0
    info = tl.full((), 0, tl.int32)
    for k in range(n):
        row = row_of(A, k, N)
        pivot = entry(row, k, N)
        info = tl.where((info == 0) & ((pivot > 0) == 0), k + 1, info)
        root = sqrt(pivot)
        column = tl.where(i > k, div(row, root), tl.where(i == k, root, 0.0))
        L = tl.where(i[None, :] == k, column[:, None], L)
        A = A - column[:, None] * column[None, :]
    return L, info


@triton.jit(do_not_specialize=["n", "first"])
def cholesky_kernel(
    A, L_ptr, info_ptr, found_ptr, n, first, tolerance,
    N: tl.constexpr, SYMMETRIZE: tl.constexpr,
):  # fmt: skip
    """L, NaN where there is none; info is 0, the order of a minor, or n + 1 if not finite."""
    index = matrix_index(first)
    H, found = load_symmetric(A, index, n, tolerance, N, SYMMETRIZE)
    L, info = factor(H, n, N)
    info = tl.where((found & 1) != 0, n + 1, info)
    found = tl.where((info > 0) & (info <= n), found | 4, found)
    store_matrix(L_ptr, index, tl.where(info != 0, float("nan"), L), n, N)
    tl.store(info_ptr + index, info)
    tl.store(found_ptr + index, found)


@triton.jit(do_not_specialize=["n", "first"])
def cholesky_vjp_kernel(L_ptr, G_ptr, out, n, first, N: tl.constexpr):
    """sym(L^-T Φ(L^T G) L^-1), the adjoint of A -> L; only the lower triangle of G counts."""
    index = matrix_index(first)
    i = tl.arange(0, N)
    row, col = i[:, None], i[None, :]
    L = load_matrix(L_ptr, index, n, N)
    G = tl.where(row >= col, load_matrix(G_ptr, index, n, N), 0.0)
    M = product(load_transposed(L_ptr, index, n, N), G)
    M = tl.where(row > col, M, tl.where(row == col, 0.5 * M, 0.0))
    M = solve_lower_transposed(L, M, n, N)
    M = solve_lower_transposed(L, tl.trans(M), n, N)
    store_matrix(out, index, symmetric_part(M), n, N)
