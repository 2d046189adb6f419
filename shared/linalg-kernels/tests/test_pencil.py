"""Sums over the logarithms of the eigenvalues of P^-1 Q."""

import math

import linalg_kernels as lk
import mpmath
import pytest
import torch
from linalg_kernels.backends import native
from linalg_kernels.testing import random_spd

DTYPES = [torch.float32, torch.float64]
ISAS = native.info().isas if native.available() else ()
needs_native = pytest.mark.skipif(not native.available(), reason=native.why_unavailable())


def pair(*shape, dtype=torch.float64, cond=30.0):
    g = torch.Generator().manual_seed(shape[-1])
    return tuple(random_spd(*shape, cond=cond, dtype=dtype, generator=g) for _ in range(2))


def by_definition(P, Q, alpha, beta):
    """Through the eigenvalues of P^-1 Q, whose gradient torch knows where they are apart."""
    L = torch.linalg.cholesky(P)
    left = torch.linalg.solve_triangular(L, Q, upper=False)
    S = torch.linalg.solve_triangular(L.mT, left, upper=True, left=False)
    logs = torch.linalg.eigvalsh((S + S.mT) / 2).log()
    return (alpha * (logs**2).sum(-1) + beta * logs.sum(-1) ** 2).sqrt()


def symmetric_part(G):
    return (G + G.mT) / 2


@needs_native
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 16, 22, 33, 64, 128])
def test_native_values_and_gradients(n, isa, dtype):
    P, Q = pair(19, n, dtype=dtype)
    Q = Q * torch.linspace(1.5, 2, 19, dtype=dtype)[:, None, None]
    g = torch.linspace(-1, 1, 19, dtype=dtype)
    p, q = P.double().requires_grad_(), Q.double().requires_grad_()
    wanted = by_definition(p, q, 1.3, -0.01)
    gradients = torch.autograd.grad((wanted * g).sum(), (p, q))
    with native.use_isa(isa):
        found = native.pencil(P, Q, alpha=1.3, beta=-0.01, root=True)
        assert found.packed is not None
        got = native.pencil_vjp(found.packed, g, n, 1.3, -0.01, True)
    assert found.found == 0
    eps = torch.finfo(dtype).eps
    assert ((found.value - wanted).abs() / wanted).max() <= 1e3 * eps
    for G, W in zip(got, gradients, strict=True):
        assert G is not None
        assert torch.equal(G, G.mT)
        error = (G - symmetric_part(W)).abs().amax((-2, -1)) / W.abs().amax((-2, -1)).clamp(1e-9)
        assert error.max() <= 3e3 * eps


@pytest.mark.parametrize("root", [True, False])
@pytest.mark.parametrize("n", [3, 22, 130])
def test_values_and_gradients_by_torch(n, root):
    """Beyond the library's limit, and without it."""
    P, Q = pair(3, n)
    p, q = P.clone().requires_grad_(), (1.5 * Q).requires_grad_()
    wanted = by_definition(p, q, 1.3, 0.2)
    wanted = wanted if root else wanted.square()
    g = torch.tensor([1.0, -2.0, 0.5], dtype=P.dtype)
    gradients = torch.autograd.grad((wanted * g).sum(), (p, q))
    with lk.backend("torch"):
        fn = lk.pencil_log_norm if root else lk.pencil_log_square
        value = fn(p, q, alpha=1.3, beta=0.2)
        got = torch.autograd.grad((value * g).sum(), (p, q))
        (alone,) = torch.autograd.grad((fn(P, q, alpha=1.3, beta=0.2) * g).sum(), q)
    torch.testing.assert_close(value, wanted, rtol=1e-11, atol=0)
    assert torch.equal(alone, got[1])
    for G, W in zip(got, gradients, strict=True):
        size = float(W.abs().max())
        torch.testing.assert_close(G / size, symmetric_part(W) / size, rtol=0, atol=1e-10)


def test_autocast_changes_no_gradient_beyond_the_librarys_limit():
    P, Q = pair(2, 130, dtype=torch.float32, cond=10.0)
    leaf = P.requires_grad_()

    def gradient():
        return torch.autograd.grad(lk.pencil_log_norm(leaf, 1.5 * Q).sum(), leaf)[0]

    wanted = gradient()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(gradient(), wanted)


@pytest.mark.parametrize("choice", ["torch", "native"])
def test_against_mpmath(choice):
    P, Q = pair(4, 5, cond=1e3)
    with lk.backend(choice):
        got = lk.pencil_log_norm(P, Q, alpha=2.0, beta=0.5)
    with mpmath.workdps(40):
        for value, A, B in zip(got.tolist(), P.tolist(), Q.tolist(), strict=True):
            quotient = mpmath.inverse(mpmath.matrix(A)) * mpmath.matrix(B)
            logs = [mpmath.log(mpmath.re(w)) for w in mpmath.eig(quotient)[0]]
            wanted = mpmath.sqrt(2 * sum(x * x for x in logs) + mpmath.mpf("0.5") * sum(logs) ** 2)
            assert abs(value - wanted) <= 1e-12 * wanted


@pytest.mark.parametrize("choice", ["torch", "native"])
def test_zero_where_equal_with_derivative_zero(choice):
    P, Q = pair(3, 4)
    Q[1] = P[1]
    p, q = P.clone().requires_grad_(), Q.clone().requires_grad_()
    with lk.backend(choice):
        d = lk.pencil_log_norm(p, q)
        gradients = torch.autograd.grad(d.sum(), (p, q))
    assert d[1] == 0
    assert (d[[0, 2]] > 0.1).all()
    for G in gradients:
        assert (G[1] == 0).all()
        assert (G[[0, 2]] != 0).any()


