"""What means of Hermitian positive definite matrices share: input, stopping, derivatives.

A mean M of X_i with weights w_i is where Σ w_i f(Y_i) takes a fixed value, Y_i being X_i seen
from M = L L^H. Its derivative comes from that equation, not from the iterations that solved
it: with dM = L S L^H it reads

    H[S] = Σ w_i Df(Y_i)[E_i] + Σ dw_i f(Y_i),    E_i = dX_i seen from M,
    H[S] = Σ w_i Df(Y_i)[κ_i(S)],

where H is self-adjoint and positive definite, so that conjugate gradients solve it.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

from linalg_kernels import daleckii_krein, errors
from linalg_kernels.backends import torch as reference
from linalg_kernels.cholesky import cholesky_ex
from linalg_kernels.precision import full_precision
from linalg_kernels.scalar import ScalarFunction
from linalg_kernels.transforms import batch_first, inspect, needs_rule, read

Gradient = Literal["implicit", "unroll", "detach"]


class ConvergenceWarning(UserWarning):
    """An iteration stopped at its limit, or at its rounding, before it met its tolerance."""


class MeanInfo(NamedTuple):
    """How an iteration ended: steps taken, last residual, and whether that met the tolerance."""

    iterations: int
    residual: float
    converged: bool


class Stopping:
    """Watches the residuals of an iteration: met the tolerance, or no longer falling."""

    _PATIENCE = 4

    def __init__(self, tol: float) -> None:
        self.tol = tol
        self.best = math.inf
        self.stalled = 0

    def __call__(self, residual: float) -> bool:
        self.stalled = 0 if residual < 0.99 * self.best else self.stalled + 1
        self.best = min(self.best, residual)
        return residual <= self.tol or self.stalled >= self._PATIENCE or math.isnan(residual)


def default_tol(dtype: torch.dtype) -> float:
    """1e-10, in single precision 1e-5."""
    return 1e-5 if dtype in (torch.float32, torch.complex64) else 1e-10


def read_set(X: Tensor, weights: Tensor | None, check: bool) -> tuple[Tensor, Tensor]:
    """The set X (*batch, b, n, n), Hermitian, and weights (*batch, b) that sum to one."""
    errors.require_float(X, "X")
    errors.require_square(X, "X")
    if X.ndim < 3 or X.shape[-3] == 0:
        raise ValueError(f"X must be (..., b, n, n), b >= 1 matrices, got {tuple(X.shape)}")
    normalised = _read_weights(X, weights)
    batch = errors.broadcast_batch({"X": (X, 3), "weights": (normalised, 1)})
    if needs_rule(X) or not errors.is_hermitian(X):
        if check:
            X = inspect(X, lambda T: errors.check_matrices(T, "X"))
        X = reference.hermitian(X)
    return X.expand(*batch, *X.shape[-3:]), normalised.expand(*batch, X.shape[-3])


def _read_weights(X: Tensor, weights: Tensor | None) -> Tensor:
    real = X.real.dtype if X.is_complex() else X.dtype
    count = X.shape[-3]
    if weights is None:
        return torch.full((count,), 1 / count, dtype=real, device=X.device)
    if not isinstance(weights, Tensor):
        raise TypeError(f"weights must be a torch.Tensor, got {type(weights).__name__}")
    if weights.ndim == 0 or weights.shape[-1] != count:
        raise ValueError(
            f"weights must be (..., b) with b={count}, one for each matrix of X, "
            f"got {tuple(weights.shape)}"
        )
    weights = inspect(weights.to(dtype=real, device=X.device), _check_weights)
    return weights / weights.sum(-1, keepdim=True)


def _check_weights(weights: Tensor) -> None:
    total = weights.sum(-1)
    if not bool((weights >= 0).all() and (total > 0).all() and total.isfinite().all()):
        raise ValueError("weights must be finite and >= 0, with a positive sum")


def worst(values: Tensor) -> float | None:
    """The largest of nonnegative `values`, NaN if one is; None where it cannot be read."""
    return read(values.detach().amax()) if values.numel() else 0.0


def check_definite(X: Tensor, residual: float, name: str) -> None:
    """LinAlgError naming the matrix of X that is not positive definite, if that is the reason."""
    if math.isnan(residual):
        errors.check_positive(reference.eigvalsh(X.detach()), "X", name)


# --- the derivative of a converged mean -----------------------------------------------------


@dataclass(frozen=True)
class Equation:
    """One kind of mean.

    Attributes:
        f: The function in Σ w_i f(Y_i).
        look: (L, X) -> X seen from M = L L^H, linear in X.
        look_back: Its adjoint, (L, E) -> E carried back.
        kappa: (Y, f(Y), S) -> κ(S).
        kernel: (a, b) -> eigenvalues of S -> Df(Y)[κ(S)] in the eigenbasis of Y.
    """

    f: ScalarFunction
    look: Callable[[Tensor, Tensor], Tensor]
    look_back: Callable[[Tensor, Tensor], Tensor]
    kappa: Callable[[Tensor, Tensor, Tensor], Tensor]
    kernel: Callable[[Tensor, Tensor], Tensor]


class _At(NamedTuple):
    """The equation at the mean; every tensor is differentiable in X and M but w and V."""

    equation: Equation
    L: Tensor
    Y: Tensor
    fY: Tensor
    w: Tensor
    V: Tensor

    def df(self, E: Tensor) -> Tensor:
        E = E.expand_as(self.Y)
        return daleckii_krein.frechet(self.Y, E, None, self.w, self.V, self.equation.f)

    def hessian(self, weights: Tensor, S: Tensor) -> Tensor:
        moved = self.equation.kappa(self.Y, self.fY, S[..., None, :, :])
        return (weights[..., None, None] * self.df(moved)).sum(-3)


def seen_from(equation: Equation, M: Tensor, X: Tensor) -> _At:
    L = cholesky_ex(M).L
    Y = reference.hermitian(equation.look(L[..., None, :, :], X))
    fY, w, V = daleckii_krein.spectral(Y, None, equation.f, True, False)
    return _At(equation, L, Y, fY, w, V)


_CG_LIMIT = 200
# The count where no value can be read; it reaches rounding on spreads up to about 1e3.
_CG_BLIND = 30


def _apply_hessian(V: Tensor, kernel: Tensor, S: Tensor) -> Tensor:
    """Σ_i V_i (kernel_i ∘ V_i^H S V_i) V_i^H."""
    inner = kernel * (V.mH @ S[..., None, :, :] @ V)
    return reference.hermitian((V @ inner @ V.mH).sum(-3))


def _squared(S: Tensor) -> Tensor:
    return (S.abs() ** 2).sum((-2, -1))


def _conjugate_gradients(V: Tensor, kernel: Tensor, R: Tensor, may_wait: bool) -> Tensor:
    """Z with H[Z] = herm(R), to rounding, if the device may be waited for."""
    if torch.compiler.is_compiling():
        return _solve(V, kernel, R)
    with errors.waiting(may_wait and errors.may_wait()):
        return _solve(V, kernel, R)


def _solve(V: Tensor, kernel: Tensor, R: Tensor) -> Tensor:
    # H is definite on Hermitian matrices alone: a skew rest of R could never be removed.
    R = reference.hermitian(R)
    # Scaled to the size of one, so that squares neither overflow nor vanish.
    size = R.abs().amax((-2, -1), keepdim=True)
    size = torch.where(size > 0, size, 1)
    residual = direction = R / size
    Z = torch.zeros_like(R)
    rr = _squared(residual)
    target = torch.finfo(R.dtype).eps ** 2 * rr
    for done in range(_CG_LIMIT):
        unsolved = read((rr > target).any())
        if unsolved == 0 or (unsolved is None and done == _CG_BLIND):
            break
        image = _apply_hessian(V, kernel, direction)
        curvature = (direction.conj() * image).real.sum((-2, -1))
        active = (rr > target) & (curvature > 0)
        step = torch.where(active, rr / torch.where(active, curvature, 1), 0)[..., None, None]
        Z = Z + step * direction
        residual = residual - step * image
        previous, rr = rr, _squared(residual)
        ratio = torch.where(active, rr / torch.where(active, previous, 1), 0)[..., None, None]
        direction = residual + ratio * direction
    return Z * size


class _SolveHessian(Function):
    """R -> H^-1[R] for a constant H, which is self-adjoint."""

    @staticmethod
    def forward(R, V, kernel, may_wait):
        return _conjugate_gradients(V, kernel, R, may_wait)

    @staticmethod
    def setup_context(ctx, inputs, output):  # noqa: ARG004
        _, V, kernel, ctx.may_wait = inputs
        ctx.save_for_backward(V, kernel)
        ctx.save_for_forward(V, kernel)

    @staticmethod
    @full_precision
    def backward(ctx, G):
        return _solve_hessian(G, *ctx.saved_tensors, ctx.may_wait), None, None, None

    @staticmethod
    def vmap(info, dims, R, V, kernel, may_wait):
        tensors = batch_first(info.batch_size, dims[:3], (R, V, kernel))
        return _solve_hessian(*tensors, may_wait), 0


class _SolveHessianEager(_SolveHessian):
    @staticmethod
    @full_precision
    def jvp(ctx, dR, *_):
        return _solve_hessian(dR, *ctx.saved_tensors, ctx.may_wait)


class _SolveConstant(Function):
    """The solution of `_SolveHessian` as a constant."""

    @staticmethod
    def forward(R, V, kernel, may_wait):
        return _conjugate_gradients(V, kernel, R, may_wait)

    @staticmethod
    def setup_context(ctx, inputs, output):  # noqa: ARG004
        ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx, _):  # noqa: ARG004
        return None, None, None, None

    @staticmethod
    def vmap(info, dims, R, V, kernel, may_wait):
        tensors = batch_first(info.batch_size, dims[:3], (R, V, kernel))
        return _solve_constant(*tensors, may_wait), 0


class _SolveConstantEager(_SolveConstant):
    @staticmethod
    def jvp(ctx, *_):  # noqa: ARG004
        return None


def _solve_constant(R: Tensor, V: Tensor, kernel: Tensor, may_wait: bool) -> Tensor:
    rule = _SolveConstant if torch.compiler.is_compiling() else _SolveConstantEager
    return rule.apply(R, V, kernel, may_wait)


def _solve_hessian(R: Tensor, V: Tensor, kernel: Tensor, may_wait: bool) -> Tensor:
    rule = _SolveHessian if torch.compiler.is_compiling() else _SolveHessianEager
    return rule.apply(R, V, kernel, may_wait)


def _invert(at: _At, weights: Tensor, R: Tensor, may_wait: bool) -> Tensor:
    """H^-1[R], differentiable once more: a constant solution and one exact correction of it."""
    w = at.w
    kernel = at.equation.kernel(w[..., :, None], w[..., None, :])
    kernel = weights[..., None, None] * kernel
    constant = _solve_constant(R, at.V, kernel, may_wait)
    rest = R - at.hessian(weights, constant)
    return constant + _solve_hessian(rest, at.V, kernel, may_wait)


Iteration = Callable[[Tensor, Tensor], tuple[Tensor, MeanInfo]]


class _ImplicitMean(Function):
    """(X, weights) -> M by `iterate`, differentiated through the equation of the mean."""

    @staticmethod
    def forward(X, weights, equation, iterate, infos):  # noqa: ARG004
        M, info = iterate(X, weights)
        if infos is not None:
            infos.append(info)
        return M

    @staticmethod
    def setup_context(ctx, inputs, output):
        X, weights, ctx.equation, *_ = inputs
        ctx.may_wait = errors.may_wait()
        ctx.save_for_backward(X, weights, output)
        ctx.save_for_forward(X, weights, output)

    @staticmethod
    @full_precision
    def backward(ctx, G):
        X, weights, M = ctx.saved_tensors
        at = seen_from(ctx.equation, M, X)
        R = at.L.mH @ reference.hermitian(G) @ at.L
        Z = _invert(at, weights, R, ctx.may_wait)[..., None, :, :]
        gX = gw = None
        if ctx.needs_input_grad[0]:
            inner = weights[..., None, None] * at.df(Z)
            gX = reference.hermitian(at.equation.look_back(at.L[..., None, :, :], inner))
        if ctx.needs_input_grad[1]:
            gw = (Z.conj() * at.fY).real.sum((-2, -1))
        return gX, gw, None, None, None

    @staticmethod
    def vmap(info, dims, X, weights, equation, iterate, infos):
        X, weights = batch_first(info.batch_size, dims[:2], (X, weights))
        return implicit_mean(X, weights, equation, iterate, infos), 0


class _ImplicitMeanEager(_ImplicitMean):
    @staticmethod
    @full_precision
    def jvp(ctx, dX, dw, *_):
        X, weights, M = ctx.saved_tensors
        at = seen_from(ctx.equation, M, X)
        R = torch.zeros_like(M)
        if dX is not None:
            E = at.equation.look(at.L[..., None, :, :], reference.hermitian(dX))
            R = R + (weights[..., None, None] * at.df(E)).sum(-3)
        if dw is not None:
            R = R + (dw[..., None, None] * at.fY).sum(-3)
        return reference.hermitian(at.L @ _invert(at, weights, R, ctx.may_wait) @ at.L.mH)


def implicit_mean(
    X: Tensor, weights: Tensor, equation: Equation, iterate: Iteration, infos: list | None
) -> Tensor:
    rule = _ImplicitMean if torch.compiler.is_compiling() else _ImplicitMeanEager
    return rule.apply(X, weights, equation, iterate, infos)


def solve_mean(
    X: Tensor, weights: Tensor, equation: Equation, iterate: Iteration, grad: Gradient
) -> tuple[Tensor, MeanInfo | None]:
    """M by `iterate` with the gradient asked for; the info is None while a graph is traced."""
    if grad == "implicit":
        infos: list[MeanInfo] | None = None if torch.compiler.is_compiling() else []
        M = implicit_mean(X, weights, equation, iterate, infos)
        return M, infos[-1] if infos else None
    if grad == "detach":
        return iterate(X.detach(), weights.detach())
    if grad == "unroll":
        return iterate(X, weights)
    raise ValueError(f"grad must be 'implicit', 'unroll' or 'detach', got {grad!r}")


def warn_unless_converged(info: MeanInfo | None, name: str, tol: float) -> None:
    if not errors.may_wait():
        return  # the residual was not looked at
    if info is not None and info.iterations > 1 and not info.converged:
        warnings.warn(
            f"{name} stopped after {info.iterations} steps with residual {info.residual:.2g}, "
            f"tol is {tol:.2g}",
            ConvergenceWarning,
            stacklevel=3,
        )
