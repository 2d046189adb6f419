"""SPD matrices under the product of log-Cholesky coordinates, with the θ-log-Cholesky metric."""

from dataclasses import dataclass

from jaxtyping import Float
from linalg_kernels import chol_log, from_chol_log
from spd_metrics import LogCholesky
from torch import Tensor

from liebn.groups.flat import Flat, squares
from liebn.groups.power import check_power, power

Matrix = Float[Tensor, "*batch n n"]


@dataclass(frozen=True)
class LogCholeskyGroup(Flat):
    """Coordinates ⌊L⌋ + log diag L of P^θ = L L^T; d²(P, I) = ‖X‖_F²/θ².

    Args:
        theta: Power of the deformation, not 0; 1 costs no eigendecomposition.

    Source: Chen et al., ICLR 2024, Table 1 (θ-LCM).
    """

    theta: float = 1.0

    def __post_init__(self) -> None:
        LogCholesky(self.theta)
        check_power(self.theta)

    def chart(self, P: Matrix, name: str = "X") -> Matrix:
        """⌊L⌋ + log diag L."""
        return chol_log(power(P, self.theta, name), name=name)

    def chart_inverse(self, X: Matrix) -> Matrix:
        """(L L^T)^(1/θ) with L = ⌊X⌋ + exp diag X."""
        return power(from_chol_log(X), 1 / self.theta, check=False)

    def lift(self, Z: Matrix) -> Matrix:
        """The lower triangle of Z."""
        return Z.tril()

    def lift_inverse(self, X: Matrix) -> Matrix:
        """X."""
        return X

    def norm2(self, X: Matrix) -> Float[Tensor, "*batch"]:
        """‖X‖_F²/θ²."""
        return squares(X) if self.theta == 1 else squares(X) / self.theta**2
