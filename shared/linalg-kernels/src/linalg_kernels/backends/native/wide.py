"""Matrices too large for blocks: their eigensystems are LAPACK's, all around them is here."""

import torch
from jaxtyping import Float
from torch import Tensor

from linalg_kernels.backends.native import library
from linalg_kernels.backends.native.eigensystems import Function


def symmetric_part(
    A: Float[Tensor, "*batch n n"], tolerance: float
) -> tuple[Float[Tensor, "*batch n n"], int]:
    """(A + A^T)/2, and what is found in A: NOT_FINITE, ASYMMETRIC. A is not empty."""
    A = A.contiguous()
    H = torch.empty_like(A)
    return H, library.run("lk_wide_symmetric_part", A, A.data_ptr(), H.data_ptr(), tolerance)


def _as_they_lie(V: Tensor) -> tuple[Tensor, bool]:
    """Eigenvectors, and whether they lie as rows, as LAPACK leaves them."""
    return (V.mT, True) if V.mT.is_contiguous() else (V.contiguous(), False)


def compose_wide(
    V: Float[Tensor, "*batch n n"], d: Float[Tensor, "*batch n"]
) -> Float[Tensor, "*batch n n"]:
    """V diag(d) V^T, exactly symmetric, of V that is not empty."""
    V, rows = _as_they_lie(V)
    d = d.contiguous()
    F = torch.empty(V.shape, dtype=V.dtype)
    library.run("lk_wide_compose", V, rows, d.data_ptr(), V.data_ptr(), F.data_ptr())
    return F


def frechet_wide(
    w: Float[Tensor, "*base n"],
    V: Float[Tensor, "*base n n"],
    E: Float[Tensor, "*batch n n"],
    f: Function,
) -> Float[Tensor, "*batch n n"]:
    """V (f[w_i, w_j] ∘ V^T sym(E) V) V^T of E that is not empty.

    One w (n) and V (n, n), with one exponent or table, may serve the whole batch.
    """
    V, rows = _as_they_lie(V)
    w, E = w.contiguous(), E.contiguous()
    D = torch.empty_like(E)
    table = None if f.table is None else f.table.contiguous()
    library.run(
        *("lk_wide_frechet", E, V.ndim < E.ndim, rows, w.data_ptr(), V.data_ptr()),
        *(E.data_ptr(), f.kind, library.address(table), f.floor, D.data_ptr()),
    )
    return D
