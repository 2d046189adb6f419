"""Products of Householder reflections."""

import functools
import math

import torch
from jaxtyping import Float
from torch import Tensor

from linalg_kernels.backends.native import library


@functools.cache
def _saved(n: int, k: int, m: int) -> int:
    """Numbers a matrix that the adjoint needs."""
    return library.load().lk_reflect_saved(n, k, m)


def reflect(
    V: Float[Tensor, "*batch n k"],
    X: Float[Tensor, "*batch n m"] | None = None,
    adjoint: bool = False,
) -> tuple[Tensor, Tensor] | None:
    """Q X, or Q^T X with `adjoint`, and what `reflect_vjp` needs; Q itself without X.

    None where the squared length of a column is not within 1e-16..1e16. V and X are not empty.
    """
    *batch, n, k = V.shape
    m = 0 if X is None else X.shape[-1]
    V = V.contiguous()
    X = None if X is None else X.contiguous()
    Y = V.new_empty((*batch, n, m or n))
    saved = V.new_empty((*batch, _saved(n, k, m)))
    found = library.call(
        *("lk_reflect", V.dtype, math.prod(batch), n, k, m, adjoint, V.data_ptr()),
        *(library.address(X), Y.data_ptr(), saved.data_ptr()),
    )
    return None if found else (Y, saved)


def reflect_vjp(
    V: Float[Tensor, "*batch n k"],
    X: Float[Tensor, "*batch n m"] | None,
    saved: Float[Tensor, "*batch s"],
    G: Float[Tensor, "*batch n p"],
    adjoint: bool = False,
    wanted: tuple[bool, bool] = (True, True),
) -> tuple[Float[Tensor, "*batch n k"] | None, Float[Tensor, "*batch n m"] | None]:
    """Gradients with respect to V and X of a loss with gradient G in what `reflect` returned."""
    *batch, n, k = V.shape
    m = 0 if X is None else X.shape[-1]
    V, G = V.contiguous(), G.contiguous()
    X = None if X is None else X.contiguous()
    gV = torch.empty_like(V) if wanted[0] else None
    gX = None if X is None or not wanted[1] else torch.empty_like(X)
    library.call(
        *("lk_reflect_adjoint", V.dtype, math.prod(batch), n, k, m, adjoint, V.data_ptr()),
        *(library.address(X), saved.data_ptr(), G.data_ptr()),
        *(library.address(gV), library.address(gX)),
    )
    return gV, gX
