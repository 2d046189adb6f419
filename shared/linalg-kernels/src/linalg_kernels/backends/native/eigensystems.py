"""Eigensystems of symmetric matrices, their functions, and the derivatives of these."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from linalg_kernels.backends.native import library
from linalg_kernels.backends.native.library import Info


@dataclass(frozen=True, slots=True)
class Function:
    """A function of eigenvalues that the library knows, or a table of its values.

    `table` is the exponent of every matrix (*batch) for POWER. For TABLE it is f(w)
    (*batch, n) where values are asked for and f[w_i, w_j] (*batch, n, n) for derivatives.
    Eigenvalues below `floor` are raised to it, with derivative 0.
    """

    kind: int
    table: Tensor | None = None
    floor: float = -math.inf


IDENTITY, LOG, EXP, SQRT, INV_SQRT, INVERSE, POWER, TABLE = range(8)


def _spectral(
    A: Tensor,
    L: Tensor | None,
    f: Function | None,
    symmetrize: bool,
    vectors: bool,
    tolerance: float,
    info: Tensor | None,
    multiply: bool = False,
    accurate: bool = False,
) -> tuple[Tensor, Tensor | None, Tensor | None, int]:
    """w, V, F and what was found, of A, of L^-1 A L^-T, or with `multiply` of L A L^T.

    With `f` eigenvalues are not sorted.
    """
    A = A.contiguous()
    w = torch.empty(A.shape[:-1], dtype=A.dtype)
    V = torch.empty_like(A) if vectors else None
    F = torch.empty_like(A) if f is not None else None
    if A.numel() == 0:
        return w, V, F, 0
    L, repeat = (None, 1) if L is None else library.repeats(L, tuple(A.shape[:-2]))
    kind, table, floor = (IDENTITY, None, -math.inf) if f is None else (f.kind, f.table, f.floor)
    table = None if table is None else table.contiguous()
    found = library.run(
        *("lk_spectral", A, symmetrize, A.data_ptr(), library.address(L), repeat, multiply),
        *(kind, library.address(table), floor, f is None, accurate, 0),
        *(w.data_ptr(), library.address(V), library.address(F), None, library.address(info)),
        tolerance,
    )
    return w, V, F, found


def inspect(A: Float[Tensor, "*batch n n"], tolerance: float) -> int:
    """What is found in A, which is not empty: NOT_FINITE, ASYMMETRIC."""
    A = A.contiguous()
    return library.run("lk_inspect", A, A.data_ptr(), tolerance)


def eigh(
    A: Float[Tensor, "*batch n n"],
    *,
    symmetrize: bool = True,
    tolerance: float = math.inf,
    info: Info = None,
) -> tuple[Float[Tensor, "*batch n"], Float[Tensor, "*batch n n"], int]:
    """Ascending eigenvalues, eigenvectors in columns, and what was found.

    info is 0, -1 for a matrix with NaN or Inf (its results are NaN), or 1 + the index of an
    eigenvalue that did not converge. `tolerance` is the relative asymmetry that is told.
    With `symmetrize` (A + A^T)/2 is taken, else the lower triangle.
    """
    w, V, _, found = _spectral(A, None, None, symmetrize, True, tolerance, info)
    assert V is not None
    return w, V, found


def eigh_positive(
    A: Float[Tensor, "*batch n n"], *, symmetrize: bool = True, tolerance: float = math.inf
) -> tuple[Float[Tensor, "*batch n"], Float[Tensor, "*batch n n"], int]:
    """`eigh` of positive definite A, each eigenvalue to its own relative accuracy.

    By one-sided Jacobi rotations of the Cholesky factor; errors are governed by the condition
    number of A after its diagonal is scaled to 1.
    """
    w, V, _, found = _spectral(A, None, None, symmetrize, True, tolerance, None, accurate=True)
    assert V is not None
    return w, V, found


def eigvalsh(
    A: Float[Tensor, "*batch n n"],
    *,
    L: Float[Tensor, "..."] | None = None,
    symmetrize: bool = True,
    tolerance: float = math.inf,
    info: Info = None,
) -> tuple[Float[Tensor, "*batch n"], int]:
    """Ascending eigenvalues of A, or of L^-1 A L^-T; batch shapes of L and A broadcast."""
    w, _, _, found = _spectral(A, L, None, symmetrize, False, tolerance, info)
    return w, found


def spectral(
    A: Float[Tensor, "*batch n n"],
    f: Function,
    *,
    L: Float[Tensor, "..."] | None = None,
    symmetrize: bool = True,
    tolerance: float = math.inf,
    info: Info = None,
) -> tuple[
    Float[Tensor, "*batch n n"], Float[Tensor, "*batch n"], Float[Tensor, "*batch n n"], int
]:
    """F = V f(w) V^T, w (in no order), V and what was found, of A or of L^-1 A L^-T."""
    w, V, F, found = _spectral(A, L, f, symmetrize, True, tolerance, info)
    assert F is not None
    assert V is not None
    return F, w, V, found


def spectral_value(
    A: Float[Tensor, "*batch n n"],
    f: Function,
    symmetrize: bool,
    tolerance: float,
    positive: bool = False,
    L: Float[Tensor, "..."] | None = None,
    multiply: bool = False,
) -> tuple[Float[Tensor, "*batch n n"], int]:
    """F of `spectral` alone, of A that is not empty, and what was found.

    With `positive` that is NOT_POSITIVE also for an eigenvalue that is not. With L of L^-1 A L^-T,
    or with `multiply` of L A L^T.
    """
    A = A.contiguous()
    F = torch.empty_like(A)
    L, repeat = (None, 1) if L is None else library.repeats(L, tuple(A.shape[:-2]))
    found = library.run(
        *("lk_spectral", A, symmetrize, A.data_ptr(), library.address(L), repeat, multiply),
        *(f.kind, library.address(f.table), f.floor, 0, 0, positive),
        *(None, None, F.data_ptr(), None, None, tolerance),
    )
    return F, found


def spectral_packed(
    A: Float[Tensor, "*batch n n"],
    f: Function,
    symmetrize: bool,
    tolerance: float,
    positive: bool = False,
) -> tuple[Float[Tensor, "*batch n n"], Float[Tensor, "blocks size lanes"], int]:
    """F of `spectral`, V and w packed, and what was found.

    As `spectral_value`, for functions without a table.
    """
    A = A.contiguous()
    n = A.shape[-1]
    batch = A.numel() // (n * n)
    F, packed = torch.empty_like(A), library.new_packed(A, batch, n)
    found = library.call(
        *("lk_spectral", A.dtype, batch, n, symmetrize, A.data_ptr(), None, 1, 0),
        *(f.kind, None, f.floor, 0, 0, positive),
        *(None, None, F.data_ptr(), packed.data_ptr(), None, tolerance),
    )
    return F, packed, found


def frechet_packed(
    packed: Float[Tensor, "blocks size lanes"], E: Float[Tensor, "*batch n n"], f: Function
) -> Float[Tensor, "*batch n n"]:
    """`frechet` of E that is not empty, for functions without a table."""
    E = E.contiguous()
    D = torch.empty_like(E)
    library.run(
        *("lk_frechet", E, 0, None, None, packed.data_ptr(), E.data_ptr()),
        *(f.kind, None, f.floor, D.data_ptr()),
    )
    return D


def spectral_of_congruence(
    C: Float[Tensor, "..."], X: Float[Tensor, "*batch n n"], f: Function
) -> tuple[Float[Tensor, "*batch n n"], Float[Tensor, "*batch n"], int]:
    """f(C sym(X) C^T), the eigenvalues of C sym(X) C^T in no order, and what was found.

    The batch shape of C broadcasts to that of X.
    """
    w, _, F, found = _spectral(X, C, f, True, False, math.inf, None, multiply=True)
    assert F is not None
    return F, w, found


def frechet(
    w: Float[Tensor, "*base n"],
    V: Float[Tensor, "*base n n"],
    E: Float[Tensor, "*batch n n"],
    f: Function,
) -> Float[Tensor, "*batch n n"]:
    """Daleckii-Krein: V (f[w_i, w_j] ∘ V^T sym(E) V) V^T.

    One w (n) and V (n, n), with one exponent or table, may serve the whole batch.
    """
    w, V, E = w.contiguous(), V.contiguous(), E.contiguous()
    D = torch.empty_like(E)
    table = None if f.table is None else f.table.contiguous()
    if E.numel():
        library.run(
            *("lk_frechet", E, V.ndim < E.ndim, w.data_ptr(), V.data_ptr(), None, E.data_ptr()),
            *(f.kind, library.address(table), f.floor, D.data_ptr()),
        )
    return D


def eigh_vjp(
    w: Float[Tensor, "*batch n"],
    V: Float[Tensor, "*batch n n"],
    gw: Float[Tensor, "*batch n"] | None,
    gV: Float[Tensor, "*batch n n"] | None,
) -> Float[Tensor, "*batch n n"]:
    """V (diag gw + sym(V^T gV / (w_j - w_i))) V^T; 0 where w_i, w_j are equal to rounding."""
    w, V = w.contiguous(), V.contiguous()
    gw = None if gw is None else gw.contiguous()
    gV = None if gV is None else gV.contiguous()
    gA = torch.empty_like(V)
    if V.numel():
        pointers = (
            w.data_ptr(),
            V.data_ptr(),
            library.address(gw),
            library.address(gV),
            gA.data_ptr(),
        )
        library.run("lk_eigh_adjoint", V, *pointers)
    return gA


def compose(
    w: Float[Tensor, "*batch n"], V: Float[Tensor, "*batch n n"], f: Function
) -> Float[Tensor, "*batch n n"]:
    """V f(w) V^T, exactly symmetric."""
    w, V = w.contiguous(), V.contiguous()
    F = torch.empty_like(V)
    table = None if f.table is None else f.table.contiguous()
    if V.numel():
        arguments = (
            w.data_ptr(),
            V.data_ptr(),
            f.kind,
            library.address(table),
            f.floor,
            F.data_ptr(),
        )
        library.run("lk_compose", V, *arguments)
    return F
