"""Riemannian metrics on SPD and Cholesky manifolds, gyro operations, means and SPD layers."""

from spd_metrics.affine_invariant import AffineInvariant
from spd_metrics.bures_wasserstein import BuresWasserstein, GeneralizedBuresWasserstein
from spd_metrics.cholesky_product import (
    BuresWassersteinCholesky,
    CholeskyBuresWasserstein,
    CholeskyLog,
    CholeskyPower,
    PowerCholesky,
)
from spd_metrics.layers import (
    BiMap,
    CovPool,
    LogEig,
    ReEig,
    RiemannianResidual,
    SPDNet,
    SPDParameter,
    SpectralField,
)
from spd_metrics.log_cholesky import LogCholesky
from spd_metrics.log_euclidean import LogEuclidean
from spd_metrics.metric import Metric, Pullback
from spd_metrics.parametrize import CholeskyExp, SymmetricExp
from spd_metrics.power_euclidean import PowerEuclidean

__all__ = [
    # metrics on symmetric positive definite matrices
    "LogEuclidean", "AffineInvariant", "LogCholesky", "PowerEuclidean", "BuresWasserstein",
    "GeneralizedBuresWasserstein", "PowerCholesky", "BuresWassersteinCholesky",
    # metrics on Cholesky factors
    "CholeskyLog", "CholeskyPower", "CholeskyBuresWasserstein",
    # layers of SPD networks, and parametrisations of their parameters
    "BiMap", "ReEig", "LogEig", "CovPool", "SPDParameter", "RiemannianResidual", "SpectralField",
    "SPDNet", "SymmetricExp", "CholeskyExp",
    # what a metric is, and how one is made
    "Metric", "Pullback",
]  # fmt: skip
