"""Riemannian metrics on SPD and Cholesky manifolds, gyro operations, means and SPD layers."""

from spd_metrics.affine_invariant import AffineInvariant
from spd_metrics.log_cholesky import LogCholesky
from spd_metrics.log_euclidean import LogEuclidean
from spd_metrics.metric import Metric, Pullback

__all__ = [
    # metrics on symmetric positive definite matrices
    "LogEuclidean", "AffineInvariant", "LogCholesky",
    # what a metric is, and how one is made
    "Metric", "Pullback",
]  # fmt: skip
