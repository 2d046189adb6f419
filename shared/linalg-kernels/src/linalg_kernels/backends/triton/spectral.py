"""Functions of symmetric matrices and their Daleckii-Krein derivative, fused."""

import triton
import triton.language as tl

from linalg_kernels.backends.triton.functions import (
    divided_difference,
    floor_difference,
    prepare,
    value,
)
from linalg_kernels.backends.triton.jacobi import jacobi
from linalg_kernels.backends.triton.tile import (
    load_matrix,
    load_symmetric,
    load_vector,
    matrix_index,
    product,
    reload_with_transpose,
    store_matrix,
    store_vector,
    symmetric_part,
)


@triton.jit
def _exponent(table, index, like, KIND: tl.constexpr):
    """The exponent of this matrix, for a power."""
    if KIND == 6:
        return tl.load(table + index)
    else:
        return tl.sum(like, 0) * 0.0


@triton.jit
def _raised(w, floor_ptr, FLOORED: tl.constexpr):
    if FLOORED:
        return tl.where(w == w, tl.maximum(w, tl.load(floor_ptr)), w)
    else:
        return w


@triton.jit
def _values(
    w, table, index, floor_ptr, n, N: tl.constexpr, KIND: tl.constexpr, FLOORED: tl.constexpr
):
    """f(w), 0 beyond n."""
    if KIND == 7:
        f = load_vector(table, index, n, N)
    else:
        f = value(_raised(w, floor_ptr, FLOORED), _exponent(table, index, w, KIND), KIND)
    return tl.where(tl.arange(0, N) < n, f, 0.0)


@triton.jit(do_not_specialize=["n", "first"])
def spectral_kernel(
    A, table, floor_ptr, F, w_ptr, V_ptr, found_ptr, n, first, tolerance,
    N: tl.constexpr, ROUNDS: tl.constexpr, SYMMETRIZE: tl.constexpr,
    KIND: tl.constexpr, FLOORED: tl.constexpr,
):  # fmt: skip
    """F = V f(w) V^T, w in no order, V, and what was found in A."""
    index = matrix_index(first)
    H, found = load_symmetric(A, index, n, tolerance, N, SYMMETRIZE)
    w, V, failed = jacobi(H, n, N, ROUNDS, True)
    found = found | (failed * 2)
    f = _values(w, table, index, floor_ptr, n, N, KIND, FLOORED)
    bad = (found & 3) != 0
    store_vector(w_ptr, index, tl.where(bad, float("nan"), w), n, N)
    store_matrix(V_ptr, index, tl.where(bad, float("nan"), V), n, N)
    X = symmetric_part(product(V * f[None, :], tl.trans(V)))
    store_matrix(F, index, tl.where(bad, float("nan"), X), n, N)
    tl.store(found_ptr + index, found)


@triton.jit(do_not_specialize=["n", "first"])
def evaluate_kernel(
    w_ptr, V_ptr, table, floor_ptr, F, n, first,
    N: tl.constexpr, KIND: tl.constexpr, FLOORED: tl.constexpr,
):  # fmt: skip
    """F = V f(w) V^T from an eigensystem."""
    index = matrix_index(first)
    w = load_vector(w_ptr, index, n, N)
    V = load_matrix(V_ptr, index, n, N)
    f = _values(w, table, index, floor_ptr, n, N, KIND, FLOORED)
    store_matrix(F, index, symmetric_part(product(V * f[None, :], tl.trans(V))), n, N)


@triton.jit(do_not_specialize=["n", "first"])
def frechet_kernel(
    w_ptr, V_ptr, E_ptr, table, floor_ptr, D, n, first,
    N: tl.constexpr, KIND: tl.constexpr, FLOORED: tl.constexpr,
):  # fmt: skip
    """D = V (f[w_i, w_j] ∘ V^T sym(E) V) V^T."""
    index = matrix_index(first)
    i = tl.arange(0, N)
    w = load_vector(w_ptr, index, n, N)
    E = symmetric_part(load_matrix(E_ptr, index, n, N))
    V, Vt = reload_with_transpose(V_ptr, index, n, N)
    inner = product(product(Vt, E), V)
    if KIND == 7:
        K = load_matrix(table, index, n, N)
    else:
        p = _exponent(table, index, w, KIND)
        v = _raised(w, floor_ptr, FLOORED)
        x, y, z, u = prepare(v, p, KIND)
        K = divided_difference(
            v[:, None], v[None, :], x[:, None], x[None, :], y[:, None], y[None, :],
            z[:, None], z[None, :], u[:, None], u[None, :], p, KIND,
        )  # fmt: skip
        if FLOORED:
            floor = tl.load(floor_ptr)
            above = tl.maximum(w[:, None], w[None, :]) > floor
            # f may have an infinite slope at the floor, as the square root has at 0.
            K = tl.where(above, K * floor_difference(w[:, None], w[None, :], floor), 0.0)
    K = tl.where((i[:, None] < n) & (i[None, :] < n), K, 0.0)
    inner = K * inner
    V, Vt = reload_with_transpose(V_ptr, index, n, N)
    X = product(product(V, inner), Vt)
    store_matrix(D, index, symmetric_part(X), n, N)
