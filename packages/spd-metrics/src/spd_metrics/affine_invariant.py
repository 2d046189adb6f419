"""The affine-invariant metric (Pennec et al. 2006) and its power deformations.

With P = L L^T everything is seen from P by the congruence L^-1 · L^-T, which differs from that
by P^-½ by a rotation only: one Cholesky factorisation instead of an eigendecomposition.
"""

from dataclasses import dataclass

import torch
from linalg_kernels import (
    congruence,
    daleckii_krein,
    expm,
    karcher_mean,
    logm,
    pencil_log_norm,
    pencil_log_square,
    scalar,
    sqrtm,
    triangular_congruence,
)
from torch import Tensor

from spd_metrics import inputs
from spd_metrics.charts import SMALL_THETA, Chart, Identity, box_cox, power
from spd_metrics.euclidean import Euclidean, check_alpha_beta, trace_inner, trace_sharp
from spd_metrics.fixed_point import iterate
from spd_metrics.geometry import Geometry
from spd_metrics.metric import Pullback


def _symmetric(A: Tensor) -> Tensor:
    return (A + A.mT) / 2


def _factor(X: Tensor) -> Tensor:
    return inputs.factor(X, "P")


@dataclass(frozen=True)
class AffineInvariantGeometry(Geometry):
    """g_X(V, W) = alpha tr(X^-1 V X^-1 W) + beta tr(X^-1 V) tr(X^-1 W)."""

    alpha: float = 1.0
    beta: float = 0.0

    def inner(self, X: Tensor, V: Tensor, W: Tensor) -> Tensor:
        L = _factor(X)
        seen = triangular_congruence(L, V)
        other = seen if W is V else triangular_congruence(L, W)
        return trace_inner(seen, other, self.alpha, self.beta)

    def exp(self, X: Tensor, V: Tensor) -> Tensor:
        return congruence.move(_factor(X), V, scalar.EXP)

    def log(self, X: Tensor, Y: Tensor) -> Tensor:
        return congruence.move(_factor(X), Y, scalar.LOG)

    def geodesic(self, X: Tensor, Y: Tensor, t: Tensor | float) -> Tensor:
        p = t[..., 0, 0] if isinstance(t, Tensor) else t
        return congruence.move(_factor(X), Y, scalar.POWER, p)

    def transport(self, X: Tensor, Y: Tensor, V: Tensor) -> Tensor:
        """E V E^T with E = (Y X^-1)^½ = L S^½ L^-1, S = L^-1 Y L^-T."""
        L = _factor(X)
        root = sqrtm(triangular_congruence(L, Y), check=False)
        E = L @ root
        return _symmetric(E @ triangular_congruence(L, V) @ E.mT)

    def sharp(self, X: Tensor, W: Tensor) -> Tensor:
        L = _factor(X)
        return _symmetric(L @ trace_sharp(L.mT @ W @ L, self.alpha, self.beta) @ L.mT)

    def dist2(self, X: Tensor, Y: Tensor) -> Tensor:
        check_alpha_beta(X.shape[-1], self.alpha, self.beta)
        return pencil_log_square(X, Y, alpha=self.alpha, beta=self.beta)

    def dist_seen_through(self, chart: Chart, P: Tensor, Q: Tensor) -> Tensor:
        check_alpha_beta(P.shape[-1], self.alpha, self.beta)
        if not isinstance(chart, Identity):
            P, Q = chart(P, "P"), chart(Q, "Q")
        return pencil_log_norm(P, Q, alpha=self.alpha, beta=self.beta)

    def mean(self, X: Tensor, weights: Tensor, tol: float | None = None) -> Tensor:
        start = None
        # vmap cannot carry a starting point into the iteration.
        if not torch._C._functorch.is_functorch_wrapped_tensor(X):
            # The log-Euclidean mean is nearer than the arithmetic one, for less than a step.
            logs = logm(X.detach(), check=False)
            start = expm((weights.detach()[..., None, None] * logs).sum(-3), check=False)
        return karcher_mean(X, weights, init=start, tol=tol, check=False)

    def identity(self, X: Tensor) -> Tensor:
        return torch.eye(X.shape[-1], dtype=X.dtype, device=X.device)


# --- powers near 0 --------------------------------------------------------------------------


@dataclass(frozen=True)
class _Log1p:
    """log(1 + θx)/θ."""

    theta: float
    name: str = "log1p"

    def value(self, w: Tensor, p: Tensor | None) -> Tensor:  # noqa: ARG002
        return torch.log1p(self.theta * w) / self.theta

    def first(self, a: Tensor, b: Tensor, p: Tensor | None) -> Tensor:
        return scalar.LOG.first(1 + self.theta * a, 1 + self.theta * b, p)

    def second(self, a: Tensor, b: Tensor, c: Tensor, p: Tensor | None) -> Tensor:
        x, y, z = (1 + self.theta * v for v in (a, b, c))
        return self.theta * scalar.LOG.second(x, y, z, p)

    def third(self, a: Tensor, b: Tensor, c: Tensor, d: Tensor, p: Tensor | None) -> Tensor:
        x, y, z, v = (1 + self.theta * u for u in (a, b, c, d))
        return self.theta**2 * scalar.LOG.third(x, y, z, v, p)

    def by_exponent(self) -> scalar.ScalarFunction:
        raise TypeError("log1p has no exponent")


