"""The Bures-Wasserstein metric (Bhatia et al. 2019), its powers and its weighted form.

Points are read as X = o I + s C in coordinates C: (o, s) = (0, 1) for powers P^2θ themselves
and (1, 2θ) for (P^2θ - I)/(2θ), which has a limit at θ = 0. With X = L L^T the geodesic to Y is
(L + t s F)(L + t s F)^T, a straight line of square roots, and all operations follow from F:

    F = L^-T D,   R D + D A = L^T (C_Y - C_X) L,   R = (L^T Y L)^½,   A = L^T L.

F is made of a difference, so that nothing cancels between near points: d = ‖F‖_F, where
tr X + tr Y - 2 tr (X^½ Y X^½)^½ loses half of all digits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from linalg_kernels import eigvalsh, lyapunov, sqrtm, sylvester, wasserstein_mean
from torch import Tensor

from spd_metrics import inputs, pole_ladder
from spd_metrics.charts import SMALL_THETA, Chart, Congruence, box_cox, power
from spd_metrics.fixed_point import iterate
from spd_metrics.geometry import Geometry, time_to_zero
from spd_metrics.metric import Pullback


def _symmetric(A: Tensor) -> Tensor:
    return (A + A.mT) / 2


@dataclass(frozen=True)
class BuresWassersteinGeometry(Geometry):
    """g_X(V, W) = ½ tr(𝓛_X[V] W) with X 𝓛 + 𝓛 X = V, in coordinates C of X = o I + s C."""

    offset: float = 0.0
    slope: float = 1.0

    def _point(self, C: Tensor) -> Tensor:
        if self.offset == 0:
            return C
        identity = torch.eye(C.shape[-1], dtype=C.dtype, device=C.device)
        return self.offset * identity + self.slope * C

    def _lyapunov(self, C: Tensor, V: Tensor) -> Tensor:
        return lyapunov(self._point(C), V, check=False)

    def _lift(self, C: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
        """L and F: the geodesic from C to B is L + t s F, squared."""
        L = inputs.factor(self._point(C), "P")
        # Rounding may take the smallest eigenvalues of L^T Y L below 0.
        seen = L.mT @ self._point(B) @ L
        R = sqrtm(seen, nonpos="clamp", eps=0.0, check=False)
        D = sylvester(R, L.mT @ L, L.mT @ (B - C) @ L, check=False)
        return L, torch.linalg.solve_triangular(L.mT, D, upper=True)

    def _square(self, L: Tensor, C: Tensor, F: Tensor) -> Tensor:
        """Coordinates of (L + s F)(L + s F)^T, given C of L L^T."""
        if self.offset == 0:
            end = L + self.slope * F
            return _symmetric(end @ end.mT)
        half = L @ F.mT
        return C + half + half.mT + self.slope * F @ F.mT

    def inner(self, X: Tensor, V: Tensor, W: Tensor) -> Tensor:
        return (self._lyapunov(X, V) * W).sum((-2, -1)) / 2

    def exp(self, X: Tensor, V: Tensor) -> Tensor:
        """X + V + S X S with S = 𝓛_X[V]."""
        S = self._lyapunov(X, V)
        return _symmetric(X + V + self.slope * S @ self._point(X) @ S)

    def log(self, X: Tensor, Y: Tensor) -> Tensor:
        L, F = self._lift(X, Y)
        half = F @ L.mT
        return half + half.mT

    def sharp(self, X: Tensor, W: Tensor) -> Tensor:
        half = 2 * W @ self._point(X)
        return half + half.mT

    def dist2(self, X: Tensor, Y: Tensor) -> Tensor:
        _, F = self._lift(X, Y)
        return (F * F).sum((-2, -1))

    def geodesic(self, X: Tensor, Y: Tensor, t: Tensor | float) -> Tensor:
        L, F = self._lift(X, Y)
        return self._square(L, X, t * F)

    def exp_domain(self, X: Tensor, V: Tensor) -> Tensor:
        """The t at which I + t 𝓛_X[V] becomes singular."""
        if X.shape[-1] == 0 or self.slope == 0:
            return super().exp_domain(X, V)
        w = eigvalsh(self.slope * self._lyapunov(X, V), check=False)
        return time_to_zero(w.amin(-1))

    def mean(self, X: Tensor, weights: Tensor, tol: float | None = None) -> Tensor:
        if self.offset == 0:
            return wasserstein_mean(X, weights, tol=tol, check=False)

        def step(C: Tensor) -> tuple[Tensor, Tensor]:
            L, F = self._lift(C[..., None, :, :], X)
            move = (weights[..., None, None] * F).sum(-3)
            return self._square(L[..., 0, :, :], C, move), torch.linalg.matrix_norm(move)

        return iterate(step, (weights[..., None, None] * X).sum(-3), "BuresWasserstein.mean", tol)

    def identity(self, X: Tensor) -> Tensor:
        one = torch.eye(X.shape[-1], dtype=X.dtype, device=X.device)
        return one if self.offset == 0 else 0 * one

    def transport(self, X: Tensor, Y: Tensor, V: Tensor) -> Tensor:
        """By a pole ladder; see `pole_ladder`. It is linear, whatever the coordinates of V."""
        L, F = self._lift(X, Y)
        return pole_ladder.transport(V, L, self.slope * F)


@dataclass(frozen=True)
class BuresWasserstein(Pullback):
    """d² = (tr X + tr Y - 2 tr (X^½ Y X^½)^½)/(4θ²) of the powers X = P^2θ, Y = Q^2θ.

    θ = ½ is the Bures-Wasserstein metric: the 2-Wasserstein distance of centred Gaussians, of
    nonnegative curvature, incomplete, invariant under rotations. At θ = 0 it is half the
    log-Euclidean distance. `transport` has no closed form: it climbs pole ladders until their
    estimate of its error is below eps^⅔ of its norm (see `pole_ladder`), and warns
    (ConvergenceWarning) where that stays above √eps, as it may beyond condition numbers of 1e3
    of the optimal map between the points.

    Args:
        theta: Any number.
        domain: What exp does where I + 𝓛_P[V] is not positive definite; see `Pullback`.
    """

    theta: float = 0.5
    domain: inputs.Domain = "raise"

    def __post_init__(self) -> None:
        inputs.check_theta(self.theta)
        inputs.check_domain(self.domain)

    @property
    def chart(self) -> Chart:
        """P^2θ; for small θ (P^2θ - I)/(2θ), which goes over into the logarithm."""
        tau = 2 * self.theta
        return box_cox(tau) if abs(tau) < SMALL_THETA else power(tau)

    @property
    def geometry(self) -> BuresWassersteinGeometry:
        """Positive definite matrices with the metric of θ = ½."""
        tau = 2 * self.theta
        if abs(tau) < SMALL_THETA:
            return BuresWassersteinGeometry(1.0, tau)
        return BuresWassersteinGeometry()

    @property
    def scale(self) -> float:
        """1/(4θ²), which the chart of small θ contains."""
        tau = 2 * self.theta
        return 1.0 if abs(tau) < SMALL_THETA else 1 / tau**2


@dataclass(frozen=True)
class GeneralizedBuresWasserstein(Pullback):
    """d² = tr(M^-1 P) + tr(M^-1 Q) - 2 tr (M^-1 P M^-1 Q)^½: Bures-Wasserstein seen from M.

    Equal to `BuresWasserstein` for M = I; at P = M its inner product is a quarter of the
    affine-invariant one. Only rotations that leave M as it is are isometries. Source: Han et
    al. 2023.

    Args:
        weight: M, symmetric positive definite (n, n): a tensor, an array or nested sequences.
            It is kept as numbers, so that metrics compare and hash.
        domain: What exp does where its geodesic has ended; see `Pullback`.
    """

    weight: Tensor | Sequence[Sequence[float]]
    domain: inputs.Domain = "raise"

    def __post_init__(self) -> None:
        inputs.check_domain(self.domain)
        object.__setattr__(self, "weight", inputs.positive_matrix(self.weight, "weight"))

    @property
    def chart(self) -> Congruence:
        """P -> C^-1 P C^-T with M = C C^T."""
        return Congruence(cast(tuple[tuple[float, ...], ...], self.weight))

    @property
    def geometry(self) -> BuresWassersteinGeometry:
        """Positive definite matrices with the metric of M = I."""
        return BuresWassersteinGeometry()
