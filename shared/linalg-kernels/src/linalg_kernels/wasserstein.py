"""The Wasserstein mean: Fréchet mean of the Bures-Wasserstein metric.

It minimises Σ w_i d²(M, X_i), d²(M, X) = tr M + tr X - 2 tr (M^1/2 X M^1/2)^1/2. With M = L L^H
and Y_i = L^H X_i L it is where Σ w_i Y_i^1/2 = L^H L (Agueh and Carlier 2011).
"""

import math

import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from linalg_kernels import barycenter, scalar
from linalg_kernels.backends import torch as reference
from linalg_kernels.barycenter import Equation, Gradient, MeanInfo, Stopping
from linalg_kernels.precision import full_precision, promote, restore


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    """√a √b / (√a + √b): S -> Dsqrt(Y)[Y^1/2 S Y^1/2]."""
    ra, rb = torch.sqrt(a), torch.sqrt(b)
    return ra * rb / (ra + rb)


_EQUATION = Equation(
    f=scalar.SQRT,
    look=lambda L, X: L.mH @ X @ L,
    look_back=lambda L, E: L @ E @ L.mH,
    kappa=lambda _, root, S: root @ S @ root,
    kernel=_kernel,
)


def _iterate(X: Tensor, weights: Tensor, max_iter: int, tol: float) -> tuple[Tensor, MeanInfo]:
    """M <- L^-H (Σ w_i Y_i^1/2)² L^-1 (Álvarez-Esteban et al. 2016), from the arithmetic mean."""
    M = (weights[..., None, None] * X).sum(-3)
    stop = Stopping(tol)
    residual = math.inf
    for done in range(max_iter):
        at = barycenter.seen_from(_EQUATION, M, X)
        root = (weights[..., None, None] * at.fY).sum(-3)
        gram = at.L.mH @ at.L
        error = torch.linalg.matrix_norm(root - gram) / torch.linalg.matrix_norm(gram)
        found = barycenter.worst(error)
        if found is not None:
            residual = found
            barycenter.check_definite(X, residual, "wasserstein_mean")
            if stop(residual):
                return M, MeanInfo(done, residual, residual <= tol)
        factor = torch.linalg.solve_triangular(at.L.mH, root, upper=True)
        M = reference.hermitian(factor @ factor.mH)
    return M, MeanInfo(max_iter, residual, False)


@full_precision
def wasserstein_mean(
    X: Inexact[Tensor, "*batch b n n"],
    weights: Float[Tensor, "*#batch b"] | None = None,
    max_iter: int = 100,
    tol: float | None = None,
    *,
    grad: Gradient = "implicit",
    check: bool = True,
    upcast: bool = False,
) -> Inexact[Tensor, "*batch n n"]:
    """Bures-Wasserstein barycenter of b Hermitian positive definite matrices, over dimension -3.

    Arguments, errors and gradients as in `karcher_mean`; stops at
    ‖Σ w_i Y_i^1/2 - L^H L‖_F ≤ tol ‖L^H L‖_F.
    """
    X, dtype = promote(X, upcast)
    X, weights = barycenter.read_set(X, weights, check)
    if max_iter < 0:
        raise ValueError(f"max_iter must be >= 0, got {max_iter}")
    tol = barycenter.default_tol(X.dtype) if tol is None else tol
    if X.shape[-1] == 0:
        return restore(X[..., 0, :, :], dtype)

    def iterate(X: Tensor, weights: Tensor) -> tuple[Tensor, MeanInfo]:
        return _iterate(X, weights, max_iter, tol)

    M, info = barycenter.solve_mean(X, weights, _EQUATION, iterate, grad)
    barycenter.warn_unless_converged(info, "wasserstein_mean", tol)
    return restore(M, dtype)
