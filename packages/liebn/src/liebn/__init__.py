"""Batch normalisation on Lie groups: SPD matrices and rotations, in PyTorch."""

from liebn.batch_norm import LieBatchNorm
from liebn.group import LieGroup, Polar
from liebn.groups import (
    AffineInvariantGroup,
    BuresWassersteinCholeskyGroup,
    CholeskyRightInvariantGroup,
    LogCholeskyGroup,
    LogEuclideanGroup,
    PowerCholeskyGroup,
    RotationGroup,
)

__all__ = [
    # layers
    "LieBatchNorm",
    # groups
    "AffineInvariantGroup", "LogEuclideanGroup", "LogCholeskyGroup", "CholeskyRightInvariantGroup",
    "PowerCholeskyGroup", "BuresWassersteinCholeskyGroup", "RotationGroup",
    # what a group is
    "LieGroup", "Polar",
]  # fmt: skip