def test_the_square_is_smooth_where_equal():
    P, _ = pair(4)
    E = symmetric_part(torch.randn(4, 4, dtype=P.dtype, generator=torch.Generator().manual_seed(0)))

    def along(t):
        return lk.pencil_log_square(P, P + t * E)

    t = torch.zeros((), dtype=P.dtype)
    second = torch.func.hessian(along)(t)
    wanted = 2 * torch.trace(torch.linalg.solve(P, E) @ torch.linalg.solve(P, E))
    torch.testing.assert_close(second, wanted)
    leaf = t.clone().requires_grad_()
    (first,) = torch.autograd.grad(along(leaf), leaf, create_graph=True)
    torch.testing.assert_close(torch.autograd.grad(first, leaf)[0], wanted)


@pytest.mark.parametrize("choice", ["torch", "native"])
def test_derivatives_of_both_orders(choice):
    P, Q = (A.requires_grad_() for A in pair(2, 3))
    Q.data[0] = 2 * P.data[0]  # one eigenvalue, three times
    with lk.backend(choice):
        assert torch.autograd.gradcheck(lk.pencil_log_norm, (P, Q), check_batched_grad=True)
        assert torch.autograd.gradgradcheck(lk.pencil_log_norm, (P, Q))


@needs_native
@pytest.mark.parametrize(
    ("p", "q"),
    [
        ((), (7,)),
        ((7,), ()),
        ((3, 1), (7,)),
        ((3, 1), (1, 7)),
        ((2, 1, 3), (2, 7, 1)),
        ((1,), (7,)),
    ],
)
def test_batches_broadcast_without_copies_that_matter(p, q):
    P, Q = pair(*p, 4)[0], pair(*q, 4)[1]
    P, Q = P.requires_grad_(), Q.requires_grad_()
    batch = torch.broadcast_shapes(p, q)
    g = torch.rand(batch, dtype=P.dtype, generator=torch.Generator().manual_seed(1))
    results = []
    for A, B in (
        (P, Q),
        (P.expand(*batch, 4, 4).contiguous(), Q.expand(*batch, 4, 4).contiguous()),
    ):
        with lk.backend("native"):
            d = lk.pencil_log_norm(A, B)
        results.append((d.detach(), *torch.autograd.grad((g * d).sum(), (P, Q))))
    for got, want in zip(*results, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-13, atol=1e-14)


@needs_native
def test_no_gradient_no_vectors(monkeypatch):
    P, Q = pair(20, 6)
    wanted = lk.pencil_log_norm(P.clone().requires_grad_(), Q).detach()
    asked = []
    original = native.pencil

    def spy(*arguments, **options):
        asked.append(options["vectors"])
        return original(*arguments, **options)

    monkeypatch.setattr(native, "pencil", spy)
    torch.testing.assert_close(lk.pencil_log_norm(P, Q), wanted, rtol=1e-13, atol=0)
    assert asked == [False]


@pytest.mark.parametrize("dtype", DTYPES)
def test_scale(dtype):
    P, Q = pair(5, 6, dtype=dtype)
    wanted = lk.pencil_log_norm(P, Q)
    # Powers of four round nothing, so that nothing may change but the exponent.
    for power in (-20, 20) if dtype == torch.float32 else (-160, 160):
        scale = 4.0**power
        assert torch.equal(lk.pencil_log_norm(scale * P, scale * Q), wanted)


def test_complex():
    P, Q = pair(3, 4, dtype=torch.complex128)
    w = torch.linalg.eigvals(torch.linalg.solve(P, Q)).real.log()
    torch.testing.assert_close(lk.pencil_log_norm(P, Q), (w * w).sum(-1).sqrt())


@pytest.mark.parametrize("choice", ["torch", "native"])
def test_bad_matrices_are_named(choice):
    P, Q = pair(20, 4)
    with lk.backend(choice):
        for name, position in (("P", 0), ("Q", 1)):
            for entry, error, words in (
                (math.nan, lk.LinAlgError, rf"{name}\[7\] contains NaN or Inf"),
                (50.0, ValueError, rf"{name}\[7\] must be symmetric"),
            ):
                bad = [P.clone(), Q.clone()]
                bad[position][7, 0, 2] = entry
                with pytest.raises(error, match=words):
                    lk.pencil_log_norm(*bad)
            bad = [P.clone(), Q.clone()]
            bad[position][7] *= -1
            words = rf"{name}\[7\] must be positive definite"
            with pytest.raises(lk.LinAlgError, match=words):
                lk.pencil_log_norm(*bad)


@pytest.mark.bad_input
def test_parameters_are_checked():
    P, Q = pair(2, 3)
    with pytest.raises(ValueError, match=r"alpha \+ n beta must be > 0.*beta=-0.4 and n=3"):
        lk.pencil_log_norm(P, Q, beta=-0.4)
    with pytest.raises(ValueError, match=r"Q must be .* with n=3, got \(2, 4, 4\)"):
        lk.pencil_log_norm(P, pair(2, 4)[0])
    with pytest.raises(TypeError, match="P and Q must have one dtype"):
        lk.pencil_log_norm(P, Q.float())
