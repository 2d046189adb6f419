"""Scores of flat metrics: s <f(S) - f(P), A'>, one product of matrices and a number a class.

f are coordinates in which the metric is Euclidean. A point enters by <f(P), A'> alone.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from linalg_kernels import cholesky, errors, logm
from linalg_kernels.transforms import inspect
from spd_metrics import CholeskyLog, LogCholesky
from spd_metrics.charts import box_cox, half_lower, power
from spd_metrics.inputs import Kind
from torch import Tensor

from rmlr.form import Classes, Matrices, Samples, Theta, is_small, matrix_power, trace_weights
from rmlr.parametrize import CholeskyOfPower, Exponential, LowerFactor, Trivialisation

Scores = Float[Tensor, "b c"]


class Flat:
    """What flat forms share: scores from coordinates."""

    @property
    def kind(self) -> Kind:
        """Tangent vectors are symmetric unless a form says otherwise."""
        return "symmetric"

    @property
    def factor(self) -> Theta:
        """s."""
        return 1.0

    def weights(self, A: Classes) -> Classes:
        """A'."""
        raise NotImplementedError

    def scores(self, F: Samples, X: Classes, A: Classes, memory: int | None = None) -> Scores:  # noqa: ARG002
        """s <F_i - X_k, A'_k>. Nothing is held for pairs, whatever the bound of memory."""
        W = self.weights(A).flatten(-2)
        offset = torch.linalg.vecdot(X.flatten(-2), W)
        return self._scaled(torch.addmm(-offset, F.flatten(-2), W.mT))

    def scores_with_bias(
        self, F: Samples, A: Classes, bias: Float[Tensor, " c"]
    ) -> Scores:
        """s <F_i, A'_k> - bias_k."""
        return self._scaled(F.flatten(-2) @ self.weights(A).flatten(-2).mT) - bias

    def _scaled(self, scores: Tensor) -> Tensor:
        factor = self.factor
        return scores if isinstance(factor, float) and factor == 1 else factor * scores


@dataclass(frozen=True)
class LogEuclideanForm(Flat):
    """<log S - log P, A>^(alpha, beta). Points are exp of symmetric matrices: no logarithm."""

    alpha: float
    beta: float

    @property
    def trivialisation(self) -> Exponential:
        return Exponential()

    def features(self, S: Matrices) -> Matrices:
        return logm(S, nonpos="raise", name="S")

    def place(self, P: Classes) -> Classes:
        return logm(P, nonpos="raise", name="P")

    def place_of(self, z: Tensor) -> Classes:
        return self.trivialisation.log(z)

    def weights(self, A: Classes) -> Classes:
        return trace_weights(A, self.alpha, self.beta)


@dataclass(frozen=True)
class PowerEuclideanForm(Flat):
    """<S^θ - P^θ, A>^(alpha, beta)/θ."""

    theta: Theta
    alpha: float
    beta: float

    @property
    def factor(self) -> Theta:
        return 1.0 if is_small(self.theta) else 1 / self.theta

    @property
    def trivialisation(self) -> Trivialisation:
        return Exponential() if is_small(self.theta) else CholeskyOfPower(self.theta)

    def _chart(self, S: Matrices, name: str) -> Matrices:
        theta = self.theta
        if isinstance(theta, Tensor):
            return matrix_power(S, theta, name)
        if theta == 1:
            # Linear in S: nothing has to be decomposed, and definiteness is not looked at.
            errors.require_float(S, name)
            errors.require_square(S, name)
            return inspect(S, lambda T: errors.check_matrices(T, name))
        return (box_cox(theta) if is_small(theta) else power(theta))(S, name)

    def features(self, S: Matrices) -> Matrices:
        return self._chart(S, "S")

    def place(self, P: Classes) -> Classes:
        return self._chart(P, "P")

    def place_of(self, z: Tensor) -> Classes:
        chosen = self.trivialisation
        return self.place(chosen.point(z)) if is_small(self.theta) else chosen.power(z)  # ty: ignore[unresolved-attribute]

    def weights(self, A: Classes) -> Classes:
        return trace_weights(A, self.alpha, self.beta)


def _diagonal(M: Tensor) -> Tensor:
    return M.diagonal(dim1=-2, dim2=-1)


@dataclass(frozen=True)
class CholeskyForm(Flat):
    """<⌊K⌋ - ⌊L⌋ + h(K) - h(L), A'>/s, K and L being the Cholesky factors of S^s and P^s.

    h(L) is the diagonal of (L^a - 1)/a, of log L for a = 0; A' is A_½, its diagonal times
    `diagonal_weights`. Log-Cholesky: s = θ, a = 0. Power-Cholesky: s = 1, a = θ.
    Bures-Wasserstein-Cholesky: s = 1, a = θ/2, weights 1/(4 M). With `kind` "lower" samples and
    points are factors themselves, and A' is A.
    """

    s: Theta = 1.0
    a: Theta = 0.0
    diagonal_weights: tuple[float, ...] = (1.0,)
    kind: Kind = "symmetric"

    @property
    def factor(self) -> Theta:
        return 1 / self.s

    @property
    def trivialisation(self) -> Trivialisation:
        return LowerFactor() if self.kind == "lower" else CholeskyOfPower(self.s)

    def _of_log(self, log_diagonal: Tensor) -> Tensor:
        if not isinstance(self.a, Tensor) and self.a == 0:
            return log_diagonal
        return torch.expm1(self.a * log_diagonal) / self.a

    def _factor(self, S: Matrices, name: str) -> Matrices:
        if self.kind == "lower":
            return CholeskyLog().chart(S, name)
        if isinstance(self.s, Tensor) or self.s != 1:
            S = matrix_power(S, self.s, name)
        return cholesky(S, name=name)

    def _coordinates(self, S: Matrices, name: str) -> Matrices:
        L = self._factor(S, name)
        return L.tril(-1) + torch.diag_embed(self._of_log(torch.log(_diagonal(L))))

    def features(self, S: Matrices) -> Matrices:
        return self._coordinates(S, "S")

    def place(self, P: Classes) -> Classes:
        return self._coordinates(P, "P")

    def place_of(self, z: Tensor) -> Classes:
        Z = self.trivialisation.log_factor(z)  # ty: ignore[unresolved-attribute]
        if not isinstance(self.a, Tensor) and self.a == 0:
            return Z
        return Z.tril(-1) + torch.diag_embed(self._of_log(_diagonal(Z)))

    def weights(self, A: Classes) -> Classes:
        n = A.shape[-1]
        if len(self.diagonal_weights) not in (1, n):
            raise ValueError(
                f"weight of the metric must have 1 or n={n} numbers, "
                f"got {len(self.diagonal_weights)}"
            )
        A = A.tril() if self.kind == "lower" else half_lower(A)
        if set(self.diagonal_weights) == {1.0}:
            return A
        weight = torch.tensor(self.diagonal_weights, dtype=A.dtype, device=A.device)
        return A.tril(-1) + torch.diag_embed(weight * _diagonal(A))


@dataclass(frozen=True)
class SmallLogCholeskyForm(Flat):
    """The log-Cholesky form near θ = 0, in the coordinates that go over into the limit."""

    metric: LogCholesky

    @property
    def trivialisation(self) -> Exponential:
        return Exponential()

    def features(self, S: Matrices) -> Matrices:
        return self.metric.chart(S, "S")

    def place(self, P: Classes) -> Classes:
        return self.metric.chart(P, "P")

    def place_of(self, z: Tensor) -> Classes:
        return self.place(self.trivialisation.point(z))

    def weights(self, A: Classes) -> Classes:
        return half_lower(A)


