"""First and second divided differences of the spectral functions.

The first divided difference is `f[a, b] = (f(a) - f(b)) / (a - b)`, `f'(a)` at a tie;
the second is `f[a, b, c] = (f[a, b] - f[b, c]) / (a - c)`, `f''(a) / 2` at a triple tie.
They are the entries of the Daleckii-Krein kernels, so their errors are the errors of every
gradient. Each is written in the form that its function needs: none asks whether two
eigenvalues are "equal", the only branch is at a difference of exactly zero.

All arguments are real tensors that broadcast; positive where the function asks for it.
Differentiating these expressions by autograd with respect to a or b loses digits: the
derivatives of a spectral function go through the next divided difference instead.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

# A quotient of first differences loses (size of f[·,·]) / (largest gap); below this gap,
# relative to the function's own length, the second difference comes from its Taylor series.
_SERIES_GAP = 0.1
_SERIES_TERMS = 14


def _ordered(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Larger, smaller, their exact difference, and where it is zero."""
    M, m = torch.maximum(a, b), torch.minimum(a, b)
    d = M - m
    return M, m, d, d == 0


def _log_ratio(M: Tensor, m: Tensor, d: Tensor) -> Tensor:
    """log(M / m) to full relative accuracy, also where d / m overflows. NaN for m < 0."""
    t = d / m
    ratio = torch.where(torch.isinf(t), torch.log(M) - torch.log(m), torch.log1p(t))
    return torch.where(m < 0, torch.full_like(ratio, math.nan), ratio)


def log(a: Tensor, b: Tensor) -> Tensor:
    """log[a, b] = log1p((M - m) / m) / (M - m)."""
    M, m, d, tie = _ordered(a, b)
    return torch.where(tie, 1 / m, _log_ratio(M, m, d) / torch.where(tie, 1, d))


def exp(a: Tensor, b: Tensor) -> Tensor:
    """exp[a, b] = e^M (1 - e^-(M-m)) / (M - m); overflows only where e^M does."""
    M, _, d, tie = _ordered(a, b)
    bracket = torch.where(tie, 1, -torch.expm1(-d) / torch.where(tie, 1, d))
    return torch.exp(M) * bracket


def sqrt(a: Tensor, b: Tensor) -> Tensor:
    """sqrt[a, b] = 1 / (√a + √b)."""
    return 1 / (torch.sqrt(a) + torch.sqrt(b))


def inv_sqrt(a: Tensor, b: Tensor) -> Tensor:
    """(x^-1/2)[a, b] = -1 / (√a √b (√a + √b))."""
    ra, rb = torch.sqrt(a), torch.sqrt(b)
    return -1 / (ra * rb * (ra + rb))


def inv(a: Tensor, b: Tensor) -> Tensor:
    """(1/x)[a, b] = -1 / (a b), without forming a b."""
    return -1 / torch.maximum(a, b) / torch.minimum(a, b)


def power(a: Tensor, b: Tensor, p: Tensor) -> Tensor:
    """(x^p)[a, b] for a, b > 0 and any real p, broadcast against a and b.

    Brackets are formed before the scale M^(p-1) or m^(p-1) is multiplied in: from left to
    right the product underflows or overflows where the result does not.
    """
    M, m, d, tie = _ordered(a, b)
    ratio = _log_ratio(M, m, d)
    exponent = torch.where(p == 0, torch.zeros_like(ratio), p * ratio)
    gap = torch.where(tie, 1, d)
    t = gap / m
    rising = M ** (p - 1) * (-torch.expm1(-exponent) / (gap / M))
    falling_near = m ** (p - 1) * (torch.expm1(exponent) / t)
    falling_far = (m**p / gap) * torch.expm1(exponent)
    falling = torch.where(t < 1, falling_near, falling_far)
    return torch.where(tie, p * m ** (p - 1), torch.where(p >= 0, rising, falling))


def power_log(a: Tensor, b: Tensor, p: Tensor) -> Tensor:
    """(x^p log x)[a, b], the derivative of `power` with respect to p."""
    M, m, d, tie = _ordered(a, b)
    ratio = _log_ratio(M, m, d)
    exponent = torch.where(p == 0, torch.zeros_like(ratio), p * ratio)
    gap = torch.where(tie, 1, d)
    t = gap / m
    log_M, log_m = torch.log(M), torch.log(m)
    relative = gap / M
    rising = M ** (p - 1) * (
        log_M * (-torch.expm1(-exponent) / relative) + ratio * torch.exp(-exponent) / relative
    )
    falling_near = m ** (p - 1) * (
        log_m * (torch.expm1(exponent) / t) + ratio * torch.exp(exponent) / t
    )
    falling_far = (m**p / gap) * (log_m * torch.expm1(exponent) + ratio * torch.exp(exponent))
    falling = torch.where(t < 1, falling_near, falling_far)
    tied = m ** (p - 1) * (1 + p * log_m)
    return torch.where(tie, tied, torch.where(p >= 0, rising, falling))


