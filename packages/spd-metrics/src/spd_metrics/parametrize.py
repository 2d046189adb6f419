"""Parametrisations of symmetric positive definite parameters by unconstrained matrices.

For `torch.nn.utils.parametrize.register_parametrization`: the module then sees a positive
definite matrix, the optimiser an unconstrained one, and `module.weight = P` sets it.
"""

import torch
from jaxtyping import Float
from linalg_kernels import cholesky, expm, logm
from torch import Tensor, nn


class SymmetricExp(nn.Module):
    """P = exp((Z + Z^T)/2): steps are those of the log-Euclidean chart, Z = 0 is the identity."""

    def forward(self, Z: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
        """exp of the symmetric part of Z."""
        return expm((Z + Z.mT) / 2)

    def right_inverse(self, P: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
        """log P. Raises LinAlgError naming the element that is not positive definite."""
        return logm(P, nonpos="raise", name="P")


class CholeskyExp(nn.Module):
    """P = L L^T with L = ⌊Z⌋ + exp diag Z: the log-Cholesky chart, without an eigendecomposition.

    Entries of Z above its diagonal are not used.
    """

    def forward(self, Z: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
        """L L^T."""
        L = Z.tril(-1) + torch.diag_embed(torch.exp(Z.diagonal(dim1=-2, dim2=-1)))
        return L @ L.mT

    def right_inverse(self, P: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
        """⌊L⌋ + log diag L. Raises LinAlgError naming the element that is not definite."""
        L = cholesky(P, name="P")
        return L.tril(-1) + torch.diag_embed(torch.log(L.diagonal(dim1=-2, dim2=-1)))
