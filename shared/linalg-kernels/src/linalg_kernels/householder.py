"""Products of Householder reflections in compact WY form.

Q = H_1 H_2 ... H_k with H_i = I - 2 v_i v_i^H / ‖v_i‖² equals I - V T V^H, where the columns
of V are the v_i / ‖v_i‖ and T^-1 = striu(V^H V) + I/2: matrix products and one triangular
solve instead of k steps one after the other (Schreiber and Van Loan 1989; for this form of T
Joffrain et al. 2006). T is never formed.
"""

import torch
from jaxtyping import Inexact
from torch import Tensor

from linalg_kernels import errors
from linalg_kernels.precision import full_precision, promote, restore
from linalg_kernels.transforms import inspect

# More reflectors than this and than n are multiplied block by block: one block of k costs
# k² n, blocks of b cost k b n + k n².
_BLOCK = 64


def _unit_columns(V: Tensor) -> Tensor:
    """V with columns of norm 1, and 0 with all its derivatives where a column is 0."""
    if V.shape[-2] == 0:
        return V
    # A column's direction does not depend on its scale, so the scale is a constant.
    size = V.detach().abs().amax(-2, keepdim=True)
    zero = size == 0
    V = torch.where(zero, 0, V / torch.where(zero, 1, size))
    norm = (V.abs() ** 2 if V.is_complex() else V * V).sum(-2, keepdim=True)
    return V / torch.where(zero, 1, norm).sqrt()


def _inverse_factor(V: Tensor) -> Tensor:
    """T^-1 = striu(V^H V) + I/2 for unit (or zero) columns."""
    return (V.mH @ V).triu(1) + torch.eye(V.shape[-1], dtype=V.dtype, device=V.device) / 2


def _blocks(V: Tensor) -> list[Tensor]:
    width = max(_BLOCK, V.shape[-2])
    return list(V.split(width, -1)) if V.shape[-1] > width else [V]


def _reflect(V: Tensor, X: Tensor, adjoint: bool) -> Tensor:
    """(I - V T V^H) X, or with T^H."""
    S = _inverse_factor(V)
    S = S.mH if adjoint else S
    batch = torch.broadcast_shapes(V.shape[:-2], X.shape[:-2])
    right = (V.mH @ X).expand(*batch, -1, -1)
    return X - V @ torch.linalg.solve_triangular(S, right, upper=not adjoint)


def _read(V: Tensor, name: str, check: bool) -> Tensor:
    errors.require_float(V, name)
    errors.require_matrix(V, name)
    return inspect(V, lambda T: errors.check_finite(T, name)) if check else V


@full_precision
def householder_product(
    V: Inexact[Tensor, "*batch n k"], *, check: bool = True, upcast: bool = False
) -> Inexact[Tensor, "*batch n n"]:
    """Q = H_1 H_2 ... H_k, a product of reflections H_i = I - 2 v_i v_i^H / ‖v_i‖².

    Args:
        V: The reflectors v_i are its columns, of any length; a zero column means H_i = I and
            has zero gradient. Any k, also above n.
        check: Raise `LinAlgError` naming the first element that holds NaN or Inf.
        upcast: Compute float16 and bfloat16 in float32.

    Q is unitary with determinant (-1)^(number of nonzero columns). Not the
    `torch.linalg.householder_product` of LAPACK, whose reflectors carry separate scales.
    """
    V, dtype = promote(V, upcast)
    V = _read(V, "V", check)
    *rest, last = _blocks(_unit_columns(V))
    eye = torch.eye(V.shape[-2], dtype=V.dtype, device=V.device)
    Q = eye - last @ torch.linalg.solve_triangular(_inverse_factor(last), last.mH, upper=True)
    for block in reversed(rest):
        Q = _reflect(block, Q, adjoint=False)
    return restore(Q, dtype)


@full_precision
def householder_apply(
    V: Inexact[Tensor, "*#batch n k"],
    X: Inexact[Tensor, "*#batch n m"],
    *,
    adjoint: bool = False,
    check: bool = True,
    upcast: bool = False,
) -> Inexact[Tensor, "*batch n m"]:
    """Q X, or Q^H X with `adjoint`, for Q of `householder_product(V)` without forming Q.

    Batch shapes broadcast. Arguments and errors as in `householder_product`.
    """
    V, dtype = promote(V, upcast)
    X, _ = promote(X, upcast)
    V, X = _read(V, "V", check), _read(X, "X", check)
    errors.require_matrix(X, "X", m=V.shape[-2])
    errors.require_same_kind(V, X, ("V", "X"))
    batch = errors.broadcast_batch({"V": (V, 2), "X": (X, 2)})
    blocks = _blocks(_unit_columns(V))
    for block in blocks if adjoint else reversed(blocks):
        X = _reflect(block, X, adjoint)
    return restore(X.expand(*batch, *X.shape[-2:]), dtype)
