"""The log-Cholesky metric (Lin 2019) and its power deformations."""

from dataclasses import dataclass

from spd_metrics import inputs
from spd_metrics.charts import (
    SMALL_THETA,
    Chart,
    CholeskyFactor,
    Composed,
    SmallCholeskyLog,
    box_cox,
    power,
)
from spd_metrics.cholesky_product import diagonal_power
from spd_metrics.euclidean import Euclidean
from spd_metrics.geometry import Geometry
from spd_metrics.metric import Pullback


@dataclass(frozen=True)
class LogCholesky(Pullback):
    """d(P, Q) = ‖φ(P^θ) - φ(Q^θ)‖_F/|θ| with φ(L L^T) = ⌊L⌋ + log diag L.

    Flat and complete. The order of the variables matters: neither rotations nor permutations
    are isometries, and a common scale changes distances.

    Args:
        theta: Power of the deformation; 1 costs one Cholesky factorisation a matrix. At 0
            the distance is that of the limit, ½‖D‖_F² - ¼‖diag D‖² with D = log P - log Q.
    """

    theta: float = 1.0

    def __post_init__(self) -> None:
        inputs.check_theta(self.theta)

    @property
    def chart(self) -> Chart:
        """The Cholesky factor of P^θ; for small θ its coordinates, which go over into a limit."""
        if abs(self.theta) < SMALL_THETA:
            return Composed(box_cox(self.theta), SmallCholeskyLog(self.theta))
        factor = CholeskyFactor()
        return factor if self.theta == 1 else Composed(power(self.theta), factor)

    @property
    def geometry(self) -> Geometry:
        """Cholesky factors with the diagonal log metric, or its flat coordinates."""
        return Euclidean() if abs(self.theta) < SMALL_THETA else diagonal_power(0.0)

    @property
    def scale(self) -> float:
        """1/θ², which the chart of small θ contains."""
        return 1.0 if abs(self.theta) < SMALL_THETA else 1 / self.theta**2
