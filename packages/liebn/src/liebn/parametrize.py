"""Parametrisations of bias and scale by unconstrained tensors, so that any optimiser will do."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from liebn.group import LieGroup


class Lifted(nn.Module):
    """The B that a group's `lift` makes of any matrix Z; Z = 0 is the neutral element.

    For `torch.nn.utils.parametrize`; assigning to the parameter sets B.
    """

    def __init__(self, group: LieGroup) -> None:
        super().__init__()
        self.group = group

    def forward(self, Z: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
        """B, a matrix of the group."""
        E = self.group.neutral(Z.shape[-1]).to(dtype=Z.dtype, device=Z.device)
        return self.group.chart_inverse(self.group.act(self.group.lift(Z), E))

    def right_inverse(self, B: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
        """A Z that makes B. Errors name the element that is not in the group."""
        return self.group.lift_inverse(self.group.chart(B, "bias"))


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
