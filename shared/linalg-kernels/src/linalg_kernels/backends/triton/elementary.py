"""Logarithm, exponential and power in float32 and float64, to about one unit in the last place.

The same arithmetic on a GPU and in the interpreter, as in the native library: Triton's own
`exp` of float32 is an approximation, and it has neither log1p nor expm1 that the interpreter can
run. No step relies on whether a product and a sum are fused. Zero and what lies outside the
domain come out as IEEE has them.
"""

import triton
import triton.language as tl

from linalg_kernels.backends.triton.tile import ones


@triton.jit
def log_parts(x):
    """k and y with log x = k ln 2 + y, k an integer in floating point; -inf at 0, NaN below."""
    if x.dtype == tl.float64:
        small = x < 2.2250738585072014e-308
        raw = tl.where(small, x * 18014398509481984.0, x).to(tl.int64, bitcast=True)
        raw = raw - 0x3FE6A09E667F3BCD
        k = (raw >> 52).to(tl.float64)
        # x = 2^k (1 + f) with 1 + f in [1/sqrt 2, sqrt 2); f is exact.
        f = ((raw & 0xFFFFFFFFFFFFF) + 0x3FE6A09E667F3BCD).to(tl.float64, bitcast=True) - 1.0
        k = tl.where(small, k - 54.0, k)
        s = f / (f + 2.0)
        z = s * s
        R = z * 0.09523809523809523 + 0.10526315789473684
        R = R * z + 0.11764705882352941
        R = R * z + 0.13333333333333333
        R = R * z + 0.15384615384615385
        R = R * z + 0.18181818181818182
        R = R * z + 0.2222222222222222
        R = R * z + 0.2857142857142857
        R = R * z + 0.4
        R = R * z + 0.6666666666666666
    else:
        small = x < 1.1754943508222875e-38
        raw = tl.where(small, x * 33554432.0, x).to(tl.int32, bitcast=True) - 0x3F3504F3
        k = (raw >> 23).to(tl.float32)
        f = ((raw & 0x7FFFFF) + 0x3F3504F3).to(tl.float32, bitcast=True) - 1.0
        k = tl.where(small, k - 25.0, k)
        s = tl.div_rn(f, f + 2.0)
        z = s * s
        R = z * 0.2222222222222222 + 0.2857142857142857
        R = R * z + 0.4
        R = R * z + 0.6666666666666666
    # log(1 + f) = f - f^2/2 + s (f^2/2 + R(s^2)) with s = f / (2 + f).
    half = f * f * 0.5
    y = f - (half - s * (half + R * z))
    # The exponent alone says what is special: the rest stays finite.
    k = tl.where(x == 0, float("-inf"), k)
    k = tl.where(x == float("inf"), float("inf"), k)
    k = tl.where(x >= 0, k, float("nan"))
    return k, tl.where(tl.abs(k) < float("inf"), y, 0.0)


@triton.jit
def join_log(k, y):
    """k ln 2 + y; the product with the first part of ln 2 is exact."""
    if y.dtype == tl.float64:
        return k * 0.6931471805598903 + (k * 5.497923018708371e-14 + y)
    else:
        return k * 0.693145751953125 + (k * 1.4286068203094173e-06 + y)


@triton.jit
def log(x):
    k, y = log_parts(x)
    return tl.where(tl.abs(k) < float("inf"), join_log(k, y), k)


@triton.jit
def _reduced(x):
    """x = k ln 2 + r with |r| <= ln(2)/2, and (e^r - 1 - r) / r^2."""
    k = tl.floor(x * 1.4426950408889634 + 0.5)
    if x.dtype == tl.float64:
        r = (x - k * 0.6931471805598903) - k * 5.497923018708371e-14
        q = r * 1.6059043836821613e-10 + 2.08767569878681e-09
        q = q * r + 2.505210838544172e-08
        q = q * r + 2.755731922398589e-07
        q = q * r + 2.7557319223985893e-06
        q = q * r + 2.48015873015873e-05
        q = q * r + 0.0001984126984126984
        q = q * r + 0.001388888888888889
        q = q * r + 0.008333333333333333
    else:
        r = (x - k * 0.693145751953125) - k * 1.4286068203094173e-06
        q = r * 0.0001984126984126984 + 0.001388888888888889
        q = q * r + 0.008333333333333333
    q = q * r + 0.041666666666666664
    q = q * r + 0.16666666666666666
    return k, r, q * r + 0.5


@triton.jit
def _power_of_two(k):
    """2^k for whole k within the range of normal numbers."""
    if k.dtype == tl.float64:
        return ((k.to(tl.int64) + 1023) << 52).to(tl.float64, bitcast=True)
    else:
        return ((k.to(tl.int32) + 127) << 23).to(tl.float32, bitcast=True)


@triton.jit
def exp_with_tail(x, tail):
    """e^(x + tail) for a tail far smaller than x."""
    known = tl.where(x == x, x, 0.0)
    if x.dtype == tl.float64:
        bounded = tl.minimum(tl.maximum(known, -1024.0), 1024.0)
    else:
        bounded = tl.minimum(tl.maximum(known, -128.0), 128.0)
    k, r, q = _reduced(bounded)
    r = r + tail
    y = 1.0 + (r * r * q + r)
    # In two steps, so that the halves stay normal where the result does not.
    half = tl.floor(k * 0.5)
    y = y * _power_of_two(half) * _power_of_two(k - half)
    return tl.where(x == x, y, x)


