"""Eigenvalues and eigenvectors by parallel two-sided Jacobi rotations.

A sweep of N - 1 rounds turns every pair of rows once. Round r turns the pairs (i, i xor r), which
for N a power of two meet each other exactly once, and whose partner is found without a table.
Each rotation leaves the two diagonal entries in ascending order: with the smaller of the two
angles alone, as usual, parallel rounds converge only linearly where eigenvalues are repeated and
their places on the diagonal are not adjacent (40 sweeps against 11, n = 32 in float64). A program
stops when the off-diagonal norm is within rounding of the norm.
"""

import triton
import triton.language as tl

from linalg_kernels.backends.triton.tile import (
    diagonal,
    div,
    identity,
    largest,
    load_symmetric,
    matrix_index,
    ones,
    power_of_two_below,
)

MAX_SWEEPS = tl.constexpr(40)


@triton.jit
def _rotations(d, o, partner, n, N: tl.constexpr):
    """The diagonal after the round, and own, other with col_j <- own_j col_j + other_j col_partner.

    d is the diagonal and o_j the entry between j and its partner.
    """
    j = tl.arange(0, N)
    first = j < partner
    idle = o == 0
    gap = tl.gather(d, partner, 0) - d
    double = tl.where(idle, 1.0, 2.0 * o)
    one = ones(d)
    # t is the root of smaller modulus of t^2 + 2 theta t = 1, theta = gap / double. Where theta^2
    # overflows, t is far below rounding and comes out as 0.
    if d.dtype == tl.float64:
        theta = gap / double
        t = one / (tl.abs(theta) + tl.sqrt(1.0 + theta * theta))
        t = tl.where(idle, 0.0, tl.where((theta > 0) | ((theta == 0) & first), t, -t))
        c = one / tl.sqrt(1.0 + t * t)
    else:
        # Triton's own division and square root of float32 are not rounded correctly.
        theta = tl.div_rn(gap, double)
        t = tl.div_rn(one, tl.abs(theta) + tl.sqrt_rn(1.0 + theta * theta))
        t = tl.where(idle, 0.0, tl.where((theta > 0) | ((theta == 0) & first), t, -t))
        c = tl.div_rn(one, tl.sqrt_rn(1.0 + t * t))
    s = t * c
    d = d - t * o
    d_partner = tl.gather(d, partner, 0)
    swap = tl.where(first, d > d_partner, d_partner > d)
    swap = swap & (tl.maximum(j, partner) < n)
    return tl.where(swap, d_partner, d), tl.where(swap, s, c), tl.where(swap, c, -s)


@triton.jit
def jacobi(A, n, N: tl.constexpr, ROUNDS: tl.constexpr, VECTORS: tl.constexpr):
    """Eigenvalues d of finite symmetric A, eigenvectors in columns, 1 if it did not converge.

    ROUNDS is the smallest power of two that is >= n, less 1. Without VECTORS the latter are I.
    """
    j = tl.arange(0, N)
    row, col = j[:, None], j[None, :]
    scale = power_of_two_below(largest(A))
    A = A * scale
    V = identity(A, N)
    d = diagonal(A, N)
    A = tl.where(row == col, 0.0, A)
    off = tl.sum(tl.sum(A * A, 1), 0)
    norm = off + tl.sum(d * d, 0)
    bound = norm * (1.2e-32 if A.dtype == tl.float64 else 3.5e-15)
    sweep = 0
    while (off > bound) & (sweep < MAX_SWEEPS):
        for r in range(1, ROUNDS + 1):
            partner = j ^ r
            pair = row == partner[None, :]
            o = tl.sum(tl.where(pair, A, 0.0), 0)
            # One number for both partners, or their rotations would not be each other's inverse.
            o = (o + tl.gather(o, partner, 0)) * 0.5
            d, own, other = _rotations(d, o, partner, n, N)
            columns = tl.broadcast_to(partner[None, :], (N, N))
            if VECTORS:
                V = own[None, :] * V + other[None, :] * tl.gather(V, columns, 1)
            # J^T A J by its symmetry: the columns of A, then those of the transpose.
            A = own[None, :] * A + other[None, :] * tl.gather(A, columns, 1)
            A = tl.trans(A)
            A = own[None, :] * A + other[None, :] * tl.gather(A, columns, 1)
            A = tl.where(pair, 0.0, A)
        A = tl.where(row == col, 0.0, A)
        off = tl.sum(tl.sum(A * A, 1), 0)
        sweep += 1
    return div(d, tl.where(d == d, scale, scale)), V, tl.where(off > bound, 1, 0)


@triton.jit
def ascending(d, n, good, N: tl.constexpr):
    """The place of each of the n eigenvalues in ascending order; as it stands if not `good`."""
    i = tl.arange(0, N)
    mine, other = d[:, None], d[None, :]
    earlier = (other < mine) | ((other == mine) & (i[None, :] < i[:, None]))
    rank = tl.sum(tl.where(earlier & (i[None, :] < n), 1, 0), 1)
    return tl.where(good, rank, i)


@triton.jit(do_not_specialize=["n", "first"])
def eigh_kernel(
    A, w, V, found_ptr, n, first, tolerance,
    N: tl.constexpr, ROUNDS: tl.constexpr, SYMMETRIZE: tl.constexpr, VECTORS: tl.constexpr,
):  # fmt: skip
    """w ascending (batch, n), V (batch, n, n) with eigenvectors in columns, and what was found."""
    index = matrix_index(first)
    H, found = load_symmetric(A, index, n, tolerance, N, SYMMETRIZE)
    d, U, failed = jacobi(H, n, N, ROUNDS, VECTORS)
    found = found | (failed * 2)
    bad = (found & 3) != 0
    i = tl.arange(0, N)
    place = ascending(d, n, bad == 0, N)
    tl.store(w + index * n + place, tl.where(bad, float("nan"), d), mask=i < n)
    if VECTORS:
        row, col = i[:, None], i[None, :]
        inside = (row < n) & (col < n)
        U = tl.where(bad, float("nan"), U)
        tl.store(V + index * n * n + row * n + place[None, :], U, mask=inside)
    tl.store(found_ptr + index, found)
