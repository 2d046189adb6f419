"""Stumpff functions c_k(x) = Σ_j (-x)^j / (k + 2j)!, the smooth scalars of rotations.

With x = θ²: c_0 = cos θ, c_1 = sin θ / θ, c_2 = (1 - cos θ) / θ², c_3 = (θ - sin θ) / θ³.
They are entire in x, and c_k' = (k c_{k+2} - c_{k+1}) / 2, so that derivatives of every order
are Stumpff functions again and nothing divides by θ (Stumpff 1959).
"""

import math

import torch
from torch import Tensor
from torch.autograd import Function

from linalg_kernels.transforms import batch_first

# Below, the series: its terms do not grow, and this many of them reach float64. Above, the
# recurrence: each of its steps cancels by less than a digit.
_SERIES_BELOW = 4.0
_SERIES_TERMS = 14


def _evaluate(x: Tensor, k: int) -> Tensor:
    near = x < _SERIES_BELOW
    z = torch.where(near, x, 0)
    series = torch.full_like(z, 1 / math.factorial(k + 2 * (_SERIES_TERMS - 1)))
    for j in reversed(range(_SERIES_TERMS - 1)):
        series = 1 / math.factorial(k + 2 * j) - z * series
    far = torch.where(near, _SERIES_BELOW, x)
    theta = far.sqrt()
    value = torch.cos(theta) if k % 2 == 0 else torch.sin(theta) / theta
    for j in range(k % 2, k, 2):
        value = (1 / math.factorial(j) - value) / far
    return torch.where(near, series, value)


class _Stumpff(Function):
    @staticmethod
    def forward(x, k):
        return _evaluate(x, k)

    @staticmethod
    def setup_context(ctx, inputs, output):  # noqa: ARG004
        x, ctx.k = inputs
        ctx.save_for_backward(x)
        ctx.save_for_forward(x)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * _slope(x, ctx.k), None

    @staticmethod
    def vmap(info, dims, x, k):
        (x,) = batch_first(info.batch_size, dims[:1], (x,))
        return stumpff(x, k), 0


class _StumpffEager(_Stumpff):
    @staticmethod
    def jvp(ctx, dx, _):
        (x,) = ctx.saved_tensors
        return dx * _slope(x, ctx.k)


def _slope(x: Tensor, k: int) -> Tensor:
    return (k * stumpff(x, k + 2) - stumpff(x, k + 1)) / 2


def stumpff(x: Tensor, k: int) -> Tensor:
    """c_k(x) for x >= 0 and k >= 0, with derivatives of every order, also at x = 0."""
    rule = _Stumpff if torch.compiler.is_compiling() else _StumpffEager
    return rule.apply(x, k)
