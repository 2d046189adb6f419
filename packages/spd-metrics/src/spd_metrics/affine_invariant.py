"""The affine-invariant metric (Pennec et al. 2006) and its power deformations.

With P = L L^T everything is seen from P by the congruence L^-1 · L^-T, which differs from that
by P^-½ by a rotation only: one Cholesky factorisation instead of an eigendecomposition.
"""

from dataclasses import dataclass

import torch
from linalg_kernels import cholesky, expm, karcher_mean, logm, powm, sqrtm, triangular_congruence
from torch import Tensor

from spd_metrics import inputs
from spd_metrics.charts import Chart, power
from spd_metrics.euclidean import trace_inner
from spd_metrics.geometry import Geometry
from spd_metrics.log_spectrum import log_sums
from spd_metrics.metric import Pullback


def _symmetric(A: Tensor) -> Tensor:
    return (A + A.mT) / 2


def _factor(X: Tensor) -> Tensor:
    return cholesky(X, check=False, name="P")


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
        L = _factor(X)
        return _symmetric(L @ expm(triangular_congruence(L, V), check=False) @ L.mT)

    def log(self, X: Tensor, Y: Tensor) -> Tensor:
        L = _factor(X)
        return _symmetric(L @ logm(triangular_congruence(L, Y), check=False) @ L.mT)

    def geodesic(self, X: Tensor, Y: Tensor, t: Tensor | float) -> Tensor:
        L = _factor(X)
        S = triangular_congruence(L, Y)
        p = t[..., 0, 0] if isinstance(t, Tensor) else t
        return _symmetric(L @ powm(S, p, check=False) @ L.mT)

    def transport(self, X: Tensor, Y: Tensor, V: Tensor) -> Tensor:
        """E V E^T with E = (Y X^-1)^½ = L S^½ L^-1, S = L^-1 Y L^-T."""
        L = _factor(X)
        root = sqrtm(triangular_congruence(L, Y), check=False)
        E = L @ root
        return _symmetric(E @ triangular_congruence(L, V) @ E.mT)

    def dist2(self, X: Tensor, Y: Tensor) -> Tensor:
        return self._dist2(X, _factor(X), Y)

    def pairwise_dist2(self, X: Tensor, Y: Tensor) -> Tensor:
        # One factorisation for each X, not for each pair.
        L = _factor(X)
        rows = max(1, (1 << 22) // max(1, Y.numel()))
        tiles = [
            self._dist2(x[..., :, None, :, :], f[..., :, None, :, :], Y[..., None, :, :, :])
            for x, f in zip(X.split(rows, dim=-3), L.split(rows, dim=-3), strict=True)
        ]
        return torch.cat(tiles, dim=-2)

    def _dist2(self, X: Tensor, L: Tensor, Y: Tensor) -> Tensor:
        squares, sums = log_sums(triangular_congruence(L, Y))
        n = X.shape[-1]
        if not self.alpha + n * self.beta > 0:
            trace_inner(X, X, self.alpha, self.beta)
        value = self.alpha * squares
        if self.beta != 0:
            value = value + self.beta * sums * sums
        # The eigenvalues at X = Y are 1 up to rounding, and so is the direction of a gradient.
        return torch.where((X == Y).all(-1).all(-1), 0, value)

    def mean(self, X: Tensor, weights: Tensor) -> Tensor:
        return karcher_mean(X, weights, check=False)

    def identity(self, X: Tensor) -> Tensor:
        return torch.eye(X.shape[-1], dtype=X.dtype, device=X.device)


@dataclass(frozen=True)
class AffineInvariant(Pullback):
    """d(P, Q) = ‖log(P^-θ/2 Q^θ P^-θ/2)‖/|θ| with ‖V‖² = alpha ‖V‖_F² + beta (tr V)².

    Complete, of nonpositive curvature, invariant under inversion, rotations and, for θ = 1,
    every congruence P -> A P A^T.

    Args:
        theta: Power of the deformation, not 0 (there the metric becomes `LogEuclidean`).
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
        """The matrix power θ."""
        return power(self.theta)

    @property
    def geometry(self) -> AffineInvariantGeometry:
        """Positive definite matrices with the metric of θ = 1."""
        return AffineInvariantGeometry(self.alpha, self.beta)

    @property
    def scale(self) -> float:
        """1/θ²."""
        return 1 / self.theta**2
