"""Scores of curved metrics, in which a point matters in full.

The published form of the Bures-Wasserstein score has a Lyapunov equation 𝓛 in it,

    ⟨(P^2θ S^2θ)^½ + (S^2θ P^2θ)^½ - 2 P^2θ, 𝓛_{P^2θ}[L A L^T]⟩/(4θ),   P^2θ = L L^T.

None is needed: with M = L^T S^2θ L the first root is L M^½ L^-1, and W = L^T 𝓛[L A L^T] L^-T
satisfies W + W^T = A, which leaves ⟨M^½ - L^T L, A⟩/(4θ).
"""

from dataclasses import dataclass

import torch
from linalg_kernels import cholesky, expm, scalar
from linalg_kernels.packed import symmetric
from spd_metrics.euclidean import check_alpha_beta
from spd_metrics.inputs import Kind
from torch import Tensor

from rmlr.chunks import in_chunks
from rmlr.congruence_trace import congruence_trace
from rmlr.defined import check_defined
from rmlr.form import Classes, Matrices, Theta, matrix_power
from rmlr.parametrize import CholeskyOfPower, Exponential

_INDEFINITE = (
    "must be positive definite, but is not to working precision; add shrinkage, as "
    "linalg_kernels.shrink_covariance does"
)

_PAIR_MATRICES = 3
"""n x n matrices that a pair takes: its function, the derivative, and room for a block at work."""


def _trace_weights(A: Classes, alpha: float, beta: float) -> Classes:
    """alpha A + beta tr(A) I, with which a Frobenius product is the one of alpha and beta."""
    n = A.shape[-1]
    check_alpha_beta(n, alpha, beta)
    A = A if alpha == 1 else alpha * A
    if beta == 0:
        return A
    trace = beta / alpha * A.diagonal(dim1=-2, dim2=-1).sum(-1)
    return A + trace[:, None, None] * torch.eye(n, dtype=A.dtype, device=A.device)


@dataclass(frozen=True)
class AffineInvariantForm:
    """⟨log(P^-θ/2 S^θ P^-θ/2), A⟩^(alpha, beta)/θ."""

    theta: Theta
    alpha: float
    beta: float
    kind: Kind = "symmetric"

    @property
    def trivialisation(self) -> Exponential:
        return Exponential()

    def features(self, S: Matrices) -> Matrices:
        return matrix_power(S, self.theta, "S")

    def place(self, P: Classes) -> Classes:
        """P^-θ/2."""
        return matrix_power(P, -self.theta / 2, "P")

    def place_of(self, z: Tensor) -> Classes:
        return expm(-self.theta / 2 * self.trivialisation.log(z))

    def scores(self, F: Tensor, X: Tensor, a: Tensor, memory: int | None = None) -> Tensor:
        def score(F: Tensor, K: Tensor, W: Tensor) -> Tensor:
            return congruence_trace(F, K, W, scalar.LOG)

        W = _trace_weights(symmetric(a), self.alpha, self.beta)
        logs = in_chunks(score, (F,), (X, W), pair_matrices=_PAIR_MATRICES, memory=memory)
        check_defined(logs, "S", _INDEFINITE)
        return logs / self.theta


@dataclass(frozen=True)
class BuresWassersteinForm:
    """⟨(L^T S^2θ L)^½ - L^T L, A⟩/(4θ) with P^2θ = L L^T."""

    theta: Theta
    kind: Kind = "symmetric"

    @property
    def trivialisation(self) -> CholeskyOfPower:
        return CholeskyOfPower(2 * self.theta)

    def features(self, S: Matrices) -> Matrices:
        return matrix_power(S, 2 * self.theta, "S")

    def place(self, P: Classes) -> Classes:
        """L."""
        return cholesky(matrix_power(P, 2 * self.theta, "P"), name="P")

    def place_of(self, z: Tensor) -> Classes:
        return self.trivialisation.factor(z)

    def scores(self, F: Tensor, X: Tensor, a: Tensor, memory: int | None = None) -> Tensor:
        def score(F: Tensor, L: Tensor, A: Tensor) -> Tensor:
            return congruence_trace(F, L, A, scalar.SQRT)

        A = symmetric(a)
        roots = in_chunks(score, (F,), (X, A), pair_matrices=_PAIR_MATRICES, memory=memory)
        check_defined(roots, "S", _INDEFINITE)
        return (roots - ((X @ A) * X).sum((-2, -1))) / (4 * self.theta)
