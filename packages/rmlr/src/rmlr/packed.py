"""Symmetric and triangular matrices as the n (n + 1)/2 numbers of their lower triangles.

An optimiser wants numbers without duplicates: the derivative for one off the diagonal is the
sum of those for the two entries of the symmetric matrix. Derivatives gather here, where those
of an index would scatter.
"""

from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function

Numbers = Float[Tensor, "*batch m"]
Matrices = Float[Tensor, "*batch n n"]


@cache
def _places(n: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Where in x the n² entries lie, and where in the entries the lower and upper ones do."""
    rows, columns = torch.tril_indices(n, n)
    place = torch.zeros(n, n, dtype=torch.long)
    place[rows, columns] = torch.arange(len(rows))
    place = torch.maximum(place, place.mT).flatten()
    return place.to(device), (rows * n + columns).to(device), (columns * n + rows).to(device)


@cache
def multiplicities(n: int, dtype: torch.dtype, device: torch.device) -> Float[Tensor, " m"]:
    """How often a number stands in the symmetric matrix: 1 on the diagonal, 2 off it."""
    rows, columns = torch.tril_indices(n, n, device=device)
    return torch.where(rows == columns, 1, 2).to(dtype)


def order(x: Numbers) -> int:
    """n, from m = n (n + 1)/2 numbers."""
    return (int((8 * x.shape[-1] + 1) ** 0.5) - 1) // 2


class _Unpack(Function):
    """x -> symmetric X."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        n = order(x)
        return x.index_select(-1, _places(n, x.device)[0]).unflatten(-1, (n, n))

    @staticmethod
    def setup_context(ctx, inputs, output):  # noqa: ARG004
        pass

    @staticmethod
    def backward(ctx, G):  # noqa: ARG004
        return _PackSum.apply(G)

    @staticmethod
    def jvp(ctx, dx):  # noqa: ARG004
        return _Unpack.apply(dx)


class _PackSum(Function):
    """X -> X_ij + X_ji, and X_ii, for i > j: the adjoint of `_Unpack`."""

    generate_vmap_rule = True

    @staticmethod
    def forward(X: Tensor) -> Tensor:
        n = X.shape[-1]
        _, lower, upper = _places(n, X.device)
        entries = X.flatten(-2)
        x = entries.index_select(-1, lower).add_(entries.index_select(-1, upper))
        return x.mul_(multiplicities(n, X.dtype, X.device) / 2)

    @staticmethod
    def setup_context(ctx, inputs, output):  # noqa: ARG004
        pass

    @staticmethod
    def backward(ctx, g):  # noqa: ARG004
        return _Unpack.apply(g)

    @staticmethod
    def jvp(ctx, dX):  # noqa: ARG004
        return _PackSum.apply(dX)


def symmetric(x: Numbers) -> Matrices:
    """The symmetric matrix whose lower triangle, row by row, is x."""
    return _Unpack.apply(x)


def triangular(x: Numbers) -> Matrices:
    """The lower triangular matrix whose lower triangle, row by row, is x."""
    return symmetric(x).tril()


def pack_sum(X: Matrices) -> Numbers:
    """X_ij + X_ji for i > j, and X_ii: the inner products of X with a basis of `symmetric`."""
    return _PackSum.apply(X)


def pack(X: Matrices) -> Numbers:
    """The lower triangle of X, row by row, of symmetric X also from the upper one."""
    return pack_sum(X) / multiplicities(X.shape[-1], X.dtype, X.device)


def pack_lower(X: Matrices) -> Numbers:
    """The lower triangle of X, row by row."""
    return pack_sum(X.tril())


def diagonal_places(n: int, device: torch.device) -> Tensor:
    """Where the diagonal lies in the n (n + 1)/2 numbers."""
    return torch.arange(1, n + 1, device=device).cumsum(0) - 1
