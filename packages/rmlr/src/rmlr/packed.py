"""Symmetric and triangular parameters, held as the n (n + 1)/2 numbers of a lower triangle.

The numbers are free of duplicates, as an optimiser wants them: the derivative for a number off
the diagonal is the sum of those for the two entries of the symmetric matrix.
"""

from functools import cache

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd import Function


@cache
def _places(n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Where in x the n² entries lie, and where in the entries the lower and upper ones do."""
    rows, columns = torch.tril_indices(n, n)
    place = torch.zeros(n, n, dtype=torch.long)
    place[rows, columns] = torch.arange(len(rows))
    return torch.maximum(place, place.mT).flatten(), rows * n + columns, columns * n + rows


class _Unpack(Function):
    """x -> symmetric X. The derivative gathers, where that of an index would scatter."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, place: Tensor, lower: Tensor, upper: Tensor) -> Tensor:  # noqa: ARG004
        n = round(len(place) ** 0.5)
        return x.index_select(-1, place).unflatten(-1, (n, n))

    @staticmethod
    def setup_context(ctx, inputs, output):  # noqa: ARG004
        _, _, lower, upper = inputs
        ctx.save_for_backward(lower, upper)

    @staticmethod
    def backward(ctx, G):
        lower, upper = ctx.saved_tensors
        entries = G.flatten(-2)
        below = entries.index_select(-1, lower)
        mirrored = entries.index_select(-1, upper)
        return below + torch.where(lower == upper, 0, mirrored), None, None, None

    @staticmethod
    def jvp(ctx, dx, *_):  # noqa: ARG004
        return symmetric(dx)


def _order(x: Tensor) -> int:
    return (int((8 * x.shape[-1] + 1) ** 0.5) - 1) // 2


def _indices(n: int, x: Tensor) -> tuple[Int[Tensor, " _"], Int[Tensor, " _"], Int[Tensor, " _"]]:
    place, lower, upper = _places(n)
    return place.to(x.device), lower.to(x.device), upper.to(x.device)


def symmetric(x: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch n n"]:
    """The symmetric matrix whose lower triangle, row by row, is x; m = n (n + 1)/2."""
    return _Unpack.apply(x, *_indices(_order(x), x))


def triangular(x: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch n n"]:
    """The lower triangular matrix whose lower triangle, row by row, is x."""
    return symmetric(x).tril()


def pack(X: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch m"]:
    """The lower triangle of X, row by row: the inverse of both."""
    _, lower, _ = _indices(X.shape[-1], X)
    return X.flatten(-2).index_select(-1, lower)
