"""Cholesky factors, charts of them, and congruences with them."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from linalg_kernels.backends.native import library
from linalg_kernels.backends.native.library import Info

# Functions of the diagonal of a Cholesky factor.
FACTOR, LOG_DIAGONAL, POWER_DIAGONAL = range(3)


def cholesky(
    A: Float[Tensor, "*batch n n"],
    *,
    symmetrize: bool = True,
    tolerance: float = math.inf,
    info: Info = None,
) -> tuple[Float[Tensor, "*batch n n"], int]:
    """L with L L^T = A, and what was found; options as in `eigh`.

    info is 0, or k if the leading minor of order k is not positive definite or not finite; L
    of that matrix is NaN. Equivalent to `torch.linalg.cholesky_ex`.
    """
    A = A.contiguous()
    L = torch.empty_like(A)
    if A.numel() == 0:
        return L, 0
    head = symmetrize, A.data_ptr(), FACTOR, 1.0
    found = library.run(
        "lk_cholesky", A, *head, L.data_ptr(), None, library.address(info), tolerance
    )
    return L, found


def cholesky_chart(
    A: Float[Tensor, "*batch n n"],
    chart: int,
    exponent: float = 1.0,
    *,
    symmetrize: bool = True,
    tolerance: float = math.inf,
) -> tuple[Float[Tensor, "*batch n n"], Float[Tensor, "*batch n n"], int]:
    """X = L but for log l or l^exponent on the diagonal, L, and what was found."""
    A = A.contiguous()
    X, L = torch.empty_like(A), torch.empty_like(A)
    if A.numel() == 0:
        return X, L, 0
    head = symmetrize, A.data_ptr(), chart, exponent
    return X, L, library.run("lk_cholesky", A, *head, L.data_ptr(), X.data_ptr(), None, tolerance)


def cholesky_vjp(
    L: Float[Tensor, "*batch n n"],
    G: Float[Tensor, "*batch n n"],
    chart: int = FACTOR,
    exponent: float = 1.0,
) -> Float[Tensor, "*batch n n"]:
    """Gradient sym(L^-T Φ(L^T G) L^-1) with respect to A of a loss with gradient G in L.

    Φ takes the lower triangle and halves the diagonal; only the lower triangle of G counts.
    With `chart` G is the gradient in X of `cholesky_chart`.
    """
    L, G = L.contiguous(), G.contiguous()
    gA = torch.empty_like(G)
    if G.numel():
        pointers = L.data_ptr(), G.data_ptr(), gA.data_ptr()
        library.run("lk_cholesky_adjoint", G, chart, exponent, *pointers)
    return gA


def from_chol_log(X: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
    """L L^T with L = ⌊X⌋ + exp diag X."""
    X = X.contiguous()
    A = torch.empty_like(X)
    if X.numel():
        library.run("lk_from_log", X, X.data_ptr(), A.data_ptr())
    return A


def from_chol_log_vjp(
    X: Float[Tensor, "*batch n n"], G: Float[Tensor, "*batch n n"]
) -> Float[Tensor, "*batch n n"]:
    """Gradient with respect to X of a loss with gradient G in `from_chol_log`."""
    X, G = X.contiguous(), G.contiguous()
    gX = torch.empty_like(X)
    if X.numel():
        library.run("lk_from_log_adjoint", X, X.data_ptr(), G.data_ptr(), gX.data_ptr())
    return gX


def congruence(
    L: Float[Tensor, "..."], X: Float[Tensor, "*batch n n"]
) -> Float[Tensor, "*batch n n"]:
    """L^-1 sym(X) L^-T for lower triangular L, whose batch shape broadcasts to that of X."""
    X = X.contiguous()
    Y = torch.empty_like(X)
    if X.numel():
        factor, repeat = library.repeats(L, tuple(X.shape[:-2]))
        library.run("lk_congruence", X, factor.data_ptr(), repeat, X.data_ptr(), Y.data_ptr())
    return Y
