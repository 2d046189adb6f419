"""Third divided differences of the spectral functions.

f[a, b, c, d] = (f[a, b, c] - f[b, c, d]) / (a - d), f'''(a) / 6 where all four are equal: the
entries of the third derivative of a spectral function, which a second derivative of something
that contains its first one asks for. As in `divided`, nothing asks whether two eigenvalues
are "equal"; differences of small gaps come from the Taylor series about the mean.

All arguments are real tensors that broadcast; positive where the function asks for it.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from linalg_kernels import divided

_SERIES_GAP = 0.2
_SERIES_TERMS = 18


def _sorted(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> tuple[Tensor, ...]:
    low, high = torch.minimum(a, b), torch.maximum(a, b)
    below, above = torch.minimum(c, d), torch.maximum(c, d)
    inner, outer = torch.maximum(low, below), torch.minimum(high, above)
    return (
        torch.minimum(low, below),
        torch.minimum(inner, outer),
        torch.maximum(inner, outer),
        torch.maximum(high, above),
    )


def _mean(x: tuple[Tensor, ...]) -> Tensor:
    return x[0] + ((x[1] - x[0]) + (x[2] - x[0]) + (x[3] - x[0])) / 4


def _quotient(
    second: Callable[[Tensor, Tensor, Tensor], Tensor], x: tuple[Tensor, ...], far: Tensor
) -> Tensor:
    """(f[x₃, x₂, x₁] - f[x₂, x₁, x₀]) / (x₃ - x₀) over the largest gap; 0 where not `far`."""
    gap = torch.where(far, x[3] - x[0], 1)
    return torch.where(far, (second(x[3], x[2], x[1]) - second(x[2], x[1], x[0])) / gap, 0)


def _taylor(
    x: tuple[Tensor, ...], mean: Tensor, unit: Tensor | float, coefficients: list
) -> Tensor:
    """Σ_j coefficients[j] h_j((x - mean)/unit).

    h_j are the complete homogeneous symmetric polynomials; as the four deviations sum to zero,
    h_j = -e₂ h_{j-2} + e₃ h_{j-3} - e₄ h_{j-4}.
    """
    p, q, r, s = ((each - mean) / unit for each in x)
    e2 = p * q + r * s + (p + q) * (r + s)
    e3 = p * q * (r + s) + (p + q) * r * s
    e4 = p * q * r * s
    h = [torch.zeros_like(p), torch.zeros_like(p), torch.zeros_like(p), torch.ones_like(p)]
    total = coefficients[0] * h[3]
    for coefficient in coefficients[1:]:
        h = [*h[1:], -e2 * h[2] + e3 * h[1] - e4 * h[0]]
        total = total + coefficient * h[3]
    return total


def log(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """log[a, b, c, d]."""
    x = _sorted(a, b, c, d)
    mean = _mean(x)
    far = x[3] - x[0] >= _SERIES_GAP * mean
    coefficients = [(-1) ** (k - 1) / k for k in range(3, 3 + _SERIES_TERMS)]
    near = _taylor(x, mean, mean, coefficients) / mean / mean / mean
    return torch.where(far, _quotient(divided.log2, x, far), near)


def exp(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """exp[a, b, c, d]."""
    x = _sorted(a, b, c, d)
    mean = _mean(x)
    far = x[3] - x[0] >= _SERIES_GAP
    coefficients = [1 / math.factorial(k) for k in range(3, 3 + _SERIES_TERMS)]
    # Outside its range the series may overflow; what is not used must stay finite.
    spread = tuple(torch.where(far, mean, each) for each in x)
    near = torch.exp(mean) * _taylor(spread, mean, 1.0, coefficients)
    return torch.where(far, _quotient(divided.exp2, x, far), near)


def power(a: Tensor, b: Tensor, c: Tensor, d: Tensor, p: Tensor) -> Tensor:
    """(x^p)[a, b, c, d]."""
    x = _sorted(a, b, c, d)
    mean = _mean(x)
    far = x[3] - x[0] >= _SERIES_GAP * mean
    binomials = [torch.ones_like(p)]
    for k in range(1, 3 + _SERIES_TERMS):
        binomials.append(binomials[-1] * (p - (k - 1)) / k)
    near = mean ** (p - 3) * _taylor(x, mean, mean, binomials[3:])
    quotient = _quotient(lambda u, v, w: divided.power2(u, v, w, p), x, far)
    return torch.where(far, quotient, near)


def sqrt(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """sqrt[a, b, c, d] = Σ √x / ∏_{x, y} (√x + √y) over the six pairs."""
    p, q, r, s = (torch.sqrt(each) for each in _sorted(a, b, c, d))
    total = p + q + r + s
    return total / (p + q) / (r + s) / (p + r) / (q + s) / (p + s) / (q + r)


def inv_sqrt(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """(x^-1/2)[a, b, c, d]."""
    return power(a, b, c, d, torch.full((), -0.5, dtype=a.dtype, device=a.device))


def inv(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """(1/x)[a, b, c, d] = -1 / (a b c d)."""
    p, q, r, s = _sorted(a, b, c, d)
    return -1 / p / q / r / s
