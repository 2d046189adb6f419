"""Parametrisations of bias and scale by unconstrained tensors, so that any optimiser will do."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from liebn.group import LieGroup


class GroupExponential(nn.Module):
    """B = Exp_E(Z) in the group's own geometry, of any matrix Z; Z = 0 is the neutral element.

    For `torch.nn.utils.parametrize`; assigning to the parameter sets B. Trivialisation at the
    neutral element: Lezcano-Casado, NeurIPS 2019.
    """

    def __init__(self, group: LieGroup) -> None:
        super().__init__()
        self.group = group

    def coordinates(self, Z: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
        """Exp_E(Z) in the group's coordinates, where layers want it."""
        return self.group.exp(self.group.tangent(Z))

    def forward(self, Z: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
        """Exp_E(Z) as a matrix."""
        return self.group.chart_inverse(self.coordinates(Z))

    def right_inverse(self, B: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
        """Log_E(B). Errors name the element that is not in the group."""
        return self.group.log(self.group.chart(B, "bias"))


class Positive(nn.Module):
    """s = exp z."""

    def forward(self, z: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """exp z."""
        return torch.exp(z)

    def right_inverse(self, s: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """log s. Raises ValueError unless all of s is > 0."""
        if not bool((s > 0).all()):
            raise ValueError(f"scale must be > 0, got {s.min().item():g}")
        return torch.log(s)
