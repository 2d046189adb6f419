"""Affine-invariant distances: logarithms of the eigenvalues of P^-1 Q, and their adjoint."""

import triton
import triton.language as tl

from linalg_kernels.backends.triton.cholesky import factor
from linalg_kernels.backends.triton.elementary import exp, log
from linalg_kernels.backends.triton.jacobi import jacobi
from linalg_kernels.backends.triton.tile import (
    entry,
    load_symmetric,
    load_vector,
    matrix_index,
    solve_lower,
    solve_lower_transposed,
    store_matrix,
    store_vector,
    symmetric_part,
)


@triton.jit(do_not_specialize=["repeat", "count", "n", "first"])
def pencil_kernel(
    P_ptr, Q_ptr, logs_ptr, U_ptr, found_ptr, repeat, count, n, first, tolerance,
    N: tl.constexpr, ROUNDS: tl.constexpr, VECTORS: tl.constexpr,
):  # fmt: skip
    """log w and the rows u of Q u = w P u, u^T P u = 1, of element b of the batch.

    It has P number b // repeat and Q number b % count, so that one against many is not copied.
    """
    index = matrix_index(first)
    P, found = load_symmetric(P_ptr, index // repeat, n, tolerance, N, True)
    Q, found_Q = load_symmetric(Q_ptr, index % count, n, tolerance, N, True)
    found = found | found_Q
    L, info = factor(P, n, N)
    found = tl.where(info != 0, found | 4, found)
    # A factor that is none must not keep the rotations busy.
    i = tl.arange(0, N)
    L = tl.where(info != 0, tl.where(i[:, None] == i[None, :], 1.0, 0.0).to(L.dtype), L)
    S = solve_lower(L, Q, n, N)
    S = solve_lower(L, tl.trans(S), n, N)
    w, V, failed = jacobi(symmetric_part(S), n, N, ROUNDS, VECTORS)
    found = found | (failed * 2)
    inside = i < n
    positive = tl.sum(tl.where(inside & ((w > 0) == 0), 1, 0), 0) == 0
    found = tl.where(positive, found, found | 4)
    logs = log(tl.where(inside & positive, w, 1.0))
    # Exactly zero where P and Q are equal.
    apart = tl.sum(tl.sum(tl.where(P == Q, 0, 1), 1), 0)
    logs = tl.where(apart == 0, 0.0, logs)
    bad = (found & 7) != 0
    store_vector(logs_ptr, index, tl.where(bad, float("nan"), logs), n, N)
    if VECTORS:
        U = tl.trans(solve_lower_transposed(L, V, n, N))
        store_matrix(U_ptr, index, tl.where(bad, float("nan"), U), n, N)
    tl.store(found_ptr + index, found)


@triton.jit(do_not_specialize=["n", "first"])
def pencil_vjp_kernel(
    weights_ptr, logs_ptr, U_ptr, gP, gQ, n, first,
    N: tl.constexpr, WITH_P: tl.constexpr, WITH_Q: tl.constexpr,
):  # fmt: skip
    """-Σ c_i u_i u_i^T and Σ c_i / w_i u_i u_i^T, for gradients c in the logarithms."""
    index = matrix_index(first)
    i = tl.arange(0, N)
    c = load_vector(weights_ptr, index, n, N)
    c_Q = c * exp(-load_vector(logs_ptr, index, n, N))
    P = tl.full((N, N), 0.0, U_ptr.dtype.element_ty)
    Q = tl.full((N, N), 0.0, U_ptr.dtype.element_ty)
    for k in range(n):
        u = tl.load(U_ptr + (index * n + k) * n + i, mask=i < n, other=0.0)
        outer = u[:, None] * u[None, :]
        P -= entry(c, k, N) * outer
        Q += entry(c_Q, k, N) * outer
    if WITH_P:
        store_matrix(gP, index, P, n, N)
    if WITH_Q:
        store_matrix(gQ, index, Q, n, N)
