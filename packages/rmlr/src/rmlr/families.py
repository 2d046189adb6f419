"""Which form the scores of a metric take (Chen et al., NeurIPS 2024, Theorem 4.2)."""

from collections.abc import Callable
from dataclasses import dataclass

from linalg_kernels import errors
from linalg_kernels.packed import symmetric, triangular
from linalg_kernels.transforms import inspect
from spd_metrics import (
    AffineInvariant,
    BuresWasserstein,
    BuresWassersteinCholesky,
    CholeskyBuresWasserstein,
    CholeskyLog,
    CholeskyPower,
    LogCholesky,
    LogEuclidean,
    PowerCholesky,
    PowerEuclidean,
)
from spd_metrics.inputs import Kind, positive_numbers
from torch import Tensor

from rmlr.curved import AffineInvariantForm, BuresWassersteinForm
from rmlr.flat import CholeskyForm, LogEuclideanForm, PowerEuclideanForm, SmallLogCholeskyForm
from rmlr.form import Classes, Form, Matrices, Theta, is_small
from rmlr.general import Carry, Geometry, carried, general_scores
from rmlr.parametrize import Exponential, LowerFactor, Trivialisation


@dataclass(frozen=True)
class GeneralForm:
    """`general_scores`, for any geometry."""

    metric: Geometry
    carry: Carry = carried

    @property
    def kind(self) -> Kind:
        return getattr(getattr(self.metric, "chart", None), "kind", "symmetric")

    @property
    def trivialisation(self) -> Trivialisation:
        return LowerFactor() if self.kind == "lower" else Exponential()

    def features(self, S: Matrices) -> Matrices:
        errors.require_float(S, "S")
        errors.require_square(S, "S")
        return inspect(S, lambda T: errors.check_finite(T, "S"))

    def place(self, P: Classes) -> Classes:
        return P

    def place_of(self, z: Tensor) -> Classes:
        return self.trivialisation.point(z)

    def scores(self, F: Tensor, X: Tensor, a: Tensor, memory: int | None = None) -> Tensor:
        A = triangular(a) if self.kind == "lower" else symmetric(a)
        return general_scores(self.metric, F, X, A, carry=self.carry, memory=memory)


def _bures_wasserstein_weights(metric: CholeskyBuresWasserstein) -> tuple[float, ...]:
    weight = positive_numbers(metric.weight, "weight")
    numbers = weight if isinstance(weight, tuple) else (weight,)
    return tuple(0.25 / m for m in numbers)


def _log_cholesky(metric: LogCholesky, theta: Theta) -> Form:
    if is_small(theta):
        return SmallLogCholeskyForm(metric)
    return CholeskyForm(s=theta)


def _power_cholesky(metric: CholeskyPower, theta: Theta) -> Form:
    return CholeskyForm(a=theta, of_factors=metric.chart.kind == "lower")


def _weighted_cholesky(metric: CholeskyBuresWasserstein, theta: Theta) -> Form:
    weights = _bures_wasserstein_weights(metric)
    return CholeskyForm(
        a=theta / 2, diagonal_weights=weights, of_factors=metric.chart.kind == "lower"
    )


def _affine_invariant(metric: AffineInvariant, theta: Theta) -> Form:
    if is_small(theta):
        return GeneralForm(metric)
    return AffineInvariantForm(theta, metric.alpha, metric.beta)


def _bures_wasserstein(metric: BuresWasserstein, theta: Theta) -> Form:
    return GeneralForm(metric) if is_small(2 * theta) else BuresWassersteinForm(theta)


def _power_euclidean(metric: PowerEuclidean, theta: Theta) -> Form:
    return PowerEuclideanForm(theta, metric.alpha, metric.beta)


_WITH_THETA: dict[type, Callable[..., Form]] = {
    AffineInvariant: _affine_invariant,
    PowerEuclidean: _power_euclidean,
    LogCholesky: _log_cholesky,
    BuresWasserstein: _bures_wasserstein,
    PowerCholesky: _power_cholesky,
    CholeskyPower: _power_cholesky,
    BuresWassersteinCholesky: _weighted_cholesky,
    CholeskyBuresWasserstein: _weighted_cholesky,
}


def has_theta(metric: Geometry) -> bool:
    """Whether the scores of `metric` have a closed form with a power θ that can be learned."""
    return type(metric) in _WITH_THETA


def form_of(metric: Geometry, theta: Theta | None = None) -> Form:
    """The closed form of the scores under `metric`, or `GeneralForm` where there is none.

    Metrics are known by their exact class: one derived from a family is a geometry of its own.
    `theta` takes the place of the metric's.
    """
    if type(metric) is LogEuclidean:
        return LogEuclideanForm(metric.alpha, metric.beta)
    if type(metric) is CholeskyLog:
        return CholeskyForm(of_factors=True)
    make = _WITH_THETA.get(type(metric))
    if make is None:
        return GeneralForm(metric)
    return make(metric, float(metric.theta) if theta is None else theta)  # ty: ignore[missing-attribute]
