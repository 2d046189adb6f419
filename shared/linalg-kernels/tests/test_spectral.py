"""Spectral functions: accuracy against mpmath, edge cases, and what errors say."""

import functools
import math
import warnings

import linalg_kernels as lk
import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from linalg_kernels.testing import (
    exact_frechet,
    exact_function,
    orthogonal,
    random_spd,
    relative_error,
    with_spectrum,
)
from scipy import linalg as scipy_linalg

ORACLES = {
    "log": (lk.logm, mpmath.log, lambda x: 1 / x),
    "exp": (lk.expm, mpmath.exp, mpmath.exp),
    "sqrt": (lk.sqrtm, mpmath.sqrt, lambda x: 1 / (2 * mpmath.sqrt(x))),
    "inv_sqrt": (
        lk.inv_sqrtm, lambda x: 1 / mpmath.sqrt(x), lambda x: -1 / (2 * x * mpmath.sqrt(x)),
    ),
    "inv": (functools.partial(lk.powm, p=-1.0), lambda x: 1 / x, lambda x: -1 / x**2),
    "power": (
        functools.partial(lk.powm, p=0.75),
        lambda x: x ** mpmath.mpf(0.75), lambda x: mpmath.mpf(0.75) / x ** mpmath.mpf(0.25),
    ),
}  # fmt: skip


def condition(A, F, name):
    """1 + κ: how much a relative change of A by rounding moves f(A), to first order."""
    w = torch.linalg.eigvalsh(A.double())
    _, _, df = ORACLES[name]
    slope = max(abs(float(df(mpmath.mpf(float(x))))) for x in w)
    return 1 + slope * float(w.abs().max()) / float(torch.linalg.matrix_norm(F))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("cond", [1e2, 1e4, 1e6])
@pytest.mark.parametrize("name", ORACLES)
def test_value_within_its_condition(name, cond, dtype):
    fn, f, _ = ORACLES[name]
    A = random_spd(8, cond=cond, generator=torch.Generator().manual_seed(0))
    A = (A / cond if name == "exp" else A).to(dtype)
    exact = exact_function(A, f)
    assert relative_error(fn(A), exact) <= 20 * condition(A, exact, name)


@pytest.mark.parametrize("cond", [1e8, 1e12])
def test_log_of_ill_conditioned_input(cond):
    A = random_spd(8, cond=cond, generator=torch.Generator().manual_seed(1))
    exact = exact_function(A, mpmath.log)
    assert relative_error(lk.logm(A), exact) <= 20 * condition(A, exact, "log")


SPECTRA = {
    "distinct": [0.3, 0.7, 1.1, 2.0, 5.0],
    "identity": [1.0] * 5,
    "pairs": [1.0, 1.0, 2.0, 2.0, 3.0],
    "gap 1e-4": [1.0, 1.0 + 1e-4, 2.0, 2.0 + 1e-4, 3.0],
    "gap 1e-8": [1.0, 1.0 + 1e-8, 2.0, 2.0 + 1e-8, 3.0],
    "gap 1e-12": [1.0, 1.0 + 1e-12, 2.0, 2.0 + 1e-12, 3.0],
    "gap 1e-14": [1.0, 1.0 + 1e-14, 2.0, 2.0 + 1e-14, 3.0],
    "volts squared": [1e-12, 1e-12, 3e-12, 5e-12, 9e-12],
}


@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("name", ORACLES)
def test_gradient_at_close_eigenvalues(name, spectrum):
    fn, f, df = ORACLES[name]
    generator = torch.Generator().manual_seed(2)
    A = with_spectrum(SPECTRA[spectrum], orthogonal(5, generator=generator))
    G = torch.randn(5, 5, dtype=torch.float64, generator=generator)
    leaf = A.clone().requires_grad_()
    (grad,) = torch.autograd.grad((fn(leaf) * G).sum(), leaf)
    exact = exact_frechet(A, G, f, df)
    w = torch.tensor(SPECTRA[spectrum])
    assert relative_error(grad, exact) < 50 * float(w.max() / w.min())


