"""Symmetric matrices as vectors, which a linear classifier reads.

"upper" is the upper triangle row by row, as published; under it a linear layer weighs entries
off the diagonal half as much as the Frobenius inner product does. "isometric" multiplies those
by √2, so that ⟨vec A, vec B⟩ = tr(A B). "full" is every entry, of which the same holds.
"""

import math
from typing import Literal

import torch
from jaxtyping import Float
from linalg_kernels import errors
from torch import Tensor

from gcp_riemann import inputs

Vec = Literal["upper", "isometric", "full"]
KINDS = ("upper", "isometric", "full")


def length(n: int, vec: Vec = "upper") -> int:
    """Number of entries: n(n + 1)/2, or n² for "full"."""
    inputs.require_one_of(vec, KINDS, "vec")
    return n * n if vec == "full" else n * (n + 1) // 2


def vectorise(X: Float[Tensor, "*batch n n"], vec: Vec = "upper") -> Float[Tensor, "*batch m"]:
    """The entries of symmetric X that `vec` asks for, m = `length(n, vec)`.

    The lower triangle is not looked at but by "full". Raises ValueError for a shape that is
    not square and for an unknown `vec`.
    """
    errors.require_square(X, "X")
    inputs.require_one_of(vec, KINDS, "vec")
    n = X.shape[-1]
    entries = X.reshape(*X.shape[:-2], n * n)
    if vec == "full":
        return entries
    row, column = torch.triu_indices(n, n, device=X.device)
    # An index that is selected, unlike one in brackets, has a fast derivative.
    x = entries.index_select(-1, row * n + column)
    if vec == "upper":
        return x
    weights = torch.full((length(n),), math.sqrt(2), dtype=X.dtype, device=X.device)
    return x * weights.masked_fill(row == column, 1.0)


def unvectorise(x: Float[Tensor, "*batch m"], vec: Vec = "upper") -> Float[Tensor, "*batch n n"]:
    """The symmetric matrix whose `vectorise` is x. Raises ValueError for a length that none has."""
    inputs.require_one_of(vec, KINDS, "vec")
    m = x.shape[-1]
    n = math.isqrt(m) if vec == "full" else (math.isqrt(8 * m + 1) - 1) // 2
    if length(n, vec) != m:
        raise ValueError(f"x must be (..., m) with m a length of vec={vec!r}, got {tuple(x.shape)}")
    if vec == "full":
        return x.reshape(*x.shape[:-1], n, n)
    row, column = torch.triu_indices(n, n, device=x.device)
    place = torch.zeros(n, n, dtype=torch.long, device=x.device)
    place[row, column] = torch.arange(m, device=x.device)
    place[column, row] = torch.arange(m, device=x.device)
    if vec == "isometric":
        off = torch.full((m,), 1 / math.sqrt(2), dtype=x.dtype, device=x.device)
        x = x * off.masked_fill(row == column, 1.0)
    return x.index_select(-1, place.flatten()).reshape(*x.shape[:-1], n, n)
