"""log|det(I + H)| of a Hermitian H: the density change of a gradient step z + ∇u(z), H = ∇²u."""

import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from linalg_kernels import errors
from linalg_kernels.backends import select
from linalg_kernels.backends import torch as reference
from linalg_kernels.precision import full_precision, promote, restore
from linalg_kernels.transforms import EagerRule, differentiated, inspect, transformed


def _check_regular(logabsdet: Tensor) -> None:
    bad = logabsdet == -torch.inf
    if bool(bad.any()):
        raise errors.LinAlgError(
            f"I + H{errors.element(bad)} is singular, so log|det(I + H)| is -inf there"
        )


def _stands_for(H: Tensor, symmetrize: bool) -> Tensor:
    """I + the Hermitian matrix that H stands for, with a Hermitian gradient either way."""
    full = reference.hermitian(H)
    if not symmetrize:
        full = full + (reference.from_lower(H) - full).detach()
    return torch.eye(H.shape[-1], dtype=H.dtype, device=H.device) + full


def _factor(H: Tensor, symmetrize: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The values, Cholesky factors of I + H, which have none, and I + H of those."""
    A = H.clone(memory_format=torch.contiguous_format)
    A.diagonal(dim1=-2, dim2=-1).add_(1)
    L, definite = select.definite_factor(A, symmetrize)
    value = 2 * L.diagonal(dim1=-2, dim2=-1).real.log().sum(-1)
    others = ~definite
    rest = A[others]
    if len(rest):
        rest = reference.hermitian(rest) if symmetrize else reference.from_lower(rest)
        value[others] = torch.linalg.slogdet(rest)[1]
    return value, L, others, rest


def _inverse(L: Tensor, others: Tensor, rest: Tensor) -> Tensor:
    P = select.cholesky_inverse(L)
    if len(rest):
        P[others] = reference.hermitian(torch.linalg.inv_ex(rest)[0])
    return P


def logabsdet_with_inverse(
    H: Inexact[Tensor, "*batch n n"], *, symmetrize: bool = True
) -> tuple[Float[Tensor, "*batch"], Inexact[Tensor, "*batch n n"]]:
    """log|det(I + H)| and (I + H)^-1, unchecked and without derivatives.

    For rules that put `logabsdet_sym` into a larger formula. The inverse of a singular element is
    not finite.
    """
    with torch.no_grad():
        value, *factors = _factor(H, symmetrize)
        return value, _inverse(*factors)


class _LogAbsDet(EagerRule):
    """H -> log|det(I + H)|, where only a gradient is asked for: g (I + H)^-1."""

    @staticmethod
    def forward(ctx, H, symmetrize):
        value, L, others, rest = _factor(H, symmetrize)
        ctx.save_for_backward(H, L, others, rest)
        ctx.symmetrize = symmetrize
        return value

    @staticmethod
    @full_precision
    def backward(ctx, g):
        H, L, others, rest = ctx.saved_tensors
        if torch.is_grad_enabled():
            P = torch.linalg.inv(_stands_for(H, ctx.symmetrize))
        else:
            P = _inverse(L, others, rest)
        return g[..., None, None] * P, None


@full_precision
def logabsdet_sym(
    H: Inexact[Tensor, "*batch n n"],
    *,
    symmetrize: bool = True,
    check: bool = True,
    upcast: bool = False,
) -> Float[Tensor, "*batch"]:
    """log|det(I + H)| = Σ log|1 + w_i|, in nats, for Hermitian H with eigenvalues w_i.

    I + H may be indefinite: the sign of the determinant does not matter, and the gradient
    (I + H)^-1 is right on either side. By Cholesky factors where I + H is positive definite
    and by LU factors elsewhere, many times faster than eigenvalues; the absolute error is a few
    n eps however small H is. Equivalent to `torch.linalg.slogdet(I + H)[1]` with a Hermitian
    gradient.

    Args:
        H: Stands for (H + H^H)/2.
        symmetrize: With False H stands for its lower triangle, which saves passes over it.
        check: Raise `LinAlgError` where H holds NaN or Inf or I + H is exactly singular, and
            `ValueError` where H is far from Hermitian, naming the batch element. With False a
            singular element gives -inf.
        upcast: Compute float16 and bfloat16 in float32.
    """
    H, dtype = promote(H, upcast)
    errors.require_float(H, "H")
    errors.require_square(H, "H")
    if check:
        look = errors.check_matrices if symmetrize else errors.check_finite
        H = inspect(H, lambda T: look(T, "H"))
    # On a GPU to ask which elements are definite would wait for it.
    if transformed() or H.is_cuda or not errors.can_read(H):
        value = torch.linalg.slogdet(_stands_for(H, symmetrize))[1]
    elif differentiated(H):
        value = _LogAbsDet.apply(H, symmetrize)
    else:
        value = _factor(H, symmetrize)[0]
    return restore(inspect(value, _check_regular) if check else value, dtype)
