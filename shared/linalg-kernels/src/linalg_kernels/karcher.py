"""The Karcher mean: Fréchet mean of the affine-invariant metric.

It minimises Σ w_i d²(M, X_i). With M = L L^H, Y_i = L^-1 X_i L^-H and J = Σ w_i log Y_i it is
where J = 0; M <- L exp(ν J) L^H descends to it, ν being the length of a step.
"""

import math
from typing import Literal

import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from linalg_kernels import barycenter, daleckii_krein, errors, scalar
from linalg_kernels.backends import select
from linalg_kernels.backends import torch as reference
from linalg_kernels.barycenter import Equation, Gradient, MeanInfo, Stopping
from linalg_kernels.cholesky import cholesky_ex, triangular_congruence
from linalg_kernels.precision import full_precision, promote, restore
from linalg_kernels.spectral import expm
from linalg_kernels.transforms import needs_rule


def _look_back(L: Tensor, E: Tensor) -> Tensor:
    """L^-H E L^-1."""
    left = torch.linalg.solve_triangular(L.mH, E, upper=True)
    return torch.linalg.solve_triangular(L, left, upper=False, left=False)


_EQUATION = Equation(
    f=scalar.LOG,
    look=triangular_congruence,
    look_back=_look_back,
    kappa=lambda Y, _, S: S @ Y,  # its Hermitian part, (SY + YS)/2, is what counts
    kernel=lambda a, b: (a + b) / 2 * scalar.LOG.first(a, b, None),
)


def _hessian_bound(eigenvalues: Tensor, weights: Tensor) -> Tensor:
    """Σ w_i √(1 + x_i²) with x_i = log(cond Y_i)/2: the Hessian lies between 1 and this.

    Its largest eigenvalue is at most Σ w_i x_i coth x_i, and (x coth x)² = x² + (x/sinh x)².
    """
    # Largest of each: over the first dimension, where the reduction runs along memory.
    w = eigenvalues.movedim(-1, 0).contiguous()
    x = torch.log(w.amax(0) / w.amin(0)) / 2
    return (weights * torch.sqrt(1 + x * x)).sum(-1)


def _dot(S: Tensor, T: Tensor) -> Tensor:
    return (S.conj() * T).real.sum((-2, -1))


@torch.no_grad()
def _step_length(bound: Tensor, J: Tensor, last: tuple[Tensor, Tensor] | None) -> Tensor:
    """Barzilai-Borwein length of the step along J, kept where the Hessian allows it.

    `last` is the previous J and the previous step. The first length is 2 / (1 + bound), the
    best fixed one (Bini and Iannazzo 2013).
    """
    fixed = 2 / (1 + bound)
    if last is None:
        return fixed
    change = last[0] - J
    size = _dot(change, change)
    moving = size > 0
    length = _dot(last[1], change) / torch.where(moving, size, 1)
    return torch.where(
        moving, torch.minimum(torch.maximum(length, 1 / bound), 1 + 0 * bound), fixed
    )


def _logarithms(C: Tensor, X: Tensor) -> tuple[Tensor, Tensor]:
    """log(C X C^H) and the eigenvalues of C X C^H."""
    found = select.spectral_of_congruence(C, X, scalar.LOG)
    if found is not None:
        return found
    logs, w, _ = daleckii_krein.spectral(C @ X @ C.mH, None, scalar.LOG, True, False)
    return logs, w


def _exponentials(D: Tensor) -> tuple[Tensor, Tensor]:
    """exp D and exp(-D)."""
    if not needs_rule(D):
        w, V = select.eigh(D, True, False, "D")
        grown = V * torch.exp(w / 2)[..., None, :]
        shrunk = V * torch.exp(-w / 2)[..., None, :]
        return grown @ grown.mH, shrunk @ shrunk.mH
    return expm(D, check=False), expm(-D, check=False)


