"""SPD matrices under P ⊙ Q = exp(log P + log Q), with the (α, β)-log-Euclidean metric."""

from dataclasses import dataclass

from jaxtyping import Float
from linalg_kernels import expm, logm
from spd_metrics import LogEuclidean
from spd_metrics.euclidean import check_alpha_beta
from torch import Tensor

from liebn.groups.flat import Flat, squares

Matrix = Float[Tensor, "*batch n n"]


@dataclass(frozen=True)
class LogEuclideanGroup(Flat):
    """Coordinates log P; d²(P, I) = alpha ‖log P‖² + beta (tr log P)².

    Args:
        alpha: > 0.
        beta: > -alpha/n.

    Source: Chen et al., ICLR 2024, Table 1 ((α, β)-LEM).
    """

    alpha: float = 1.0
    beta: float = 0.0

    def __post_init__(self) -> None:
        LogEuclidean(self.alpha, self.beta)  # raises for parameters that make no metric

    def chart(self, P: Matrix, name: str = "X") -> Matrix:
        """log P."""
        return logm(P, nonpos="raise", name=name)

    def chart_inverse(self, X: Matrix) -> Matrix:
        """exp X."""
        return expm(X, check=False)

    def lift(self, Z: Matrix) -> Matrix:
        """(Z + Z^T)/2."""
        return (Z + Z.mT) / 2

    def lift_inverse(self, X: Matrix) -> Matrix:
        """X."""
        return X

    def norm2(self, X: Matrix) -> Float[Tensor, "*batch"]:
        """alpha ‖X‖_F² + beta (tr X)²."""
        check_alpha_beta(X.shape[-1], self.alpha, self.beta)
        value = self.alpha * squares(X)
        if self.beta == 0:
            return value
        return value + self.beta * X.diagonal(dim1=-2, dim2=-1).sum(-1).square()
