"""The power-Euclidean metrics (Dryden et al. 2010): powers of matrices in a flat space."""

from dataclasses import dataclass

import torch
from linalg_kernels import eigvalsh, triangular_congruence
from torch import Tensor

from spd_metrics import inputs
from spd_metrics.charts import SMALL_THETA, Chart, box_cox, power
from spd_metrics.euclidean import Euclidean
from spd_metrics.geometry import time_to_zero
from spd_metrics.metric import Pullback


@dataclass(frozen=True)
class Cone(Euclidean):
    """Symmetric X with (1 - origin) I + slope X positive definite, in a flat space.

    With origin 1 and slope 1 this is the cone of the powers P^θ; with origin 0 and slope θ it
    is the image of P -> (P^θ - I)/θ.
    """

    slope: float = 1.0

    def exp_domain(self, X: Tensor, V: Tensor) -> Tensor:
        if X.shape[-1] == 0 or self.slope == 0:
            return super().exp_domain(X, V)
        identity = torch.eye(X.shape[-1], dtype=X.dtype, device=X.device)
        inside = self.slope * X + (1 - self.origin) * identity
        L = inputs.factor(inside, "P")
        w = eigvalsh(self.slope * triangular_congruence(L, V), check=False)
        return time_to_zero(w.amin(-1))


@dataclass(frozen=True)
class PowerEuclidean(Pullback):
    """d(P, Q) = ‖P^θ - Q^θ‖/|θ| with ‖V‖² = alpha ‖V‖_F² + beta (tr V)².

    Flat, incomplete, invariant under rotations. θ = 1 is the Euclidean, -1 the inverse
    Euclidean and ½ the square-root metric; θ = 0 is `LogEuclidean`.

    Args:
        theta: Any number.
        alpha: > 0.
        beta: > -alpha/n for n x n matrices.
        domain: What exp does where P^θ + Dφ_P V is not positive definite; see `Pullback`.
    """

    theta: float = 1.0
    alpha: float = 1.0
    beta: float = 0.0
    domain: inputs.Domain = "raise"

    def __post_init__(self) -> None:
        inputs.check_theta(self.theta)
        inputs.check_alpha_beta(self.alpha, self.beta)
        inputs.check_domain(self.domain)

    @property
    def chart(self) -> Chart:
        """P^θ; for small θ (P^θ - I)/θ, which goes over into the logarithm."""
        return box_cox(self.theta) if abs(self.theta) < SMALL_THETA else power(self.theta)

    @property
    def geometry(self) -> Euclidean:
        """The cone of positive definite matrices, or what (P^θ - I)/θ makes of it."""
        if self.theta == 0:
            return Euclidean(self.alpha, self.beta)
        if abs(self.theta) < SMALL_THETA:
            return Cone(self.alpha, self.beta, 0.0, self.theta)
        return Cone(self.alpha, self.beta, 1.0, 1.0)

    @property
    def scale(self) -> float:
        """1/θ², which the chart of small θ contains."""
        return 1.0 if abs(self.theta) < SMALL_THETA else 1 / self.theta**2
