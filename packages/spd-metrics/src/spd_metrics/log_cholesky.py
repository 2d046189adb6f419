"""The log-Cholesky metric (Lin 2019) and its power deformations."""

from dataclasses import dataclass

from spd_metrics import inputs
from spd_metrics.charts import Chart, CholeskyFactor, Composed, power
from spd_metrics.cholesky_product import DiagonalPowerGeometry, diagonal_power
from spd_metrics.metric import Pullback


@dataclass(frozen=True)
class LogCholesky(Pullback):
    """d(P, Q) = ‖φ(P^θ) - φ(Q^θ)‖_F/|θ| with φ(L L^T) = ⌊L⌋ + log diag L.

    Flat and complete. The order of the variables matters: neither rotations nor permutations
    are isometries, and a common scale changes distances.

    Args:
        theta: Power of the deformation, not 0; 1 costs one Cholesky factorisation a matrix.
    """

    theta: float = 1.0

    def __post_init__(self) -> None:
        inputs.check_theta(self.theta)

    @property
    def chart(self) -> Chart:
        """The Cholesky factor of P^θ."""
        factor = CholeskyFactor()
        return factor if self.theta == 1 else Composed(power(self.theta), factor)

    @property
    def geometry(self) -> DiagonalPowerGeometry:
        """Cholesky factors with the diagonal log metric."""
        return diagonal_power(0.0)

    @property
    def scale(self) -> float:
        """1/θ²."""
        return 1 / self.theta**2
