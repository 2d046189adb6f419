"""Every metric under the conformance suite that users run on metrics of their own."""

from dataclasses import dataclass

import pytest
import torch
from spd_metrics import (
    AffineInvariant,
    BuresWasserstein,
    BuresWassersteinCholesky,
    CholeskyBuresWasserstein,
    CholeskyLog,
    CholeskyPower,
    GeneralizedBuresWasserstein,
    LogCholesky,
    LogEuclidean,
    PowerCholesky,
    PowerEuclidean,
    Pullback,
)
from spd_metrics.testing import (
    PROPERTIES,
    Sample,
    bad_input_is_named,
    check_metric,
    gradients_are_exact,
    repeated_eigenvalues_are_ordinary,
)

WEIGHT = ((2.0, 0.5, 0.1), (0.5, 1.0, -0.2), (0.1, -0.2, 0.7))

METRICS = [
    LogEuclidean(),
    LogEuclidean(alpha=1.5, beta=-0.1),
    AffineInvariant(),
    AffineInvariant(theta=0.5, beta=0.3),
    AffineInvariant(theta=-0.7),
    AffineInvariant(theta=1e-3, beta=0.2),
    LogCholesky(),
    LogCholesky(theta=0.5),
    LogCholesky(theta=-1.0),
    LogCholesky(theta=1e-3),
    LogCholesky(theta=0.0),
    PowerEuclidean(),
    PowerEuclidean(theta=0.5, beta=0.1),
    PowerEuclidean(theta=-1.0),
    PowerEuclidean(theta=1e-3),
    BuresWasserstein(),
    BuresWasserstein(theta=1e-3),
    PowerCholesky(),
    PowerCholesky(theta=-0.5),
    PowerCholesky(theta=1e-3),
    BuresWassersteinCholesky(theta=1.5, weight=2.0),
    CholeskyLog(),
    CholeskyPower(theta=0.5),
    CholeskyBuresWasserstein(theta=-1.0, weight=0.3),
]
SIZED = [
    GeneralizedBuresWasserstein(WEIGHT),
    BuresWassersteinCholesky(weight=(0.5, 1.0, 2.0)),
    CholeskyBuresWasserstein(theta=0.5, weight=(0.5, 1.0, 2.0)),
]


EACH = [
    pytest.param(
        prop,
        id=getattr(prop, "__name__", None),
        marks=[pytest.mark.bad_input] if prop is bad_input_is_named else [],
    )
    for prop in PROPERTIES
]


@pytest.mark.parametrize("prop", EACH)
@pytest.mark.parametrize("metric", METRICS + SIZED, ids=repr)
def test_property(metric, prop):
    prop(metric, Sample.draw(metric, n=3))


@pytest.mark.parametrize("prop", EACH)
@pytest.mark.parametrize("metric", METRICS, ids=repr)
def test_one_by_one(metric, prop):
    prop(metric, Sample.draw(metric, n=1))


@pytest.mark.parametrize("prop", EACH)
@pytest.mark.parametrize("metric", METRICS, ids=repr)
def test_single_precision(metric, prop):
    if prop in (gradients_are_exact, repeated_eigenvalues_are_ordinary):
        pytest.skip("finite differences are taken in double precision")
    prop(metric, Sample.draw(metric, n=3, dtype=torch.float32))


@pytest.mark.bad_input
def test_the_whole_suite_at_once():
    check_metric(LogEuclidean())


@pytest.mark.parametrize("metric", METRICS, ids=repr)
def test_no_rows(metric):
    nothing = torch.empty(2, 0, 0, dtype=torch.float64)
    assert metric.dist(nothing, nothing).tolist() == [0, 0]
    assert metric.log(nothing, nothing).shape == (2, 0, 0)
    assert metric.exp(nothing, nothing).shape == (2, 0, 0)
    assert metric.mean(nothing).shape == (0, 0)


# --- the suite must be able to fail ---------------------------------------------------------


@dataclass(frozen=True)
class _Wrong(LogEuclidean):
    """A metric whose one operation, named by `broken`, is off by a factor."""

    broken: str = ""

    def _spoil(self, name, value):
        return 1.001 * value if name == self.broken else value

    def inner(self, P, V, W):
        return self._spoil("inner", super().inner(P, V, W))

    def exp(self, P, V):
        return self._spoil("exp", super().exp(P, V))

    def log(self, P, Q):
        return self._spoil("log", super().log(P, Q))

    def dist(self, P, Q):
        return self._spoil("dist", super().dist(P, Q))

    def geodesic(self, P, Q, t):
        return self._spoil("geodesic", super().geodesic(P, Q, t))

    def transport(self, P, Q, V):
        return self._spoil("transport", super().transport(P, Q, V))

    def mean(self, X, weights=None):
        return self._spoil("mean", super().mean(X, weights))

    def pairwise_dist(self, P, Q):
        return self._spoil("pairwise_dist", super().pairwise_dist(P, Q))


@pytest.mark.parametrize(
    "broken",
    ["inner", "exp", "log", "dist", "geodesic", "transport", "mean", "pairwise_dist"],
)
def test_a_wrong_operation_is_found(broken):
    with pytest.raises(AssertionError, match="expected"):
        check_metric(_Wrong(broken=broken))


def test_a_missing_geometry_is_an_error():
    with pytest.raises(NotImplementedError):
        check_metric(Pullback())
