"""Functions of eigenvalues and their divided differences, in units of rounding, against mpmath.

With V = I and E the matrix of ones, the Daleckii-Krein derivative is the kernel itself.
"""

import mpmath
import pytest
import torch
from linalg_kernels.backends import native

pytestmark = pytest.mark.skipif(not native.available(), reason=native.why_unavailable())

ISAS = native.info().isas if native.available() else ()
DTYPES = [torch.float32, torch.float64]

# Largest error in eps (value, divided difference); measured maxima are 60-80 % of these.
CASES = {
    "log": (native.LOG, mpmath.log, 0.9, 2.0),
    "exp": (native.EXP, mpmath.exp, 0.8, 1.6),
    "sqrt": (native.SQRT, mpmath.sqrt, 0.6, 1.4),
    "inv_sqrt": (native.INV_SQRT, lambda x: 1 / mpmath.sqrt(x), 1.0, 2.8),
    "inverse": (native.INVERSE, lambda x: 1 / x, 0.6, 1.7),
}


def pairs(low: float, high: float, count: int, dtype: torch.dtype, seed: int) -> torch.Tensor:
    """(count, 2): log-uniform first entries, relative gaps from none to 1e3."""
    g = torch.Generator().manual_seed(seed)
    a = 10 ** (torch.rand(count, generator=g, dtype=torch.float64) * (high - low) + low)
    gap = 10 ** (torch.rand(count, generator=g, dtype=torch.float64) * 20 - 17)
    gap[: count // 8] = 0
    b = (a * (1 + gap)).clamp(max=10**high)
    w = torch.stack([a, b], -1).to(dtype)
    swap = torch.rand(count, generator=g) < 0.5
    return torch.where(swap[:, None], w.flip(-1), w)


def kernel(w: torch.Tensor, f: native.Function) -> torch.Tensor:
    identity = torch.eye(2, dtype=w.dtype).expand(len(w), 2, 2)
    return native.frechet(w, identity, torch.ones_like(identity), f)[:, 0, 1]


def values(w: torch.Tensor, f: native.Function) -> torch.Tensor:
    identity = torch.eye(2, dtype=w.dtype).expand(len(w), 2, 2)
    return native.compose(w, identity, f).diagonal(dim1=-2, dim2=-1)


def exact(f, derivative, a: float, b: float):
    x, y = mpmath.mpf(a), mpmath.mpf(b)
    return derivative(x) if x == y else (f(x) - f(y)) / (x - y)


def worst(got: torch.Tensor, wanted: list) -> float:
    eps = torch.finfo(got.dtype).eps
    return max(
        float(abs(mpmath.mpf(x) - y) / abs(y)) / eps
        for x, y in zip(got.double().flatten().tolist(), wanted, strict=True)
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", CASES)
def test_elementary_functions(name, isa, dtype):
    kind, f, value_bound, kernel_bound = CASES[name]
    if name == "exp":
        bound = 80 if dtype == torch.float32 else 600
        w = pairs(-6, 2, 240, dtype, seed=1)
        w = (
            torch.where(w > bound, bound - w / 10, w)
            * torch.tensor([1.0, -1.0]).repeat(120)[:, None]
        )
    else:
        w = pairs(-12, 12, 240, dtype, seed=1)
    with native.use_isa(isa), mpmath.workdps(60):
        value, K = values(w, native.Function(kind)), kernel(w, native.Function(kind))
        pts = w.double().tolist()
        assert worst(value, [f(mpmath.mpf(x)) for p in pts for x in p]) <= value_bound
        wanted = [exact(f, lambda x: mpmath.diff(f, x), *p) for p in pts]
        assert worst(K, wanted) <= kernel_bound


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("p", [-2.0, -0.7, -0.5, 0.1, 0.5, 1.0, 1.5, 3.0])
def test_power(p, isa, dtype):
    w = pairs(-8, 8, 160, dtype, seed=2)
    exponent = torch.full((len(w),), p, dtype=dtype)
    q = mpmath.mpf(exponent[0].item())
    f = native.Function(native.POWER, exponent)
    with native.use_isa(isa), mpmath.workdps(60):
        pts = w.double().tolist()
        wanted = [mpmath.mpf(x) ** q for pair in pts for x in pair]
        assert worst(values(w, f), wanted) <= 1.0
        wanted = [exact(lambda x: x**q, lambda x: q * x ** (q - 1), *pair) for pair in pts]
        assert worst(kernel(w, f), wanted) <= 2.8


@pytest.mark.parametrize("dtype", DTYPES)
def test_each_matrix_has_its_own_exponent(dtype):
    w = pairs(-1, 1, 40, dtype, seed=3)
    p = torch.linspace(-2, 2, 40, dtype=dtype)
    together = kernel(w, native.Function(native.POWER, p))
    apart = [kernel(w[i : i + 1], native.Function(native.POWER, p[i : i + 1])) for i in range(40)]
    assert torch.equal(together, torch.cat(apart))


@pytest.mark.parametrize("isa", ISAS)
def test_edges_of_the_logarithm_and_powers(isa):
    w = torch.tensor([[0.0, 1.0], [-1.0, 2.0], [float("inf"), 1.0], [float("nan"), 1.0]])
    with native.use_isa(isa):
        got = values(w, native.Function(native.LOG))[:, 0]
        assert got[0] == -torch.inf
        assert got[1].isnan()
        assert got[2] == torch.inf
        assert got[3].isnan()
        assert kernel(w, native.Function(native.LOG))[1].isnan()
        zero = torch.zeros(4)
        assert (values(w, native.Function(native.POWER, zero))[[0, 2], 0] == 1).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("isa", ISAS)
def test_denormal_and_huge_arguments_of_the_logarithm(isa, dtype):
    info = torch.finfo(dtype)
    w = torch.tensor(
        [[info.smallest_normal / 8, info.max], [info.smallest_normal, 1.0]], dtype=dtype
    )
    with native.use_isa(isa), mpmath.workdps(60):
        got = values(w, native.Function(native.LOG))
        wanted = [mpmath.log(mpmath.mpf(x)) for x in w.double().flatten().tolist()]
        near = torch.where(torch.tensor([[True, True], [True, False]]), got, 1)
        wanted[3] = mpmath.mpf(1)
        assert worst(near, wanted) <= 1.5
        assert got[1, 1] == 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_floor_raises_eigenvalues_and_drops_their_derivative(dtype):
    w = torch.tensor([[0.5, 3.0], [0.5, 0.25], [2.0, 3.0], [1.0, 1.0]], dtype=dtype)
    clamp = native.Function(native.IDENTITY, floor=1.0)
    assert torch.equal(values(w, clamp), w.clamp(min=1))
    wanted = torch.tensor([2 / 2.5, 0, 1, 0], dtype=dtype)
    torch.testing.assert_close(kernel(w, clamp), wanted)
    # A function that is singular at its floor still has derivative 0 below it.
    root = native.Function(native.SQRT, floor=0.0)
    below = torch.tensor([[-1.0, -2.0]], dtype=dtype)
    assert kernel(below, root).item() == 0
