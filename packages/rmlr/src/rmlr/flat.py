"""Scores of flat metrics: s ⟨f(S) - f(P), A'⟩, one product of matrices and a number a class.

f are coordinates in which the metric is Euclidean. A point enters by ⟨f(P), A'⟩ alone. Points
and normals are packed (`linalg_kernels.packed`), so that nothing of size (classes, n, n) is formed.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from linalg_kernels import cholesky, errors, logm
from linalg_kernels.inner import inner_products, inner_products_at
from linalg_kernels.packed import diagonal_places, multiplicities, order, pack, pack_lower
from linalg_kernels.transforms import inspect
from spd_metrics import CholeskyLog, LogCholesky
from spd_metrics.charts import box_cox, power
from spd_metrics.euclidean import check_alpha_beta
from spd_metrics.inputs import Kind
from torch import Tensor

from rmlr.form import Matrices, Samples, Theta, is_small, matrix_power
from rmlr.parametrize import CholeskyOfPower, Exponential, LowerFactor, Trivialisation

Scores = Float[Tensor, "b c"]
Packed = Float[Tensor, "c m"]


def _halves(x: Packed) -> Packed:
    """x with its diagonal halved."""
    return x * (multiplicities(order(x), x.dtype, x.device) / 2).clamp(max=1)


class Flat:
    """What flat forms share: scores from coordinates.

    `triangular` says that f(S) is lower triangular, not symmetric.
    """

    triangular = False

    @property
    def kind(self) -> Kind:
        """Tangent vectors are symmetric unless a form says otherwise."""
        return "symmetric"

    @property
    def factor(self) -> Theta:
        """s."""
        return 1.0

    def weights(self, a: Packed) -> Packed:
        """A' as numbers."""
        raise NotImplementedError

    def place_of(self, z: Packed) -> Packed:
        """f(P) of the points with the unconstrained numbers z, as numbers."""
        raise NotImplementedError

    def scores(self, F: Samples, X: Packed, a: Packed, memory: int | None = None) -> Scores:  # noqa: ARG002
        """s ⟨F_i - X_k, A'_k⟩. Nothing is held for pairs, whatever the bound of memory."""
        w = self.weights(a)
        entries = X if self.triangular else X * multiplicities(order(X), X.dtype, X.device)
        return self._scaled(self._products(F, w, torch.linalg.vecdot(entries, w)))

    def scores_with_bias(self, F: Samples, a: Packed, bias: Float[Tensor, " c"]) -> Scores:
        """s ⟨F_i, A'_k⟩ - bias_k."""
        w = self.weights(a)
        if isinstance(self.factor, float) and self.factor == 1:
            return self._products(F, w, bias)
        return self._scaled(self._products(F, w, None)) - bias

    def scores_at(self, F: Samples, z: Packed, a: Packed) -> Scores:
        """`scores` at the points with the unconstrained numbers z."""
        return self.scores(F, self.place_of(z), a)

    def _products(self, F: Samples, w: Packed, shift: Float[Tensor, " c"] | None) -> Scores:
        """⟨F_i, A'_k⟩ - shift_k."""
        return inner_products(F, w, shift, lower=self.triangular)

    def _scaled(self, scores: Tensor) -> Tensor:
        factor = self.factor
        return scores if isinstance(factor, float) and factor == 1 else factor * scores


def _trace_weights(a: Packed, alpha: float, beta: float) -> Packed:
    """Of alpha A + beta tr(A) I, with which a Frobenius product is the one of alpha and beta."""
    n = order(a)
    check_alpha_beta(n, alpha, beta)
    w = a if alpha == 1 else alpha * a
    if beta == 0:
        return w
    places = diagonal_places(n, a.device)
    unit = torch.zeros(a.shape[-1], dtype=a.dtype, device=a.device).index_fill(0, places, 1.0)
    return w + beta * (a @ unit)[:, None] * unit


@dataclass(frozen=True)
class LogEuclideanForm(Flat):
    """⟨log S - log P, A⟩^(alpha, beta). Points are exp of symmetric matrices: no logarithm."""

    alpha: float
    beta: float

    @property
    def trivialisation(self) -> Exponential:
        return Exponential()

    def features(self, S: Matrices) -> Matrices:
        return logm(S, nonpos="raise", name="S")

    def place(self, P: Matrices) -> Packed:
        return pack(logm(P, nonpos="raise", name="P"))

    def place_of(self, z: Packed) -> Packed:
        """log P = Z."""
        return z

    def weights(self, a: Packed) -> Packed:
        return _trace_weights(a, self.alpha, self.beta)


