"""Riemannian multinomial logistic regression in PyTorch."""

from rmlr.general import (
    Geometry,
    carried,
    cholesky_translation,
    general_scores,
    parallel_transport,
)
from rmlr.mlr import RiemannianMLR, scores

__all__ = [
    "RiemannianMLR", "scores",
    # any geometry
    "Geometry", "general_scores", "carried", "parallel_transport", "cholesky_translation",
]  # fmt: skip
