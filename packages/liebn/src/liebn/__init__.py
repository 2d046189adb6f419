"""Batch normalisation on Lie groups: SPD matrices and rotations, in PyTorch."""

from liebn.batch_norm import LieBatchNorm
from liebn.domain import DomainLieBatchNorm, refitting
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
from liebn.roll_call import LostProcessError
from liebn.schedule import MomentumSchedule, momenta
from liebn.sync import SyncLieBatchNorm, convert_sync

__all__ = [
    # layers
    "LieBatchNorm", "DomainLieBatchNorm", "SyncLieBatchNorm", "convert_sync",
    "LostProcessError",
    # domains
    "refitting", "momenta", "MomentumSchedule",
    # groups
    "AffineInvariantGroup", "LogEuclideanGroup", "LogCholeskyGroup", "CholeskyRightInvariantGroup",
    "PowerCholeskyGroup", "BuresWassersteinCholeskyGroup", "RotationGroup",
    # what a group is
    "LieGroup", "Polar",
]  # fmt: skip