@dataclass(frozen=True)
class PowerEuclideanForm(Flat):
    """⟨S^θ - P^θ, A⟩^(alpha, beta)/θ."""

    theta: Theta
    alpha: float
    beta: float

    @property
    def factor(self) -> Theta:
        return 1.0 if is_small(self.theta) else 1 / self.theta

    @property
    def trivialisation(self) -> Exponential | CholeskyOfPower:
        return Exponential() if is_small(self.theta) else CholeskyOfPower(self.theta)

    def features(self, S: Matrices) -> Matrices:
        if not isinstance(self.theta, Tensor) and self.theta == 1:
            # Linear in S: nothing has to be decomposed, and definiteness is not looked at.
            return inspect(S, lambda T: errors.check_matrices(T, "S"))
        return self._chart(S, "S")

    def _chart(self, S: Matrices, name: str) -> Matrices:
        theta = self.theta
        if isinstance(theta, Tensor):
            return matrix_power(S, theta, name)
        return (box_cox(theta) if is_small(theta) else power(theta))(S, name)

    def place(self, P: Matrices) -> Packed:
        return pack(self._chart(P, "P"))

    def place_of(self, z: Packed) -> Packed:
        chosen = self.trivialisation
        if isinstance(chosen, Exponential):
            return self.place(chosen.point(z))
        return pack_lower(chosen.power(z))

    def scores_at(self, F: Samples, z: Packed, a: Packed) -> Scores:
        """With ⟨P^θ, A'⟩ straight from the numbers of a Cholesky factor of P^θ."""
        if isinstance(self.trivialisation, Exponential):
            return super().scores_at(F, z, a)
        return self._scaled(inner_products_at(F, self.weights(a), z))

    def weights(self, a: Packed) -> Packed:
        return _trace_weights(a, self.alpha, self.beta)


@dataclass(frozen=True)
class CholeskyForm(Flat):
    """⟨⌊K⌋ - ⌊L⌋ + h(K) - h(L), A'⟩/s, K and L being the Cholesky factors of S^s and P^s.

    h(L) is the diagonal of (L^a - 1)/a, of log L for a = 0; A' is A_½, its diagonal times
    `diagonal_weights`. Log-Cholesky: s = θ, a = 0. Power-Cholesky: s = 1, a = θ.
    Bures-Wasserstein-Cholesky: s = 1, a = θ/2, weights 1/(4 M). With `of_factors` samples and
    points are factors themselves, and A' is A.
    """

    s: Theta = 1.0
    a: Theta = 0.0
    diagonal_weights: tuple[float, ...] = (1.0,)
    of_factors: bool = False

    triangular = True

    @property
    def kind(self) -> Kind:
        return "lower" if self.of_factors else "symmetric"

    @property
    def factor(self) -> Theta:
        return 1 / self.s

    @property
    def trivialisation(self) -> Trivialisation:
        return LowerFactor() if self.of_factors else CholeskyOfPower(self.s)

    def _of_log(self, log_diagonal: Tensor) -> Tensor:
        if not isinstance(self.a, Tensor) and self.a == 0:
            return log_diagonal
        return torch.expm1(self.a * log_diagonal) / self.a

    def _factor(self, S: Matrices, name: str) -> Matrices:
        if self.of_factors:
            return CholeskyLog().chart(S, name)
        if isinstance(self.s, Tensor) or self.s != 1:
            S = matrix_power(S, self.s, name)
        return cholesky(S, name=name)

    def _coordinates(self, S: Matrices, name: str) -> Matrices:
        L = self._factor(S, name)
        diagonal = L.diagonal(dim1=-2, dim2=-1)
        # Put in its place: a second triangle to add it to would cost as much as the factor.
        X = L.clone()
        X.diagonal(dim1=-2, dim2=-1).copy_(self._of_log(torch.log(diagonal)))
        return X

    def features(self, S: Matrices) -> Matrices:
        return self._coordinates(S, "S")

    def place(self, P: Matrices) -> Packed:
        return pack_lower(self._coordinates(P, "P"))

    def place_of(self, z: Packed) -> Packed:
        if not isinstance(self.a, Tensor) and self.a == 0:
            return z
        on_diagonal = multiplicities(order(z), z.dtype, z.device) == 1
        # Away from the diagonal expm1 could overflow, and 0 times its derivative is NaN.
        return torch.where(on_diagonal, self._of_log(torch.where(on_diagonal, z, 0)), z)

    def weights(self, a: Packed) -> Packed:
        n = order(a)
        if len(self.diagonal_weights) not in (1, n):
            raise ValueError(
                f"weight of the metric must have 1 or n={n} numbers, "
                f"got {len(self.diagonal_weights)}"
            )
        w = a if self.of_factors else _halves(a)
        if set(self.diagonal_weights) == {1.0}:
            return w
        weight = torch.tensor(self.diagonal_weights, dtype=a.dtype, device=a.device).expand(n)
        each = torch.ones(a.shape[-1], dtype=a.dtype, device=a.device)
        return w * each.index_copy(0, diagonal_places(n, a.device), weight)


@dataclass(frozen=True)
class SmallLogCholeskyForm(Flat):
    """The log-Cholesky form near θ = 0, in the coordinates that go over into the limit."""

    metric: LogCholesky

    triangular = True

    @property
    def trivialisation(self) -> Exponential:
        return Exponential()

    def features(self, S: Matrices) -> Matrices:
        return self.metric.chart(S, "S")

    def place(self, P: Matrices) -> Packed:
        return pack_lower(self.metric.chart(P, "P"))

    def place_of(self, z: Packed) -> Packed:
        return self.place(self.trivialisation.point(z))

    def weights(self, a: Packed) -> Packed:
        return _halves(a)