@triton.jit
def exp(x):
    return exp_with_tail(x, ones(x) - 1.0)


@triton.jit
def expm1_nonpositive(x):
    """e^x - 1 for x <= 0, with small relative error also near 0."""
    k, r, q = _reduced(tl.maximum(tl.where(x == x, x, 0.0), -60.0))
    scale = _power_of_two(k)
    y = scale * (r * r * q + r) + (scale - 1.0)
    return tl.where(x == x, y, x)


# --- double words: an unevaluated sum high + low of two float64 -----------------------------


@triton.jit
def _halves(a):
    """a as the sum of two numbers of 26 and 27 bits, cut by its bits: fusing changes nothing."""
    high = (a.to(tl.int64, bitcast=True) & -134217728).to(tl.float64, bitcast=True)
    return high, a - high


@triton.jit
def _two_product(a, b):
    p = a * b
    a1, a2 = _halves(a)
    b1, b2 = _halves(b)
    return p, ((a1 * b1 - p) + a1 * b2 + a2 * b1) + a2 * b2


@triton.jit
def _two_sum(a, b):
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


@triton.jit
def _fast_two_sum(a, b):
    """For |a| >= |b|."""
    s = a + b
    return s, b - (s - a)


@triton.jit
def _times(a, a_low, b, b_low):
    p, p_low = _two_product(a, b)
    return _fast_two_sum(p, p_low + (a * b_low + a_low * b))


@triton.jit
def _plus(a, a_low, b, b_low):
    s, s_low = _two_sum(a, b)
    return _fast_two_sum(s, s_low + (a_low + b_low))


@triton.jit
def log_pair(x):
    """log x of float64 as a double word: 2 atanh s, s = f / (2 + f)."""
    small = x < 2.2250738585072014e-308
    raw = tl.where(small, x * 18014398509481984.0, x).to(tl.int64, bitcast=True)
    raw = raw - 0x3FE6A09E667F3BCD
    k = (raw >> 52).to(tl.float64)
    f = ((raw & 0xFFFFFFFFFFFFF) + 0x3FE6A09E667F3BCD).to(tl.float64, bitcast=True) - 1.0
    k = tl.where(small, k - 54.0, k)
    bottom, bottom_low = _fast_two_sum(f * 0.0 + 2.0, f)
    quotient = f / bottom
    back, back_low = _two_product(quotient, bottom)
    rest = ((f - back) - back_low) - quotient * bottom_low
    s, s_low = _fast_two_sum(quotient, rest / bottom)
    z, z_low = _times(s, s_low, s, s_low)
    tail = z * 0.034482758620689655 + 0.037037037037037035
    tail = tail * z + 0.04
    tail = tail * z + 0.043478260869565216
    tail = tail * z + 0.047619047619047616
    tail = tail * z + 0.05263157894736842
    tail = tail * z + 0.058823529411764705
    tail = tail * z + 0.06666666666666667
    tail = tail * z + 0.07692307692307693
    tail = tail * z + 0.09090909090909091
    tail = tail * z + 0.1111111111111111
    tail = tail * z + 0.14285714285714285
    tail = (tail * z + 0.2) * z
    # 1 + z/3 + ..., times 2 s
    y, y_low = _fast_two_sum(z * 0.0 + 0.3333333333333333, 1.850371707708594e-17 + tail)
    y, y_low = _times(y, y_low, z, z_low)
    y, y_low = _plus(y * 0.0 + 1.0, y * 0.0, y, y_low)
    y, y_low = _times(y, y_low, s + s, s_low + s_low)
    e, e_low = _fast_two_sum(k * 0.6931471805598903, k * 5.497923018708371e-14)
    y, y_low = _plus(e, e_low, y, y_low)
    y = tl.where(x == 0, float("-inf"), y)
    y = tl.where(x == float("inf"), x, y)
    return tl.where(x >= 0, y, float("nan")), y_low


@triton.jit
def power_from_log(y, y_low, p, p_low):
    """x^(p + p_low) from the double word log x; x^0 = 1 whatever x."""
    e, e_low = _two_product(y, p)
    tail = e_low + (y * p_low + y_low * p)
    # Infinite logarithms and overflowing products have no tail worth having.
    tail = tl.where(tl.abs(e) < 2048.0, tail, 0.0)
    return tl.where((p == 0) & (p_low == 0), 1.0, exp_with_tail(e, tail))


@triton.jit
def powers(x, p):
    """x^p and x^(p - 1), for a scalar p of the same dtype."""
    if x.dtype == tl.float64:
        y, y_low = log_pair(x)
        less, less_low = _two_sum(p, p * 0.0 - 1.0)
        return (
            power_from_log(y, y_low, p, p * 0.0),
            power_from_log(y, y_low, less, less_low),
        )
    else:
        # float64 has digits to spare for float32.
        wide = p.to(tl.float64)
        y = log(x.to(tl.float64))
        own = tl.where(wide == 0, 1.0, exp(wide * y))
        less = tl.where(wide == 1.0, 1.0, exp((wide - 1.0) * y))
        return own.to(tl.float32), less.to(tl.float32)
