"""Divided differences against mpmath at 60 digits: ties, tiny gaps, distant arguments."""

import math

import mpmath
import pytest
import torch
from linalg_kernels import divided

EPS = {torch.float32: 2.0**-23, torch.float64: 2.0**-52}


def pairs(dtype, low, high, count=400, seed=0):
    """Positive pairs between 10^low and 10^high, relative gaps 1e-17 … 1e2, and exact ties."""
    g = torch.Generator().manual_seed(seed)
    a = 10 ** (low + (high - low) * torch.rand(count, generator=g, dtype=torch.float64))
    gap = 10 ** (-17 + 19 * torch.rand(count, generator=g, dtype=torch.float64))
    gap[::10] = 0
    return a.to(dtype), (a * (1 + gap)).to(dtype)


def exact_first(f, df, a, b):
    with mpmath.workdps(60):
        exact = zip(map(mpmath.mpf, a.tolist()), map(mpmath.mpf, b.tolist()), strict=True)
        return [df(x) if x == y else (f(x) - f(y)) / (x - y) for x, y in exact]


def exact_second(f, df, d2f, a, b, c):
    """f[a, b, c] at 60 digits; the order of the arguments does not matter."""

    def first(x, y):
        return df(x) if x == y else (f(x) - f(y)) / (x - y)

    out = []
    with mpmath.workdps(60):
        for triple in zip(
            a.double().tolist(), b.double().tolist(), c.double().tolist(), strict=True
        ):
            x, y, z = sorted(map(mpmath.mpf, triple))
            out.append(d2f(x) / 2 if x == z else (first(z, y) - first(y, x)) / (z - x))
    return out


def worst(got, exact, dtype):
    """Largest relative error in units of the dtype's rounding, over what the dtype can hold."""
    tiny, huge = torch.finfo(dtype).tiny, torch.finfo(dtype).max
    with mpmath.workdps(60):
        errors = [
            abs((mpmath.mpf(g) - e) / e)
            for g, e in zip(got.double().tolist(), exact, strict=True)
            if tiny < abs(e) < huge
        ]
    assert len(errors) > 0.8 * len(exact)
    return float(max(errors)) / EPS[dtype]


FUNCTIONS = {
    "log": (divided.log, divided.log2, mpmath.log, lambda x: 1 / x, lambda x: -1 / x**2),
    "sqrt": (
        divided.sqrt, divided.sqrt2, mpmath.sqrt,
        lambda x: 1 / (2 * mpmath.sqrt(x)), lambda x: -1 / (4 * x * mpmath.sqrt(x)),
    ),
    "inv_sqrt": (
        divided.inv_sqrt, divided.inv_sqrt2, lambda x: 1 / mpmath.sqrt(x),
        lambda x: -1 / (2 * x * mpmath.sqrt(x)), lambda x: 3 / (4 * x**2 * mpmath.sqrt(x)),
    ),
    "inv": (
        divided.inv, divided.inv2, lambda x: 1 / x, lambda x: -1 / x**2, lambda x: 2 / x**3,
    ),
}  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_first(name, dtype):
    ours, _, f, df, _ = FUNCTIONS[name]
    a, b = pairs(dtype, -6, 2)
    assert worst(ours(a, b), exact_first(f, df, a, b), dtype) < 4
    assert torch.equal(ours(a, b), ours(b, a))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_first_exp(dtype):
    reach = 80 if dtype is torch.float32 else 690
    g = torch.Generator().manual_seed(1)
    a = reach * (2 * torch.rand(400, generator=g, dtype=torch.float64) - 1)
    gap = 10 ** (-17 + 19 * torch.rand(400, generator=g, dtype=torch.float64))
    gap[::10] = 0
    a, b = a.to(dtype), (a - gap).to(dtype)
    assert worst(divided.exp(a, b), exact_first(mpmath.exp, mpmath.exp, a, b), dtype) < 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("p", [-3.0, -1.5, -1.0, -0.5, -0.1, 0.1, 0.5, 1.0, 1.5, 2.0, 3.0])
def test_first_power(p, dtype):
    a, b = pairs(dtype, -6, 2)
    exponent = torch.tensor(p, dtype=dtype)
    q = mpmath.mpf(float(exponent))
    exact = exact_first(lambda x: x**q, lambda x: q * x ** (q - 1), a, b)
    # Rounding p - 1 alone moves the result by |log x| / 4 roundings.
    assert worst(divided.power(a, b, exponent), exact, dtype) < 4 + 14 / 4


@pytest.mark.parametrize("p", [-1.5, -0.5, 0.0, 0.5, 1.0, 2.5])
def test_first_power_log(p):
    a, b = pairs(torch.float64, 0.1, 4)
    q = mpmath.mpf(p)
    exact = exact_first(
        lambda x: x**q * mpmath.log(x), lambda x: x ** (q - 1) * (1 + q * mpmath.log(x)), a, b
    )
    got = divided.power_log(a, b, torch.tensor(p, dtype=torch.float64))
    # The function has a stationary point for p < 0; relative to the larger of its two terms.
    with mpmath.workdps(60):
        size = exact_first(lambda x: x**q, lambda x: q * x ** (q - 1), a, b)
        terms = [
            max(abs(e), abs(s) * mpmath.log(max(x, y)))
            for e, s, x, y in zip(exact, size, a.tolist(), b.tolist(), strict=True)
        ]
    errors = [abs((g - e) / t) for g, e, t in zip(got.tolist(), exact, terms, strict=True)]
    assert float(max(errors)) / EPS[torch.float64] < 16


