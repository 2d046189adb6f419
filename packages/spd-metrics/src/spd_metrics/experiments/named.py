"""The metrics that experiments compare, by the names of their rows."""

from spd_metrics.affine_invariant import AffineInvariant
from spd_metrics.log_cholesky import LogCholesky
from spd_metrics.log_euclidean import LogEuclidean
from spd_metrics.metric import Pullback

METRICS: dict[str, Pullback] = {
    "affine-invariant": AffineInvariant(),
    "affine-invariant, θ=½": AffineInvariant(theta=0.5),
    "log-Euclidean": LogEuclidean(),
    "log-Cholesky": LogCholesky(),
    "log-Cholesky, θ=½": LogCholesky(theta=0.5),
}
