"""Third divided differences against mpmath, and the derivatives that are made of them."""

import mpmath
import pytest
import torch
from linalg_kernels import divided_third, frechet, logm
from linalg_kernels.testing import check_gradgrad, orthogonal, random_spd, with_spectrum


def quadruples(low, high, count=300, seed=0):
    """Numbers between 10^low and 10^high with relative gaps 1e-17 … 10, and exact ties."""
    g = torch.Generator().manual_seed(seed)
    a = 10 ** (low + (high - low) * torch.rand(count, generator=g, dtype=torch.float64))
    rest = []
    for stride in (3, 4, 5):
        gap = 10 ** (-17 + 18 * torch.rand(count, generator=g, dtype=torch.float64))
        gap[::stride] = 0
        rest.append(a * (1 + gap))
    return (a, *rest)


def exact(derivatives, arguments):
    """f[x₀, …, x₃] at 90 digits; `derivatives` are f, f', f''/2 and f'''/6."""

    def difference(x):
        if x[0] == x[-1]:
            return derivatives[len(x) - 1](x[0])
        return (difference(x[1:]) - difference(x[:-1])) / (x[-1] - x[0])

    with mpmath.workdps(90):
        sets = zip(*(x.tolist() for x in arguments), strict=True)
        return [difference(sorted(map(mpmath.mpf, each))) for each in sets]


def worst(got, want):
    with mpmath.workdps(60):
        return float(max(abs(g / w - 1) for g, w in zip(got.tolist(), want, strict=True)))


def power_series(p):
    p = mpmath.mpf(p)
    return [
        lambda x: x**p,
        lambda x: p * x ** (p - 1),
        lambda x: p * (p - 1) / 2 * x ** (p - 2),
        lambda x: p * (p - 1) * (p - 2) / 6 * x ** (p - 3),
    ]


LOG = [mpmath.log, lambda x: 1 / x, lambda x: -1 / x**2 / 2, lambda x: 1 / x**3 / 3]
EXP = [lambda x, k=k: mpmath.exp(x) / mpmath.factorial(k) for k in range(4)]


@pytest.mark.parametrize(
    ("ours", "derivatives", "bound"),
    [
        (divided_third.log, LOG, 1e-11),
        (divided_third.sqrt, power_series(0.5), 1e-14),
        (divided_third.inv_sqrt, power_series(-0.5), 1e-11),
        (divided_third.inv, power_series(-1), 1e-14),
    ],
    ids=["log", "sqrt", "inv_sqrt", "inv"],
)
@pytest.mark.parametrize("size", [-6, 0, 6])
def test_third(ours, derivatives, bound, size):
    arguments = quadruples(size - 1, size + 1)
    assert worst(ours(*arguments), exact(derivatives, arguments)) < bound
    shuffled = [arguments[i] for i in (2, 0, 3, 1)]
    torch.testing.assert_close(ours(*shuffled), ours(*arguments), rtol=1e-15, atol=0)


def test_third_exp():
    arguments = [x - 5 for x in quadruples(-2, 1)]
    assert worst(divided_third.exp(*arguments), exact(EXP, arguments)) < 1e-11


@pytest.mark.parametrize("p", [-1.3, 0.3, 0.8, 2.5])
def test_third_power(p):
    arguments = quadruples(-1, 1)
    got = divided_third.power(*arguments, torch.tensor(p, dtype=torch.float64))
    assert worst(got, exact(power_series(p), arguments)) < 1e-10


@pytest.mark.parametrize("fn", ["log", "exp", "sqrt", "inv_sqrt", "inv", 0.3])
def test_second_derivatives_of_a_derivative(fn):
    generator = torch.Generator().manual_seed(0)
    # Two eigenvalues are equal.
    A = with_spectrum([1.0, 2.0, 2.0], orthogonal(1, 3, generator=generator))
    E = torch.randn(1, 3, 3, dtype=A.dtype, generator=generator)
    check_gradgrad(lambda A, E: frechet(A, E, fn), (A, E))


def test_second_derivatives_of_a_derivative_complex():
    generator = torch.Generator().manual_seed(1)
    A = random_spd(1, 2, cond=4.0, dtype=torch.complex128, generator=generator)
    check_gradgrad(lambda A, E: frechet(A, E, "log"), (A, A.mT.clone()))


def test_fourth_derivative_is_refused():
    leaf = torch.eye(3, dtype=torch.float64).mul(2).requires_grad_()
    value = logm(leaf).square().sum()
    for _ in range(3):
        (gradient,) = torch.autograd.grad(value, leaf, create_graph=True)
        value = (gradient**2).sum()
    with pytest.raises(NotImplementedError, match="fourth derivatives of log"):
        torch.autograd.grad(value, leaf)
