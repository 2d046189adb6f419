"""Symmetric and triangular matrices as the n (n + 1)/2 numbers of their lower triangles.

An optimiser wants numbers without duplicates: the derivative for one off the diagonal is the
sum of those for the two entries of the symmetric matrix. Derivatives gather here, where those
of an index would scatter.
"""

from collections.abc import Callable
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function

FEW = 2000

Numbers = Float[Tensor, "*batch m"]
Matrices = Float[Tensor, "*batch n n"]
_Map = Callable[[Tensor], Tensor]


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


def _make_halves(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return _make_multiplicities(n, dtype, device) / 2


_kept_places = cache(_make_places)
_kept_multiplicities = cache(_make_multiplicities)
_kept_halves = cache(_make_halves)


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
    return both.mul_((_kept_halves if _ordinary() else _make_halves)(n, X.dtype, X.device))


def _triangular(x: Tensor) -> Tensor:
    return _unpack(x).tril_()


class _Linear(Function):
    """x -> f(x) of a linear f, whose gradient is its adjoint, a gathering map as well."""

    @staticmethod
    def forward(ctx, x, f, adjoint):
        ctx.maps = adjoint, f
        return f(x)

    @staticmethod
    def backward(ctx, G):
        adjoint, f = ctx.maps
        return _linear(G, adjoint, f) if torch.is_grad_enabled() else adjoint(G), None, None


def _linear(x: Tensor, f: _Map, adjoint: _Map) -> Tensor:
    # A rule in Python takes longer than scattering a few numbers.
    if not _ordinary() or (x.numel() <= FEW and x.device.type == "cpu"):
        return f(x)
    return _Linear.apply(x, f, adjoint)


def symmetric(x: Numbers) -> Matrices:
    """The symmetric matrix whose lower triangle, row by row, is x."""
    return _linear(x, _unpack, _pack_sum)


def triangular(x: Numbers) -> Matrices:
    """The lower triangular matrix whose lower triangle, row by row, is x."""
    return _linear(x, _triangular, _pack_lower)


def pack_sum(X: Matrices) -> Numbers:
    """X_ij + X_ji for i > j, and X_ii: the inner products of X with a basis of `symmetric`."""
    return _linear(X, _pack_sum, _unpack)


def pack(X: Matrices) -> Numbers:
    """The lower triangle of X, row by row, of symmetric X also from the upper one."""
    return pack_sum(X) / multiplicities(X.shape[-1], X.dtype, X.device)


def pack_lower(X: Matrices) -> Numbers:
    """The lower triangle of X, row by row."""
    return _linear(X, _pack_lower, _triangular)


def diagonal_places(n: int, device: torch.device) -> Tensor:
    """Where the diagonal lies in the n (n + 1)/2 numbers."""
    return torch.arange(1, n + 1, device=device).cumsum(0) - 1