def clamp(a: Tensor, b: Tensor, floor: float) -> Tensor:
    """max(x, floor)[a, b]; an eigenvalue at the floor counts as clamped (derivative 0)."""
    M, m, d, tie = _ordered(a, b)
    above, below = m > floor, M <= floor
    slope = (M - floor) / torch.where(tie, 1, d)
    return torch.where(above, 1, torch.where(below, 0, slope))


def floored(
    first: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor, floor: float
) -> Tensor:
    """f(max(x, floor))[a, b], from the first divided difference of f."""
    inside = first(a.clamp(min=floor), b.clamp(min=floor)) * clamp(a, b, floor)
    # f may have an infinite slope at the floor, as the square root has at 0.
    return torch.where(torch.maximum(a, b) > floor, inside, 0)


# 8-node Gauss-Legendre rule on [0, 1].
_NODES = (
    0.019855071751231884,
    0.10166676129318664,
    0.2372337950418355,
    0.4082826787521751,
    0.5917173212478249,
    0.7627662049581645,
    0.8983332387068134,
    0.9801449282487681,
)
_WEIGHTS = (
    0.05061426814518813,
    0.11119051722668724,
    0.15685332293894363,
    0.181341891689181,
    0.181341891689181,
    0.15685332293894363,
    0.11119051722668724,
    0.05061426814518813,
)


def _length(a: Tensor, b: Tensor, length: float | None) -> Tensor | float:
    return torch.minimum(a.abs(), b.abs()) if length is None else length


def generic(
    f: Callable[[Tensor], Tensor],
    df: Callable[[Tensor], Tensor],
    a: Tensor,
    b: Tensor,
    length: float | None,
) -> Tensor:
    """f[a, b] of any smooth f: the quotient for distant arguments, else ∫₀¹ f'(b + u(a-b)) du.

    `length` is the distance over which f varies; None means |x| itself (f singular at 0).
    """
    a, b = torch.broadcast_tensors(a, b)
    d = a - b
    far = d.abs() > _length(a, b, length) / 4
    quotient = (f(a) - f(b)) / torch.where(far, d, 1)
    near = sum(weight * df(b + node * d) for node, weight in zip(_NODES, _WEIGHTS, strict=True))
    return torch.where(far, quotient, near)


# --- second divided differences -------------------------------------------------------------


