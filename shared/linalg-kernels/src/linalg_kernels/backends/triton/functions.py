"""The functions of eigenvalues: f(w), and f[a, b] = (f(a) - f(b)) / (a - b).

Formulas and reasons stand in `linalg_kernels.divided`; here they are put together from parts that
depend on one eigenvalue each (`prepare`), as in the native library. Nowhere is it asked whether
two eigenvalues are "equal": only a difference of exactly zero is special.
"""

import triton
import triton.language as tl

from linalg_kernels.backends.triton.elementary import (
    exp,
    expm1_nonpositive,
    join_log,
    log,
    log_parts,
    powers,
)
from linalg_kernels.backends.triton.tile import div, ones, sqrt

# The numbers of `backends.native`.
IDENTITY, LOG, EXP, SQRT, INV_SQRT, INVERSE, POWER, TABLE = range(8)


@triton.jit
def value(w, p, KIND: tl.constexpr):
    """f(w)."""
    if KIND == 1:
        return log(w)
    elif KIND == 2:
        return exp(w)
    elif KIND == 3:
        return sqrt(w)
    elif KIND == 4:
        return div(ones(w), sqrt(w))
    elif KIND == 5:
        return div(ones(w), w)
    elif KIND == 6:
        return powers(w, p)[0]
    else:
        return w


@triton.jit
def prepare(w, p, KIND: tl.constexpr):
    """Parts x, y, z, u of an eigenvalue that `divided_difference` is put together from."""
    if KIND == 1:
        k, y = log_parts(w)
        return k, y, w, w
    elif KIND == 2:
        return exp(w), w, w, w
    elif (KIND == 3) | (KIND == 4):
        return sqrt(w), w, w, w
    elif KIND == 5:
        return div(ones(w), w), w, w, w
    elif KIND == 6:
        k, y = log_parts(w)
        u, z = powers(w, p)
        return k, y, z, u
    else:
        return w, w, w, w


@triton.jit
def _near_log_series(d, r):
    """log(M / m) / d / r for r = 2 / (M + m) while M < sqrt(2) m: 1 + z/3 + z^2/5 + ..."""
    s = d * r * 0.5
    z = s * s
    if d.dtype == tl.float64:
        q = z * 0.047619047619047616 + 0.05263157894736842
        q = q * z + 0.058823529411764705
        q = q * z + 0.06666666666666667
        q = q * z + 0.07692307692307693
        q = q * z + 0.09090909090909091
        q = q * z + 0.1111111111111111
    else:
        q = z * 0.0 + 0.1111111111111111
    return 1.0 + z * (0.3333333333333333 + z * (0.2 + z * (0.14285714285714285 + z * q)))


@triton.jit
def divided_difference(a, b, xa, xb, ya, yb, za, zb, ua, ub, p, KIND: tl.constexpr):
    """f[a, b] from both eigenvalues and their parts, as tiles that broadcast."""
    one = ones(a + b)
    if KIND == 0:
        return one
    elif KIND == 3:
        return div(one, xa + xb)
    elif KIND == 4:
        return -div(one, xa * xb * (xa + xb))
    elif KIND == 5:
        return -(xa * xb)
    else:
        swap = b > a
        M = tl.where(swap, b, a)
        m = tl.where(swap, a, b)
        d = M - m
        tie = d == 0
        if KIND == 2:
            gap = tl.where(tie, 1.0, d)
            bracket = tl.where(tie, 1.0, -div(expm1_nonpositive(-d), gap))
            return tl.where(swap, xb, xa) * bracket
        else:
            k = tl.where(swap, xb - xa, xa - xb)
            y = tl.where(swap, yb - ya, ya - yb)
            near = (M < 1.4142135623730951 * m) | tie
            # (M + m) / 2 without overflow
            r = div(one, tl.where(near, M * 0.5 + m * 0.5, d))
            series = _near_log_series(d, r)
            far = join_log(k, y)
            if KIND == 1:
                return tl.where(m >= 0, tl.where(near, series, far) * r, float("nan"))
            else:
                ratio = tl.where(near, d * r * series, far)
                change = expm1_nonpositive(tl.where(p == 0, 0.0, -tl.abs(p) * ratio))
                big = tl.where(swap, zb, za)
                small = tl.where(swap, za, zb)
                rising = p >= 0
                t = div(d, m)
                close = t < 1
                scale = tl.where(close, small, tl.where(swap, ua, ub))
                scale = tl.where(rising, big, scale)
                width = tl.where(rising, div(d, M), tl.where(close, t, d))
                width = tl.where(tie, 1.0, width)
                K = scale * div(tl.where(rising, -change, change), width)
                return tl.where(m >= 0, tl.where(tie, p * small, K), float("nan"))


@triton.jit
def floor_difference(a, b, floor):
    """max(., floor)[a, b]; an eigenvalue at the floor counts as raised to it."""
    M, m = tl.maximum(a, b), tl.minimum(a, b)
    above = m > floor
    slope = div(M - floor, tl.where(above, 1.0, M - m))
    return tl.where(above, 1.0, tl.where(M <= floor, 0.0, slope))
