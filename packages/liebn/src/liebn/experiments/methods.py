"""The normalisations that experiments compare, by the names of their rows."""

import torch

from liebn.batch_norm import LieBatchNorm
from liebn.domain import DomainLieBatchNorm
from liebn.experiments.brooks import SPDNetBN
from liebn.experiments.network import Normalisation
from liebn.group import LieGroup
from liebn.groups import AffineInvariantGroup, LogCholeskyGroup, LogEuclideanGroup

GROUPS: dict[str, LieGroup] = {
    "AIM": AffineInvariantGroup(),
    "LEM": LogEuclideanGroup(),
    "LCM": LogCholeskyGroup(),
}
NONE = "no normalisation"


def shared(group: LieGroup) -> Normalisation:
    """One set of running statistics."""
    return lambda n: LieBatchNorm(group, n, dtype=torch.float64)


def specific(group: LieGroup) -> Normalisation:
    """Statistics of each domain."""
    return lambda n: DomainLieBatchNorm(group, n, dtype=torch.float64)


METHODS: dict[str, Normalisation | None] = {
    NONE: None,
    "SPDNetBN": lambda n: SPDNetBN(n, dtype=torch.float64),
    **{f"LieBN-{name}": shared(group) for name, group in GROUPS.items()},
    **{f"domain-specific LieBN-{name}": specific(group) for name, group in GROUPS.items()},
}
