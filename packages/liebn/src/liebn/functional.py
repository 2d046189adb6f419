"""Batch normalisation on a Lie group as functions of tensors.

    P -> L_B(Exp_E(s/√(v² + ε) · Log_E(L_M^-1 P)))

with the mean M and the variance v² = mean d²(P_i, M) of a set, bias B and scale s. Source:
Chen et al., ICLR 2024, Algorithm 1.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from liebn.group import LieGroup, Polar
from liebn.pool import Pool


class Statistics(NamedTuple):
    """Mean in the group's coordinates and (biased) variance of each set of a pool.

    The variance keeps two dimensions of size 1.
    """

    mean: Float[Tensor, "*sets n n"]
    var: Float[Tensor, "*sets 1 1"]


class Centred(NamedTuple):
    """A batch seen from the means M of its sets, with the variance about them."""

    polar: Polar
    var: Float[Tensor, "*sets 1 1"]


def mean(
    group: LieGroup,
    X: Float[Tensor, "*batch n n"],
    pool: Pool,
    steps: int | None = 1,
    *,
    differentiable: bool = False,
) -> Float[Tensor, "*sets n n"]:
    """Fréchet mean of each set, a constant to autograd unless `differentiable`."""
    with torch.set_grad_enabled(differentiable and torch.is_grad_enabled()):
        return group.mean(X if differentiable else X.detach(), pool, steps)


def centre(
    group: LieGroup,
    X: Float[Tensor, "*batch n n"],
    M: Float[Tensor, "*sets n n"],
    pool: Pool,
    *,
    differentiable: bool = False,
) -> Centred:
    """L_M^-1 X with the variance about M, a constant to autograd unless `differentiable`."""
    back = pool.spread(group.inverse_translation(M))
    polar = group.polar(back, X, constant=not differentiable)
    return Centred(polar, pool.mean(polar.dist2()[..., None, None]))


@dataclass(frozen=True)
class Normalisation:
    """The layer with fixed statistics, all that does not depend on the input prepared."""

    group: LieGroup
    back: Tensor
    factor: Tensor
    forth: Tensor

    @classmethod
    def of(
        cls, group: LieGroup, statistics: Statistics, forth: Tensor, scale: Tensor, eps: float
    ) -> "Normalisation":
        """From statistics, the translation by the bias, and scale, of shapes that broadcast."""
        back = group.inverse_translation(statistics.mean)
        factor = scale / torch.sqrt(statistics.var + eps)
        return cls(group, back, factor, forth)

    def __getitem__(self, chosen: Tensor) -> "Normalisation":
        """Statistics chosen along dimension 0; the bias is common to all."""
        return Normalisation(self.group, self.back[chosen], self.factor[chosen], self.forth)

    def __call__(self, X: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
        """Coordinates to coordinates."""
        return self.group.polar(self.back, X, constant=True).moved(self.factor, self.forth)
