"""The metrics that experiments compare, by the names of their rows."""

from linalg_kernels import karcher_mean
from torch import Tensor

from spd_metrics.affine_invariant import AffineInvariant
from spd_metrics.bures_wasserstein import BuresWasserstein, GeneralizedBuresWasserstein
from spd_metrics.cholesky_product import BuresWassersteinCholesky, PowerCholesky
from spd_metrics.log_cholesky import LogCholesky
from spd_metrics.log_euclidean import LogEuclidean
from spd_metrics.metric import Pullback
from spd_metrics.power_euclidean import PowerEuclidean

METRICS: dict[str, Pullback] = {
    "affine-invariant": AffineInvariant(),
    "log-Euclidean": LogEuclidean(),
    "log-Cholesky": LogCholesky(),
    "log-Cholesky, θ=½": LogCholesky(theta=0.5),
    "Euclidean": PowerEuclidean(),
    "power-Euclidean, θ=½": PowerEuclidean(theta=0.5),
    "Bures-Wasserstein": BuresWasserstein(),
    "power-Cholesky": PowerCholesky(),
    "power-Cholesky, θ=½": PowerCholesky(theta=0.5),
    "Bures-Wasserstein-Cholesky": BuresWassersteinCholesky(),
    "Bures-Wasserstein-Cholesky, θ=½": BuresWassersteinCholesky(theta=0.5),
}


def metrics(X: Tensor) -> dict[str, Pullback]:
    """`METRICS`, and the weighted Bures-Wasserstein metric seen from the mean of X (b, n, n)."""
    weighted = GeneralizedBuresWasserstein(karcher_mean(X))
    return METRICS | {"generalised Bures-Wasserstein": weighted}
