"""Half-vectorisation: a Hermitian matrix as the vector of its lower triangle."""

import math

import torch
from jaxtyping import Inexact
from torch import Tensor

from linalg_kernels import errors
from linalg_kernels.precision import full_precision, promote, restore
from linalg_kernels.transforms import inspect


def _weights(n: int, like: Tensor) -> Tensor:
    """1 on the diagonal and √2 below it, in the order of `vech`."""
    rows, columns = torch.tril_indices(n, n, device=like.device)
    real = like.real.dtype if like.is_complex() else like.dtype
    # Two Python numbers would be held in the default dtype, and √2 be rounded to it.
    weights = torch.full(rows.shape, math.sqrt(2), dtype=real, device=like.device)
    return weights.masked_fill(rows == columns, 1.0)


@full_precision
def vech(
    A: Inexact[Tensor, "*batch n n"],
    *,
    weighted: bool = False,
    symmetrize: bool = True,
    check: bool = True,
    upcast: bool = False,
) -> Inexact[Tensor, "*batch m"]:
    """Lower triangle of a Hermitian matrix, row by row with the diagonal, m = n (n + 1) / 2.

    The order is a_11, a_21, a_22, a_31, ...; `unvech` is the inverse.

    Args:
        A: Hermitian matrices.
        weighted: Multiply entries off the diagonal by √2, so that Euclidean inner products
            of vectors are Frobenius inner products of matrices, Re(x^H y) = Re tr(A^H B).
        symmetrize: A stands for (A + A^H) / 2, and gradients are Hermitian; with False the
            lower triangle is read as it is.
        check: Raise `LinAlgError` for NaN or Inf and `ValueError` for an A that is far from
            Hermitian, naming the batch element.
        upcast: Compute float16 and bfloat16 in float32.
    """
    A, dtype = promote(A, upcast)
    errors.require_float(A, "A")
    errors.require_square(A, "A")
    if check:
        look = errors.check_matrices if symmetrize else errors.check_finite
        A = inspect(A, lambda T: look(T, "A"))
    if symmetrize:
        A = (A + A.mH) / 2
    n = A.shape[-1]
    rows, columns = torch.tril_indices(n, n, device=A.device)
    x = A[..., rows, columns]
    return restore(x * _weights(n, A) if weighted else x, dtype)


@full_precision
def unvech(
    x: Inexact[Tensor, "*batch m"], *, weighted: bool = False, upcast: bool = False
) -> Inexact[Tensor, "*batch n n"]:
    """The Hermitian matrix whose `vech` is x, of size n with m = n (n + 1) / 2.

    `weighted` and `upcast` as in `vech`. For complex x the entries of the diagonal should be real.
    ValueError unless m is a triangular number.
    """
    x, dtype = promote(x, upcast)
    errors.require_float(x, "x")
    if x.ndim == 0:
        raise ValueError("x must be (..., m), got a single number")
    m = x.shape[-1]
    n = (math.isqrt(8 * m + 1) - 1) // 2
    if n * (n + 1) // 2 != m:
        below, above = n * (n + 1) // 2, (n + 1) * (n + 2) // 2
        raise ValueError(
            f"x must be (..., n (n + 1) / 2), but its last dimension is {m}; the nearest such "
            f"lengths are {below} (n={n}) and {above} (n={n + 1})"
        )
    if weighted:
        x = x / _weights(n, x)
    rows, columns = torch.tril_indices(n, n, device=x.device)
    # Where in x the entry (i, j) with i >= j lies.
    place = torch.zeros(n, n, dtype=torch.long, device=x.device)
    place[rows, columns] = torch.arange(m, device=x.device)
    place = torch.maximum(place, place.mT)
    A = x[..., place]
    if not x.is_complex():
        return restore(A, dtype)
    upper = torch.ones(n, n, dtype=torch.bool, device=x.device).triu(1)
    return torch.where(upper, A.conj(), A)
