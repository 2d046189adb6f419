"""The log-Euclidean metric (Arsigny et al. 2007): matrices are compared by their logarithms."""

from dataclasses import dataclass

from spd_metrics import inputs
from spd_metrics.charts import LOGARITHM, Spectral
from spd_metrics.euclidean import Euclidean
from spd_metrics.metric import Pullback


@dataclass(frozen=True)
class LogEuclidean(Pullback):
    """d(P, Q) = ‖log P - log Q‖ with ‖V‖² = alpha ‖V‖_F² + beta (tr V)².

    Flat, complete, invariant under rotations, inversion and a common scale. Geodesics,
    transport and means do not depend on alpha and beta. P ⊕ Q = exp(log P + log Q).

    Args:
        alpha: > 0.
        beta: > -alpha/n for n x n matrices.
    """

    alpha: float = 1.0
    beta: float = 0.0

    def __post_init__(self) -> None:
        inputs.check_alpha_beta(self.alpha, self.beta)

    @property
    def chart(self) -> Spectral:
        """The matrix logarithm."""
        return LOGARITHM

    @property
    def geometry(self) -> Euclidean:
        """Symmetric matrices with the inner product of alpha and beta."""
        return Euclidean(self.alpha, self.beta)
