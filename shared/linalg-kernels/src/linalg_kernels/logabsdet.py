"""log|det(I + H)| of a Hermitian H: the density change of a gradient step z + ∇u(z), H = ∇²u."""

import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from linalg_kernels import errors
from linalg_kernels.backends import torch as reference
from linalg_kernels.precision import full_precision, promote, restore
from linalg_kernels.transforms import inspect


def _check_regular(logabsdet: Tensor) -> None:
    bad = logabsdet == -torch.inf
    if bool(bad.any()):
        raise errors.LinAlgError(
            f"I + H{errors.element(bad)} is singular, so log|det(I + H)| is -inf there"
        )


@full_precision
def logabsdet_sym(
    H: Inexact[Tensor, "*batch n n"], *, check: bool = True, upcast: bool = False
) -> Float[Tensor, "*batch"]:
    """log|det(I + H)| = Σ log|1 + w_i|, in nats, for Hermitian H with eigenvalues w_i.

    I + H may be indefinite: the sign of the determinant does not matter, and the gradient
    (I + H)^-1 is right on either side. By LU factors, several times faster than eigenvalues;
    the absolute error is a few n eps however small H is. Equivalent to
    `torch.linalg.slogdet(I + H)[1]` with a Hermitian gradient.

    Args:
        H: Stands for (H + H^H)/2.
        check: Raise `LinAlgError` where H holds NaN or Inf or I + H is exactly singular, and
            `ValueError` where H is far from Hermitian, naming the batch element. With False a
            singular element gives -inf.
        upcast: Compute float16 and bfloat16 in float32.
    """
    H, dtype = promote(H, upcast)
    errors.require_float(H, "H")
    errors.require_square(H, "H")
    if check:
        H = inspect(H, lambda T: errors.check_matrices(T, "H"))
    eye = torch.eye(H.shape[-1], dtype=H.dtype, device=H.device)
    value = torch.linalg.slogdet(eye + reference.hermitian(H))[1]
    return restore(inspect(value, _check_regular) if check else value, dtype)
