"""Rotations SO(n) with the bi-invariant metric d²(R, S) = ‖log(R^T S)‖_F² (radians, squared)."""

import math
import warnings
from dataclasses import dataclass

import torch
from jaxtyping import Float
from linalg_kernels import ConvergenceWarning, so_exp, so_log
from linalg_kernels.barycenter import default_tol
from torch import Tensor

from liebn.pool import Pool

Matrix = Float[Tensor, "*batch n n"]

_MOST_STEPS = 200


@dataclass(frozen=True)
class RotationPolar:
    """Rotations by their principal logarithms."""

    group: "RotationGroup"
    V: Tensor
    constant: bool

    def dist2(self) -> Float[Tensor, "*batch"]:
        """‖log R‖_F²: twice the sum of squared angles."""
        V = self.V.detach() if self.constant else self.V
        return (V * V).sum((-2, -1))

    def moved(self, factor: Float[Tensor, "..."], forth: Float[Tensor, "..."]) -> Matrix:
        """exp(factor · log R), translated."""
        return self.group.act(forth, so_exp(factor * self.V, check=False))


@dataclass(frozen=True)
class RotationGroup:
    """Coordinates are the rotation matrices themselves, any n.

    The mean is local: it is unique where all rotations lie within π/2 of it. It starts at the
    first rotation of the batch (Manton 2004, Algorithm 1), so that few Karcher steps depend
    on which one comes first.

    Args:
        left: Translate by Q R; False: by R Q. The metric is invariant under both.

    Source: Chen et al., ICLR 2024, Appendix H.
    """

    left: bool = True

    def chart(self, P: Matrix, name: str = "X") -> Matrix:  # noqa: ARG002
        """P. Every element is checked when its logarithm is taken."""
        return P

    def chart_inverse(self, X: Matrix) -> Matrix:
        """X."""
        return X

    def neutral(self, n: int) -> Float[Tensor, "n n"]:
        """I."""
        return torch.eye(n)

    def exp(self, V: Matrix) -> Matrix:
        """exp V."""
        return so_exp(V, check=False)

    def log(self, X: Matrix) -> Matrix:
        """The principal logarithm."""
        return so_log(X)

    def translation(self, X: Matrix) -> Matrix:
        """X."""
        return X

    def inverse_translation(self, X: Matrix) -> Matrix:
        """X^T."""
        return X.mT

    def act(
        self, A: Float[Tensor, "*#batch n n"], X: Float[Tensor, "*#batch n n"]
    ) -> Float[Tensor, "*batch n n"]:
        """A X, or X A for right translations."""
        return A @ X if self.left else X @ A

    def lift(self, Z: Matrix) -> Matrix:
        """exp((Z - Z^T)/2)."""
        return so_exp(Z, check=False)

    def lift_inverse(self, X: Matrix) -> Matrix:
        """The principal logarithm."""
        return so_log(X)

    def polar(self, back: Float[Tensor, "..."], X: Matrix, *, constant: bool) -> RotationPolar:
        """By the logarithm of what `act` gives."""
        return RotationPolar(self, so_log(self.act(back, X)), constant)

    def geodesic(self, X: Matrix, Y: Matrix, t: float) -> Matrix:
        """X exp(t log(X^T Y))."""
        if t == 1:
            return Y
        return X @ so_exp(t * so_log(X.mT @ Y), check=False)

    def mean(self, X: Matrix, pool: Pool, steps: int | None) -> Float[Tensor, "*sets n n"]:
        """M <- M exp(mean_i log(M^T X_i)) from the first element; None: to convergence."""
        M = pool.first(X)
        tol = default_tol(X.dtype) * math.sqrt(X.shape[-1])
        for _ in range(_MOST_STEPS if steps is None else steps):
            J = pool.mean(so_log(pool.spread(M).mT @ X))
            if steps is None and not bool((torch.linalg.matrix_norm(J.detach()) > tol).any()):
                return M
            M = M @ so_exp(J, check=False)
        if steps is None:
            warnings.warn(
                f"the mean rotation did not converge to {tol:.1g} in {_MOST_STEPS} steps",
                ConvergenceWarning,
                stacklevel=2,
            )
        return M
