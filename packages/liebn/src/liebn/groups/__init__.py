"""Lie groups of matrices with left-invariant metrics."""

from liebn.groups.affine_invariant import AffineInvariantGroup, CholeskyRightInvariantGroup
from liebn.groups.cholesky_product import BuresWassersteinCholeskyGroup, PowerCholeskyGroup
from liebn.groups.log_cholesky import LogCholeskyGroup
from liebn.groups.log_euclidean import LogEuclideanGroup
from liebn.groups.rotation import RotationGroup

__all__ = [
    "AffineInvariantGroup",
    "BuresWassersteinCholeskyGroup",
    "CholeskyRightInvariantGroup",
    "LogCholeskyGroup",
    "LogEuclideanGroup",
    "PowerCholeskyGroup",
    "RotationGroup",
]