def _descend(
    X: Tensor, weights: Tensor, init: Tensor | None, max_iter: int, tol: float, step: float | None
) -> tuple[Tensor, MeanInfo]:
    """Steps from `init` until ‖J‖_F ≤ tol √n; exactly `max_iter` where values cannot be read.

    M = B B^H. The frame B is carried along by B exp(D/2), which is parallel transport: J and
    steps of different iterates may be compared entry by entry, and B^-1 costs no solve.
    """
    shape = X[..., 0, :, :].shape
    if init is None:
        M = (weights.to(X.dtype)[..., None, :] @ X.flatten(-2)).reshape(shape)
    else:
        M = init.expand(shape)
    if max_iter == 0:
        return M, MeanInfo(0, math.inf, False)
    found = select.karcher_mean(X, weights, M, tol, max_iter, step)
    if found is not None:
        residual = found.residual
        return found.M, MeanInfo(found.steps, residual, residual <= tol)
    root_n = math.sqrt(X.shape[-1])
    B = cholesky_ex(M).L
    identity = torch.eye(X.shape[-1], dtype=X.dtype, device=X.device)
    B_inv = torch.linalg.solve_triangular(B, identity.expand_as(B), upper=False)
    stop = Stopping(tol)
    residual = math.inf
    last = None
    for done in range(max_iter):
        logs, w = _logarithms(B_inv[..., None, :, :], X)
        J = (weights.to(logs.dtype)[..., None, :] @ logs.flatten(-2)).reshape(M.shape)
        found = barycenter.worst(torch.linalg.matrix_norm(J) / root_n)
        if found is not None:
            residual = found
            barycenter.check_definite(X, residual, "karcher_mean")
            if stop(residual):
                return reference.hermitian(B @ B.mH), MeanInfo(done, residual, residual <= tol)
        if step is None:
            D = _step_length(_hessian_bound(w, weights), J, last)[..., None, None] * J
        else:
            D = step * J
        last = J, D
        half, half_inv = _exponentials(D / 2)
        B, B_inv = B @ half, half_inv @ B_inv
    return reference.hermitian(B @ B.mH), MeanInfo(max_iter, residual, False)


@full_precision
def karcher_mean(
    X: Inexact[Tensor, "*batch b n n"],
    weights: Float[Tensor, "*#batch b"] | None = None,
    max_iter: int = 50,
    tol: float | None = None,
    *,
    init: Inexact[Tensor, "*#batch n n"] | None = None,
    step: Literal["adaptive"] | float = "adaptive",
    grad: Gradient = "implicit",
    check: bool = True,
    upcast: bool = False,
) -> Inexact[Tensor, "*batch n n"]:
    """Karcher (affine-invariant Fréchet) mean of b Hermitian positive definite matrices.

    Args:
        X: Sets of matrices; the mean is taken over dimension -3.
        weights: Nonnegative, one a matrix, normalised here; None means equal.
        max_iter: Most steps; a `ConvergenceWarning` says when they did not suffice. With
            max_iter=1 there is one step and no warning, as batch normalisation wants it.
        tol: Stop at ‖Σ w_i log Y_i‖_F ≤ tol √n, the mean's relative error. 1e-10, in single
            precision 1e-5. Stops early as well when rounding keeps that from falling.
        init: Where to start; the arithmetic mean by default.
        step: Length of a step; "adaptive" is that of Barzilai and Borwein, within the bounds
            of the Hessian. A constant 1.0 need not converge beyond condition numbers of 46.
        grad: "implicit" differentiates the equation of the mean (in X and in the weights,
            twice; right once converged), "unroll" the steps at given lengths, "detach" nothing.
        check: Raise `LinAlgError` or `ValueError` naming the element that is not finite or not
            Hermitian. A matrix that is not positive definite always raises.
        upcast: Compute float16 and bfloat16 in float32.

    Invariant under congruence, M(C X C^H) = C M(X) C^H, and inversion. Source: Moakher 2005.
    """
    X, dtype = promote(X, upcast)
    X, weights = barycenter.read_set(X, weights, check)
    if max_iter < 0:
        raise ValueError(f"max_iter must be >= 0, got {max_iter}")
    if init is not None:
        errors.require_square(init, "init", X.shape[-1])
        errors.require_same_kind(X, init, ("X", "init"))
        init = init.detach()
    if step != "adaptive" and not (isinstance(step, (int, float)) and step > 0):
        raise ValueError(f"step must be 'adaptive' or a positive number, got {step!r}")
    length = None if step == "adaptive" else float(step)
    tol = barycenter.default_tol(X.dtype) if tol is None else tol
    if X.shape[-1] == 0:
        return restore(X[..., 0, :, :], dtype)

    def iterate(X: Tensor, weights: Tensor) -> tuple[Tensor, MeanInfo]:
        return _descend(X, weights, init, max_iter, tol, length)

    M, info = barycenter.solve_mean(X, weights, _EQUATION, iterate, grad)
    barycenter.warn_unless_converged(info, "karcher_mean", tol)
    return restore(M, dtype)
