"""Frames of r orthonormal vectors in R^n as products of Householder reflections.

F = H(v_1) H(v_2) … H(v_k) [I_r; 0] D with H(v) = I - 2 v vᵀ/‖v‖² and D = diag(±1): the first r
columns of a product of k reflections, with a sign each. Thin frames have k = r reflectors with
v_j zero above row j and 1 in row j, which reach every frame (Householder QR); full frames have
k = n dense ones, the layout of the official checkpoints.
"""

import torch
from jaxtyping import Float
from linalg_kernels import householder_apply
from torch import Tensor


def unit_trapezoidal(below: Float[Tensor, "*batch n r"]) -> Float[Tensor, "*batch n r"]:
    """Reflectors v_j = e_j + what `below` has under row j; its other entries have no effect."""
    eye = torch.eye(*below.shape[-2:], dtype=below.dtype, device=below.device)
    return below.tril(-1) + eye


def frame(
    reflectors: Float[Tensor, "*batch n k"], signs: Float[Tensor, "*batch r"]
) -> Float[Tensor, "*batch n r"]:
    """F = H(v_1) … H(v_k) [I_r; 0] diag(signs), in compact WY form: O(n k r) and no n x n matrix.

    The v_j are the columns of `reflectors`, of any length; a zero column means H = I.
    """
    n, r = reflectors.shape[-2], signs.shape[-1]
    eye = torch.eye(n, r, dtype=reflectors.dtype, device=reflectors.device)
    eye = eye.expand(*reflectors.shape[:-2], n, r)
    return householder_apply(reflectors, eye, check=False) * signs[..., None, :]


def thin_reflectors(
    F: Float[Tensor, "*batch n r"],
) -> tuple[Float[Tensor, "*batch n r"], Float[Tensor, "*batch r"]]:
    """Unit trapezoidal reflectors and signs with frame(reflectors, signs) = F, for FᵀF = I.

    By Householder QR, F = (H_1 … H_r)[:, :r] R with R = diag(±1). LAPACK returns H_j = I where
    nothing is left to reflect, as in the last column of a square F; v_j = e_j instead changes
    the sign of column j alone, which goes into `signs`.
    """
    r = F.shape[-1]
    packed, tau = torch.geqrf(F)
    signs = packed.diagonal(dim1=-2, dim2=-1).sign()
    signs = torch.where(tau == 0, -signs, signs)
    return packed.tril(-1) + torch.eye(F.shape[-2], r, dtype=F.dtype, device=F.device), signs


def full_reflectors(reflectors: Float[Tensor, "*batch n r"]) -> Float[Tensor, "*batch n n"]:
    """Thin reflectors followed by e_{r+1} … e_n, which leave the first r columns as they are."""
    n, r = reflectors.shape[-2:]
    eye = torch.eye(n, dtype=reflectors.dtype, device=reflectors.device)[:, r:]
    return torch.cat((reflectors, eye.expand(*reflectors.shape[:-2], n, n - r)), -1)