def _sorted3(a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    low, high = torch.minimum(a, b), torch.maximum(a, b)
    return (
        torch.minimum(low, c),
        torch.maximum(low, torch.minimum(high, c)),
        torch.maximum(high, c),
    )


def _quotient(
    first: Callable[[Tensor, Tensor], Tensor], lo: Tensor, mi: Tensor, hi: Tensor, far: Tensor
) -> Tensor:
    """(f[hi, mi] - f[mi, lo]) / (hi - lo) over the largest gap; 0 where not `far`."""
    gap = torch.where(far, hi - lo, 1)
    return torch.where(far, (first(hi, mi) - first(mi, lo)) / gap, 0)


def _taylor(
    lo: Tensor, mi: Tensor, hi: Tensor, mean: Tensor, unit: Tensor | float, coefficients: list
) -> Tensor:
    """Σ_j coefficients[j] h_j((lo - mean)/unit, (mi - mean)/unit, (hi - mean)/unit).

    h_j are the complete homogeneous symmetric polynomials; as the three deviations sum to
    zero, h_j = -e₂ h_{j-2} + e₃ h_{j-3}.
    """
    x, y, z = (lo - mean) / unit, (mi - mean) / unit, (hi - mean) / unit
    e2 = x * y + (x + y) * z
    e3 = x * y * z
    h = [torch.ones_like(x), torch.zeros_like(x), -e2]
    total = coefficients[0] * h[0] + coefficients[2] * h[2]
    for coefficient in coefficients[3:]:
        h = [h[1], h[2], -e2 * h[1] + e3 * h[0]]
        total = total + coefficient * h[2]
    return total


def _mean3(lo: Tensor, mi: Tensor, hi: Tensor) -> Tensor:
    return lo + ((mi - lo) + (hi - lo)) / 3


def log2(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """log[a, b, c]."""
    lo, mi, hi = _sorted3(a, b, c)
    mean = _mean3(lo, mi, hi)
    far = hi - lo >= _SERIES_GAP * mean
    coefficients = [(-1) ** (k - 1) / k for k in range(2, 2 + _SERIES_TERMS)]
    near = _taylor(lo, mi, hi, mean, mean, coefficients) / mean / mean
    return torch.where(far, _quotient(log, lo, mi, hi, far), near)


def exp2(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """exp[a, b, c]."""
    lo, mi, hi = _sorted3(a, b, c)
    mean = _mean3(lo, mi, hi)
    far = hi - lo >= _SERIES_GAP
    coefficients = [1 / math.factorial(k) for k in range(2, 2 + _SERIES_TERMS)]
    # Outside its range the series may overflow; what is not used must stay finite.
    spread = [torch.where(far, mean, x) for x in (lo, mi, hi)]
    near = torch.exp(mean) * _taylor(*spread, mean, 1.0, coefficients)
    return torch.where(far, _quotient(exp, lo, mi, hi, far), near)


def power2(a: Tensor, b: Tensor, c: Tensor, p: Tensor) -> Tensor:
    """(x^p)[a, b, c]."""
    lo, mi, hi = _sorted3(a, b, c)
    mean = _mean3(lo, mi, hi)
    far = hi - lo >= _SERIES_GAP * mean
    binomials = [torch.ones_like(p)]
    for k in range(1, 2 + _SERIES_TERMS):
        binomials.append(binomials[-1] * (p - (k - 1)) / k)
    near = mean ** (p - 2) * _taylor(lo, mi, hi, mean, mean, binomials[2:])
    return torch.where(far, _quotient(lambda x, y: power(x, y, p), lo, mi, hi, far), near)


def sqrt2(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """sqrt[a, b, c] = -1 / ((√a + √b)(√b + √c)(√a + √c))."""
    ra, rb, rc = (torch.sqrt(x) for x in _sorted3(a, b, c))
    return -1 / (ra + rb) / (rb + rc) / (ra + rc)


def inv_sqrt2(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """(x^-1/2)[a, b, c] = (√a + √b + √c) / (√a √b √c (√a + √b)(√b + √c)(√a + √c))."""
    a, b, c = _sorted3(a, b, c)
    ra, rb, rc = torch.sqrt(a), torch.sqrt(b), torch.sqrt(c)
    pairs = (ra + rb) / ra, (rb + rc) / rb, (ra + rc) / rc
    return (ra + rb + rc) / (pairs[0] * pairs[1] * pairs[2]) / a / b / c


def inv2(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """(1/x)[a, b, c] = 1 / (a b c)."""
    a, b, c = _sorted3(a, b, c)
    return 1 / a / b / c


def clamp2(a: Tensor, b: Tensor, c: Tensor, floor: float) -> Tensor:
    """max(x, floor)[a, b, c]: zero unless the floor lies between the arguments."""
    return floored2(
        lambda x, y: torch.ones_like(x * y), lambda x, y, z: torch.zeros_like(x * y * z), a, b, c,
        floor,
    )  # fmt: skip


def floored2(
    first: Callable[[Tensor, Tensor], Tensor],
    second: Callable[[Tensor, Tensor, Tensor], Tensor],
    a: Tensor,
    b: Tensor,
    c: Tensor,
    floor: float,
) -> Tensor:
    """f(max(x, floor))[a, b, c], from the divided differences of f."""
    lo, mi, hi = _sorted3(a, b, c)
    above, below = lo > floor, hi <= floor
    mixed = ~(above | below)
    crossing = _quotient(lambda x, y: floored(first, x, y, floor), lo, mi, hi, mixed)
    smooth = second(lo.clamp(min=floor), mi.clamp(min=floor), hi.clamp(min=floor))
    return torch.where(mixed, crossing, torch.where(above, smooth, 0))


def generic2(
    first: Callable[[Tensor, Tensor], Tensor],
    d2f: Callable[[Tensor], Tensor],
    a: Tensor,
    b: Tensor,
    c: Tensor,
    length: float | None,
) -> Tensor:
    """f[a, b, c] of any smooth f: the quotient, or ∫₀¹∫₀¹ u f''(a + u(b-a) + uv(c-b)) dv du."""
    a, b, c = torch.broadcast_tensors(a, b, c)
    lo, mi, hi = _sorted3(a, b, c)
    far = hi - lo > _length(lo, hi, length) / 4
    near = torch.zeros_like(lo)
    for u, weight_u in zip(_NODES, _WEIGHTS, strict=True):
        for v, weight_v in zip(_NODES, _WEIGHTS, strict=True):
            near = near + weight_u * weight_v * u * d2f(lo + u * ((mi - lo) + v * (hi - mi)))
    return torch.where(far, _quotient(first, lo, mi, hi, far), near)