@pytest.mark.parametrize("scale", [1e-12, 1e-9, 1e-6, 1e-3, 1.0, 1e3, 1e6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_error_does_not_depend_on_the_scale(dtype, scale):
    A = random_spd(6, cond=30.0, dtype=dtype, generator=torch.Generator().manual_seed(3)) * scale
    assert relative_error(lk.sqrtm(A), exact_function(A, mpmath.sqrt)) < 60
    leaf = A.clone().requires_grad_()
    G = torch.randn(6, 6, dtype=dtype, generator=torch.Generator().manual_seed(4))
    (grad,) = torch.autograd.grad((lk.logm(leaf) * G).sum(), leaf)
    assert relative_error(grad, exact_frechet(A, G, mpmath.log, lambda x: 1 / x)) < 600


def test_against_scipy():
    A = random_spd(5, cond=50.0, generator=torch.Generator().manual_seed(5))
    a = A.numpy()
    with warnings.catch_warnings():
        # scipy's own estimate of its own error, 4e-13 here
        warnings.filterwarnings("ignore", "logm result may be inaccurate")
        log = scipy_linalg.logm(a)
    for ours, theirs in (
        (lk.logm(A), log),
        (lk.expm(A / 10), scipy_linalg.expm(a / 10)),
        (lk.sqrtm(A), scipy_linalg.sqrtm(a)),
        (lk.powm(A, 0.3), scipy_linalg.fractional_matrix_power(a, 0.3)),
    ):
        torch.testing.assert_close(ours, torch.from_numpy(theirs), rtol=1e-11, atol=1e-11)
    E = random_spd(5, generator=torch.Generator().manual_seed(6))
    theirs = scipy_linalg.expm_frechet(a / 10, E.numpy(), compute_expm=False)
    torch.testing.assert_close(lk.frechet(A / 10, E, "exp"), torch.from_numpy(theirs))


def test_complex_hermitian():
    A = random_spd(3, 4, dtype=torch.complex128, generator=torch.Generator().manual_seed(7))
    torch.testing.assert_close(lk.expm(lk.logm(A)), A, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(lk.sqrtm(A) @ lk.sqrtm(A), A, rtol=1e-12, atol=1e-12)
    assert torch.equal(lk.logm(A), lk.logm(A).mH)


spectra = st.one_of(
    st.lists(st.floats(-2, 2), min_size=1, max_size=7).map(lambda e: [10**x for x in e]),
    st.tuples(st.floats(0.1, 10), st.integers(1, 7)).map(lambda t: [t[0]] * t[1]),
    st.tuples(st.floats(-16, -1), st.integers(2, 7)).map(
        lambda t: [1 + i * 10 ** t[0] for i in range(t[1])]
    ),
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(spectra, st.integers(0, 99))
def test_identities(spectrum, seed):
    n = len(spectrum)
    generator = torch.Generator().manual_seed(seed)
    A = with_spectrum(spectrum, orthogonal(n, generator=generator))
    Q = orthogonal(n, generator=generator)
    I = torch.eye(n, dtype=torch.float64)  # noqa: E741
    close = functools.partial(torch.testing.assert_close, rtol=1e-9, atol=1e-9)
    size = max(spectrum)
    log = lk.logm(A)
    close(lk.expm(log) / size, A / size)
    close(lk.sqrtm(A) @ lk.sqrtm(A) / size, A / size)
    close(lk.inv_sqrtm(A) @ A @ lk.inv_sqrtm(A), I)
    close(lk.powm(A, 0.3) @ lk.powm(A, 0.45), lk.powm(A, 0.75))
    close(lk.logm(lk.powm(A, 0.5)), log / 2)
    close(lk.logm(Q @ A @ Q.mT), Q @ log @ Q.mT)
    close(lk.frechet(A, A, "log"), I)  # Dlog(A)[A] = I
    E = with_spectrum(torch.randn(n, generator=generator, dtype=torch.float64), Q)
    close(lk.frechet(log, lk.frechet(A, E, "log"), "exp"), E)
    H = with_spectrum(torch.randn(n, generator=generator, dtype=torch.float64), Q.mT)
    left, right = (lk.frechet(A, E, "log") * H).sum(), (E * lk.frechet(A, H, "log")).sum()
    torch.testing.assert_close(left, right, rtol=1e-8, atol=1e-8)


ALL = {
    "logm": lk.logm,
    "expm": lk.expm,
    "sqrtm": lk.sqrtm,
    "inv_sqrtm": lk.inv_sqrtm,
    "powm": functools.partial(lk.powm, p=0.3),
    "clamp_eigvals": functools.partial(lk.clamp_eigvals, min=0.5),
}


@pytest.mark.parametrize("fn", ALL.values(), ids=ALL)
class TestEdges:
    @pytest.mark.parametrize("shape", [(0, 0), (3, 0, 0), (0, 4, 4), (2, 0, 4, 4)])
    def test_empty(self, fn, shape):
        A = torch.zeros(shape, dtype=torch.float32, requires_grad=True)
        F = fn(A)
        assert F.shape == shape
        assert F.dtype == A.dtype
        F.sum().backward()
        assert A.grad is not None
        assert A.grad.shape == shape

    def test_one_by_one_is_the_scalar_function(self, fn):
        x = torch.tensor([0.7, 2.0, 5.0], dtype=torch.float64)
        diagonal = fn(torch.diag(x))
        torch.testing.assert_close(fn(x[:, None, None])[:, 0, 0], diagonal.diagonal())

    def test_strides(self, fn):
        A = random_spd(6, 5, generator=torch.Generator().manual_seed(8))
        wide = torch.zeros(6, 9, 9, dtype=A.dtype)
        wide[:, 1:6, 2:7] = A
        expected = fn(A)
        torch.testing.assert_close(fn(wide[:, 1:6, 2:7]), expected)
        torch.testing.assert_close(fn(A.mT), expected)
        torch.testing.assert_close(fn(A[:1].expand(4, 5, 5)), expected[:1].expand(4, 5, 5))
        torch.testing.assert_close(
            fn(A.reshape(2, 3, 5, 5)[:, ::2]), expected.reshape(2, 3, 5, 5)[:, ::2]
        )

    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
    def test_non_finite_is_named(self, fn, bad):
        A = random_spd(2, 3, 4, generator=torch.Generator().manual_seed(9))
        A[1, 2, 0, 3] = A[1, 2, 3, 0] = bad
        with pytest.raises(lk.LinAlgError, match=r"A\[1, 2\] contains NaN or Inf"):
            fn(A)
        with pytest.raises(lk.LinAlgError, match=r"P\[1, 2\] contains NaN or Inf"):
            fn(A, name="P")

    def test_non_finite_stays_in_its_element(self, fn):
        A = random_spd(5, 4, generator=torch.Generator().manual_seed(10))
        expected = fn(A)
        A[3, 1, 1] = math.nan
        got = fn(A, check=False)
        assert got[3].isnan().all()
        keep = [0, 1, 2, 4]
        torch.testing.assert_close(got[keep], expected[keep], rtol=0, atol=0)

    @pytest.mark.bad_input
    def test_wrong_shapes_and_kinds(self, fn):
        with pytest.raises(ValueError, match=r"A must be \(\.\.\., n, n\), got \(8, 20, 19\)"):
            fn(torch.zeros(8, 20, 19))
        with pytest.raises(ValueError, match=r"got \(3,\)"):
            fn(torch.zeros(3))
        with pytest.raises(TypeError, match=r"A must be a torch.Tensor, got list"):
            fn([[1.0]])
        with pytest.raises(TypeError, match=r"got torch.int64"):
            fn(torch.eye(2, dtype=torch.int64))
        with pytest.raises(ValueError, match=r"A\[1\] must be symmetric, but differs"):
            fn(torch.stack([torch.eye(3), torch.eye(3) + torch.ones(3, 3).triu(1)]))

    def test_half_precision_asks_for_upcast(self, fn):
        A = random_spd(
            4, dtype=torch.float32, generator=torch.Generator().manual_seed(11)
        ).bfloat16()
        with pytest.raises(TypeError, match="upcast=True"):
            fn(A)
        F = fn(A, upcast=True)
        assert F.dtype == torch.bfloat16
        torch.testing.assert_close(F, fn(A.float()).bfloat16())

    def test_autocast_keeps_full_precision(self, fn):
        generator = torch.Generator().manual_seed(12)
        A = random_spd(4, cond=10.0, dtype=torch.float32, generator=generator)
        leaf = A.clone().requires_grad_()
        expected = fn(leaf)
        (wanted,) = torch.autograd.grad(expected.sum(), leaf)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            F = fn(leaf)
            (grad,) = torch.autograd.grad(F.sum(), leaf)
            assert fn(A.bfloat16()).dtype == torch.float32
        assert torch.equal(F, expected)
        assert torch.equal(grad, wanted)

    def test_output_is_exactly_symmetric(self, fn):
        F = fn(random_spd(9, 7, dtype=torch.float32, generator=torch.Generator().manual_seed(13)))
        assert torch.equal(F, F.mT)


def test_lower_triangle_is_read_without_symmetrize():
    A = random_spd(4, generator=torch.Generator().manual_seed(14))
    noisy = A + torch.triu(torch.full((4, 4), 7.0, dtype=A.dtype), 1)
    leaf = noisy.clone().requires_grad_()
    torch.testing.assert_close(lk.logm(noisy, symmetrize=False), lk.logm(A))
    (grad,) = torch.autograd.grad(lk.logm(leaf, symmetrize=False).sum(), leaf)
    torch.testing.assert_close(grad, grad.mT)


@pytest.mark.parametrize("fn", [lk.logm, lk.sqrtm, lk.inv_sqrtm, functools.partial(lk.powm, p=0.3)])
class TestNonpositive:
    A = with_spectrum([[1.0, 2.0, 3.0], [-0.5, 2.0, 3.0]], torch.eye(3, dtype=torch.float64))

    def test_ieee_gives_nan_in_that_element_alone(self, fn):
        F = fn(self.A)
        assert F[0].isfinite().all()
        assert F[1].isnan().all()

    def test_raise_names_the_element(self, fn):
        with pytest.raises(lk.LinAlgError, match=r"positive eigenvalues, but A\[1\] has -0.5"):
            fn(self.A, nonpos="raise")

    def test_clamp_moves_it_and_stops_its_derivative(self, fn):
        A = self.A.clone().requires_grad_()
        F = fn(A, nonpos="clamp", eps=0.25)
        expected = fn(with_spectrum([0.25, 2.0, 3.0], torch.eye(3, dtype=torch.float64)))
        torch.testing.assert_close(F[1], expected)
        (grad,) = torch.autograd.grad(F[1, 0, 0], A)
        assert grad[1, 0, 0] == 0

    @pytest.mark.bad_input
    def test_policy_is_checked(self, fn):
        with pytest.raises(ValueError, match="nonpos must be"):
            fn(self.A, nonpos="ignore")
        with pytest.raises(ValueError, match="eps goes with nonpos='clamp'"):
            fn(self.A, nonpos="clamp")
        with pytest.raises(ValueError, match="eps goes with nonpos='clamp'"):
            fn(self.A, eps=1e-3)


def test_singular_sqrt_by_clamping_at_zero():
    v = torch.tensor([1.0, 2.0, 2.0], dtype=torch.float64)
    A = v[:, None] * v
    for choice in ("torch", "auto"):
        with lk.backend(choice):
            leaf = A.clone().requires_grad_()
            root = lk.sqrtm(leaf, nonpos="clamp", eps=0.0)
            torch.testing.assert_close(root.detach(), A / 3, rtol=1e-7, atol=1e-7)
            # d√λ = dλ / (2√λ) for the one eigenvalue that moves, λ = 9.
            (grad,) = torch.autograd.grad(torch.trace(root), leaf)
            torch.testing.assert_close(v @ grad @ v / 9, torch.tensor(1 / 6).double())


class TestPower:
    def test_one_exponent_a_matrix(self):
        A = random_spd(3, 4, generator=torch.Generator().manual_seed(15))
        p = torch.tensor([0.2, -1.3, 2.0], dtype=torch.float64)
        F = lk.powm(A, p)
        for i in range(3):
            torch.testing.assert_close(F[i], lk.powm(A[i], float(p[i])))

    @pytest.mark.bad_input
    def test_exponents_broadcast(self):
        A = random_spd(3, 1, 4, generator=torch.Generator().manual_seed(16))
        p = torch.tensor([0.2, 0.5], dtype=torch.float64, requires_grad=True)
        F = lk.powm(A, p)
        assert F.shape == (3, 2, 4, 4)
        (grad,) = torch.autograd.grad(F.sum(), p)
        assert grad.shape == (2,)
        with pytest.raises(ValueError, match=r"must broadcast, got A \(3, 1\), p \(4, 5\)"):
            lk.powm(A, torch.ones(4, 5))

    @pytest.mark.parametrize("p", [0.0, 1.0, 2.0, 0.5, -0.5, -1.0, -2.0])
    def test_closed_forms_agree_with_the_general_one(self, p):
        generator = torch.Generator().manual_seed(17)
        A = random_spd(2, 4, cond=10.0, generator=generator).requires_grad_()
        exponent = torch.tensor(p, dtype=torch.float64)
        torch.testing.assert_close(lk.powm(A, p), lk.powm(A, exponent))
        G = torch.randn(2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(18))
        ours, general = (
            torch.autograd.grad((lk.powm(A, q) * G).sum(), A)[0] for q in (p, exponent)
        )
        torch.testing.assert_close(ours, general)


class TestSpectralFn:
    def test_user_function(self):
        A = random_spd(3, 5, generator=torch.Generator().manual_seed(20)) / 50
        sech2 = lambda x: 1 / torch.cosh(x) ** 2  # noqa: E731
        F = lk.spectral_fn(A, torch.tanh, sech2, length=1.0)
        w, V = torch.linalg.eigh(A)
        torch.testing.assert_close(F, (V * torch.tanh(w)[:, None, :]) @ V.mT)

    def test_second_derivative_needs_d2f(self):
        A = random_spd(3, generator=torch.Generator().manual_seed(21)).requires_grad_()
        F = lk.spectral_fn(A, torch.tanh, lambda x: 1 / torch.cosh(x) ** 2, length=1.0)
        (grad,) = torch.autograd.grad(F.sum(), A, create_graph=True)
        with pytest.raises(NotImplementedError, match="needs d2f"):
            torch.autograd.grad(grad.sum(), A)

    def test_own_divided_difference_is_used(self):
        A = random_spd(4, generator=torch.Generator().manual_seed(22)).requires_grad_()
        square = lk.spectral_fn(A, torch.square, lambda x: 2 * x, lambda a, b: a + b)
        (grad,) = torch.autograd.grad(square.sum(), A)
        (wanted,) = torch.autograd.grad((A @ A).sum(), A)
        torch.testing.assert_close(grad, wanted)


def test_multi_spectral_is_one_decomposition(monkeypatch):
    from linalg_kernels.backends import torch as reference
    from linalg_kernels.backends.choice import backend

    calls = []
    original = reference.eigh
    monkeypatch.setattr(reference, "eigh", lambda *a, **k: calls.append(1) or original(*a, **k))
    A = random_spd(3, 4, generator=torch.Generator().manual_seed(23)).requires_grad_()
    with backend("torch"):
        several = lk.multi_spectral(A, ("log", "sqrt", "inv_sqrt", 0.3))
    assert len(calls) == 1
    each = lk.logm(A), lk.sqrtm(A), lk.inv_sqrtm(A), lk.powm(A, 0.3)
    for got, want in zip(several, each, strict=True):
        torch.testing.assert_close(got, want)
        ours, theirs = (torch.autograd.grad(F.sum(), A, retain_graph=True)[0] for F in (got, want))
        torch.testing.assert_close(ours, theirs)
    with pytest.raises(ValueError, match="fns must be one of 'log'"):
        lk.multi_spectral(A, ("cos",))


@pytest.mark.bad_input
def test_frechet_names_what_does_not_fit():
    A = random_spd(3, 4, generator=torch.Generator().manual_seed(24))
    with pytest.raises(ValueError, match=r"E must be \(\.\.\., n, n\) with n=4, got \(5, 5\)"):
        lk.frechet(A, torch.eye(5, dtype=A.dtype))
    with pytest.raises(TypeError, match="A and E must have one dtype"):
        lk.frechet(A, torch.eye(4))
    assert lk.frechet(A, torch.eye(4, dtype=A.dtype)).shape == (3, 4, 4)
