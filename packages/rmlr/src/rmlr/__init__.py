"""Riemannian multinomial logistic regression in PyTorch."""

from rmlr.general import (
    Geometry,
    carried,
    cholesky_translation,
    general_scores,
    parallel_transport,
)
from rmlr.log_eig import LogEigMLR
from rmlr.mlr import RiemannianMLR, scores
from rmlr.rotations import LieMLR, lie_scores

__all__ = [
    # SPD matrices
    "RiemannianMLR", "scores", "LogEigMLR",
    # rotations
    "LieMLR", "lie_scores",
    # any geometry
    "Geometry", "general_scores", "carried", "parallel_transport", "cholesky_translation",
]  # fmt: skip