def triples(low, high, count=300, seed=2):
    """Triples with two independent relative gaps between 1e-16 and 10, ties of two and three."""
    g = torch.Generator().manual_seed(seed)
    a = 10 ** (low + (high - low) * torch.rand(count, generator=g, dtype=torch.float64))
    gaps = 10 ** (-16 + 17 * torch.rand(2, count, generator=g, dtype=torch.float64))
    gaps[0, ::7] = 0
    gaps[1, ::5] = 0
    return a, a * (1 + gaps[0]), a * (1 + gaps[1])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_second(name):
    _, ours, f, df, d2f = FUNCTIONS[name]
    a, b, c = triples(-3, 3)
    bound = 40 if name == "log" else 4
    assert worst(ours(a, b, c), exact_second(f, df, d2f, a, b, c), torch.float64) < bound
    assert torch.equal(ours(a, b, c), ours(c, a, b))


def test_second_exp():
    g = torch.Generator().manual_seed(3)
    a = 40 * torch.rand(300, generator=g, dtype=torch.float64) - 20
    gaps = 10 ** (-16 + 17 * torch.rand(2, 300, generator=g, dtype=torch.float64))
    gaps[0, ::7] = 0
    gaps[1, ::5] = 0
    a[::11] = 0
    b, c = a + gaps[0], a - gaps[1]
    exact = exact_second(mpmath.exp, mpmath.exp, mpmath.exp, a, b, c)
    assert worst(divided.exp2(a, b, c), exact, torch.float64) < 40


@pytest.mark.parametrize("p", [-1.0, -0.5, 0.1, 0.5, 1.5, 2.0, 3.0])
def test_second_power(p):
    a, b, c = triples(-3, 3)
    q = mpmath.mpf(p)
    exact = exact_second(
        lambda x: x**q, lambda x: q * x ** (q - 1), lambda x: q * (q - 1) * x ** (q - 2), a, b, c
    )
    assert (
        worst(divided.power2(a, b, c, torch.tensor(p, dtype=torch.float64)), exact, torch.float64)
        < 500
    )


def test_arguments_whose_ratio_overflows():
    M, m = torch.tensor(4e25), torch.tensor(2e-14)
    exact = (math.log(4e25) - math.log(2e-14)) / 4e25
    assert abs(float(divided.log(M, m)) / exact - 1) < 4 * EPS[torch.float32]
    power = divided.power(M, m, torch.tensor(0.5))
    assert abs(float(power) / (math.sqrt(4e25) / 4e25) - 1) < 4 * EPS[torch.float32]


def test_negative_arguments_are_nan():
    a, b = torch.tensor([-1.0, -2.0]).double(), torch.tensor([2.0, -1.0]).double()
    p = torch.tensor(0.5).double()
    assert divided.log(a, b).isnan().all()
    assert divided.power(a, b, p).isnan().all()


def test_clamp_counts_a_tie_with_the_floor_as_clamped():
    a = torch.tensor([1.0, 2.0, 3.0, 0.5, 3.0]).double()
    b = torch.tensor([1.0, 1.0, 2.0, 0.25, 0.5]).double()
    wanted = torch.tensor([0.0, 1.0, 1.0, 0.0, 0.8], dtype=torch.float64)
    torch.testing.assert_close(divided.clamp(a, b, 1.0), wanted, rtol=1e-15, atol=0)


@pytest.mark.parametrize("length", [None, 1.0])
def test_generic_agrees_with_the_closed_form(length):
    if length is None:
        a, b = pairs(torch.float64, -2, 2)
        got = divided.generic(torch.log, torch.reciprocal, a, b, None)
        wanted = divided.log(a, b)
    else:
        g = torch.Generator().manual_seed(4)
        a = torch.randn(400, generator=g, dtype=torch.float64)
        b = a + 10 ** (-16 + 17 * torch.rand(400, generator=g, dtype=torch.float64))
        got = divided.generic(torch.exp, torch.exp, a, b, 1.0)
        wanted = divided.exp(a, b)
    # The quotient branch starts at a quarter of the length and cancels there.
    torch.testing.assert_close(got, wanted, rtol=64 * EPS[torch.float64], atol=0)


def test_generic_second_agrees_with_the_closed_form():
    a, b, c = triples(-2, 2, count=100)
    got = divided.generic2(
        lambda x, y: divided.generic(torch.log, torch.reciprocal, x, y, None),
        lambda x: -1 / x**2, a, b, c, None,
    )  # fmt: skip
    torch.testing.assert_close(got, divided.log2(a, b, c), rtol=1e-11, atol=0)


def test_floored_differences_join_at_the_floor():
    floor = 1.0
    a = torch.tensor([0.5, 0.5, 2.0, 0.2]).double()
    b = torch.tensor([0.7, 3.0, 3.0, 1.0]).double()
    wanted = torch.tensor([0.0, math.log(3.0) / 2.5, math.log(1.5), 0.0]).double()
    torch.testing.assert_close(divided.floored(divided.log, a, b, floor), wanted)
    c = torch.tensor([0.9, 0.6, 4.0, 5.0]).double()
    first = [
        float(divided.floored(divided.log, x, y, floor)) for x, y in ((c[3], b[3]), (b[3], a[3]))
    ]
    got = divided.floored2(divided.log, divided.log2, a, b, c, floor)
    assert got[0] == 0
    torch.testing.assert_close(got[2], divided.log2(a[2], b[2], c[2]))
    torch.testing.assert_close(float(got[3]), (first[0] - first[1]) / float(c[3] - a[3]))