@dataclass(frozen=True)
class _Expm1:
    """(exp(θx) - 1)/θ."""

    theta: float
    name: str = "expm1"

    def value(self, w: Tensor, p: Tensor | None) -> Tensor:  # noqa: ARG002
        return torch.expm1(self.theta * w) / self.theta

    def first(self, a: Tensor, b: Tensor, p: Tensor | None) -> Tensor:
        return scalar.EXP.first(self.theta * a, self.theta * b, p)

    def second(self, a: Tensor, b: Tensor, c: Tensor, p: Tensor | None) -> Tensor:
        x, y, z = (self.theta * v for v in (a, b, c))
        return self.theta * scalar.EXP.second(x, y, z, p)

    def third(self, a: Tensor, b: Tensor, c: Tensor, d: Tensor, p: Tensor | None) -> Tensor:
        x, y, z, v = (self.theta * u for u in (a, b, c, d))
        return self.theta**2 * scalar.EXP.third(x, y, z, v, p)

    def by_exponent(self) -> scalar.ScalarFunction:
        raise TypeError("expm1 has no exponent")


def _apply(fn: scalar.ScalarFunction, A: Tensor) -> Tensor:
    return daleckii_krein.spectral(A, None, fn, check=False)[0]


@dataclass(frozen=True)
class SmallPowerGeometry(Geometry):
    """The affine-invariant metric of X = I + θB, over θ², in coordinates B = (P^θ - I)/θ.

    Seen from B are M = L^-1 (B' - B) L^-T with L L^T = I + θB: L^-1 X' L^-T = I + θM. Every
    1/θ is inside a log1p or expm1, so that no digit is lost for θ -> 0, where it is flat.
    """

    theta: float
    alpha: float = 1.0
    beta: float = 0.0

    def _factor(self, B: Tensor) -> Tensor:
        identity = torch.eye(B.shape[-1], dtype=B.dtype, device=B.device)
        return inputs.factor(identity + self.theta * B, "P")

    def inner(self, X: Tensor, V: Tensor, W: Tensor) -> Tensor:
        L = self._factor(X)
        seen = triangular_congruence(L, V)
        return trace_inner(seen, triangular_congruence(L, W), self.alpha, self.beta)

    def exp(self, X: Tensor, V: Tensor) -> Tensor:
        L = self._factor(X)
        moved = L @ _apply(_Expm1(self.theta), triangular_congruence(L, V)) @ L.mT
        return X + _symmetric(moved)

    def _logs(self, L: Tensor, X: Tensor, Y: Tensor) -> Tensor:
        return _apply(_Log1p(self.theta), triangular_congruence(L, Y - X))

    def log(self, X: Tensor, Y: Tensor) -> Tensor:
        L = self._factor(X)
        return _symmetric(L @ self._logs(L, X, Y) @ L.mT)

    def transport(self, X: Tensor, Y: Tensor, V: Tensor) -> Tensor:
        L = self._factor(X)
        identity = torch.eye(X.shape[-1], dtype=X.dtype, device=X.device)
        seen = identity + self.theta * triangular_congruence(L, Y - X)
        E = L @ sqrtm(seen, check=False)
        return _symmetric(E @ triangular_congruence(L, V) @ E.mT)

    def sharp(self, X: Tensor, W: Tensor) -> Tensor:
        L = self._factor(X)
        return _symmetric(L @ trace_sharp(L.mT @ W @ L, self.alpha, self.beta) @ L.mT)

    def dist2(self, X: Tensor, Y: Tensor) -> Tensor:
        logs = self._logs(self._factor(X), X, Y)
        return trace_inner(logs, logs, self.alpha, self.beta)

    def mean(self, X: Tensor, weights: Tensor, tol: float | None = None) -> Tensor:
        def step(B: Tensor) -> tuple[Tensor, Tensor]:
            L = self._factor(B)
            logs = self._logs(L[..., None, :, :], B[..., None, :, :], X)
            J = (weights[..., None, None] * logs).sum(-3)
            moved = _symmetric(L @ _apply(_Expm1(self.theta), J) @ L.mT)
            return B + moved, torch.linalg.matrix_norm(moved)

        return iterate(step, (weights[..., None, None] * X).sum(-3), "AffineInvariant.mean", tol)

    def identity(self, X: Tensor) -> Tensor:
        return torch.zeros(X.shape[-2:], dtype=X.dtype, device=X.device)


@dataclass(frozen=True)
class AffineInvariant(Pullback):
    """d(P, Q) = ‖log(P^-θ/2 Q^θ P^-θ/2)‖/|θ| with ‖V‖² = alpha ‖V‖_F² + beta (tr V)².

    Complete, of nonpositive curvature, invariant under inversion, rotations and, for θ = 1,
    every congruence P -> A P A^T.

    Args:
        theta: Power of the deformation; at 0 the metric is `LogEuclidean`.
        alpha: > 0.
        beta: > -alpha/n for n x n matrices.
    """

    theta: float = 1.0
    alpha: float = 1.0
    beta: float = 0.0

    def __post_init__(self) -> None:
        inputs.check_theta(self.theta)
        inputs.check_alpha_beta(self.alpha, self.beta)

    @property
    def chart(self) -> Chart:
        """P^θ; for small θ (P^θ - I)/θ, which goes over into the logarithm."""
        return box_cox(self.theta) if abs(self.theta) < SMALL_THETA else power(self.theta)

    @property
    def geometry(self) -> Geometry:
        """Positive definite matrices with the metric of θ = 1."""
        if self.theta == 0:
            return Euclidean(self.alpha, self.beta)
        if abs(self.theta) < SMALL_THETA:
            return SmallPowerGeometry(self.theta, self.alpha, self.beta)
        return AffineInvariantGeometry(self.alpha, self.beta)

    @property
    def scale(self) -> float:
        """1/θ², which the chart of small θ contains."""
        return 1.0 if abs(self.theta) < SMALL_THETA else 1 / self.theta**2
