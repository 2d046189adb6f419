"""SPDNetBN (Brooks et al., NeurIPS 2019): the mean alone is normalised, by square roots."""

import torch
from jaxtyping import Float
from linalg_kernels import inv_sqrtm, karcher_mean, sqrtm
from spd_metrics import AffineInvariant, SPDParameter
from torch import Tensor, nn


class SPDNetBN(nn.Module):
    """P -> G^½ M^-½ P M^-½ G^½ with one Karcher step to the mean M of (batch, n, n)."""

    running_mean: Tensor

    def __init__(self, n: int, momentum: float = 0.1, *, dtype: torch.dtype) -> None:
        super().__init__()
        self.momentum = momentum
        self.bias = SPDParameter(n, dtype=dtype)
        self.register_buffer("running_mean", torch.eye(n, dtype=dtype))

    def forward(self, P: Float[Tensor, "b n n"]) -> Float[Tensor, "b n n"]:
        """The statistics are constants to autograd."""
        M = self.running_mean
        if self.training:
            M = karcher_mean(P.detach(), max_iter=1, step=1.0, grad="detach")
            moved = AffineInvariant().geodesic(self.running_mean, M, self.momentum)
            self.running_mean.copy_(moved)
        A = sqrtm(self.bias()) @ inv_sqrtm(M)
        Y = A @ P @ A.mT
        return (Y + Y.mT) / 2
