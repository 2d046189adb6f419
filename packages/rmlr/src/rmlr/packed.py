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


def _make_places(n: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Where in x the n² entries lie, and where in the entries the lower and upper ones do."""
    index = torch.arange(n, device=device)
    high, low = torch.maximum(index[:, None], index), torch.minimum(index[:, None], index)
    rows, columns = torch.tril_indices(n, n, device=device)
    place = (high * (high + 1)).div(2, rounding_mode="floor") + low
    return place.flatten(), rows * n + columns, columns * n + rows


def _make_multiplicities(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    rows, columns = torch.tril_indices(n, n, device=device)
    return torch.where(rows == columns, 1, 2).to(dtype)


_kept_places = cache(_make_places)
_kept_multiplicities = cache(_make_multiplicities)


def _places(n: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    # A traced graph makes its own: a tensor of the tracer's must not be kept.
    return (_kept_places if _ordinary() else _make_places)(n, device)


def multiplicities(n: int, dtype: torch.dtype, device: torch.device) -> Float[Tensor, " m"]:
    """How often a number stands in the symmetric matrix: 1 on the diagonal, 2 off it."""
    return (_kept_multiplicities if _ordinary() else _make_multiplicities)(n, dtype, device)


def order(x: Numbers) -> int:
    """n, from m = n (n + 1)/2 numbers."""
    return (int((8 * x.shape[-1] + 1) ** 0.5) - 1) // 2


def _ordinary() -> bool:
    """Whether nothing but reverse mode may be asked for, which the rules below are made for."""
    return not (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or torch.autograd.forward_ad._current_level >= 0
    )


def _gather(x: Tensor, index: Tensor) -> Tensor:
    # `index_select` along the last dimension takes four times as long.
    return x.gather(-1, index.expand(*x.shape[:-1], -1))


def _unpack(x: Tensor) -> Tensor:
    n = order(x)
    return _gather(x, _places(n, x.device)[0]).reshape(*x.shape[:-1], n, n)


def _pack_lower(X: Tensor) -> Tensor:
    n = X.shape[-1]
    return _gather(X.reshape(*X.shape[:-2], n * n), _places(n, X.device)[1])


def _pack_sum(X: Tensor) -> Tensor:
    n = X.shape[-1]
    _, lower, upper = _places(n, X.device)
    entries = X.reshape(*X.shape[:-2], n * n)
    both = _gather(entries, lower) + _gather(entries, upper)
    return both * (multiplicities(n, X.dtype, X.device) / 2)


class _Unpack(Function):
    """x -> symmetric X, whose adjoint is `_PackSum`."""

    @staticmethod
    def forward(ctx, x):  # noqa: ARG004
        return _unpack(x)

    @staticmethod
    def backward(ctx, G):  # noqa: ARG004
        return _PackSum.apply(G)


class _PackSum(Function):
    """X -> X_ij + X_ji, and X_ii, for i > j, whose adjoint is `_Unpack`."""

    @staticmethod
    def forward(ctx, X):  # noqa: ARG004
        return _pack_sum(X)

    @staticmethod
    def backward(ctx, g):  # noqa: ARG004
        return _Unpack.apply(g)


class _Triangular(Function):
    """x -> lower triangular X, whose adjoint is `_PackLower`."""

    @staticmethod
    def forward(ctx, x):  # noqa: ARG004
        return _unpack(x).tril_()

    @staticmethod
    def backward(ctx, G):  # noqa: ARG004
        return _PackLower.apply(G)


class _PackLower(Function):
    """X -> X_ij for i >= j, whose adjoint is `_Triangular`."""

    @staticmethod
    def forward(ctx, X):  # noqa: ARG004
        return _pack_lower(X)

    @staticmethod
    def backward(ctx, g):  # noqa: ARG004
        return _Triangular.apply(g)


def symmetric(x: Numbers) -> Matrices:
    """The symmetric matrix whose lower triangle, row by row, is x."""
    return _Unpack.apply(x) if _ordinary() else _unpack(x)


def triangular(x: Numbers) -> Matrices:
    """The lower triangular matrix whose lower triangle, row by row, is x."""
    return _Triangular.apply(x) if _ordinary() else _unpack(x).tril()


def pack_sum(X: Matrices) -> Numbers:
    """X_ij + X_ji for i > j, and X_ii: the inner products of X with a basis of `symmetric`."""
    return _PackSum.apply(X) if _ordinary() else _pack_sum(X)


def pack(X: Matrices) -> Numbers:
    """The lower triangle of X, row by row, of symmetric X also from the upper one."""
    return pack_sum(X) / multiplicities(X.shape[-1], X.dtype, X.device)


def pack_lower(X: Matrices) -> Numbers:
    """The lower triangle of X, row by row."""
    return _PackLower.apply(X) if _ordinary() else _pack_lower(X)


def diagonal_places(n: int, device: torch.device) -> Tensor:
    """Where the diagonal lies in the n (n + 1)/2 numbers."""
    return torch.arange(1, n + 1, device=device).cumsum(0) - 1
