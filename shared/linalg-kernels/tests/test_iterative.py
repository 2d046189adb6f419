import math

import pytest
import torch
from linalg_kernels.iterative import _scalings, newton_schulz_sqrtm, pade_sqrtm
from linalg_kernels.spectral import inv_sqrtm, sqrtm
from torch.autograd import gradcheck, gradgradcheck
from torch.linalg import LinAlgError

ROOTS = [newton_schulz_sqrtm, pade_sqrtm]


def definite(n, cond, *, dtype=torch.float64, seed=0):
    """Eigenvalues spread geometrically from 1 down to 1 / cond."""
    A = torch.randn(n, n, dtype=dtype, generator=torch.Generator().manual_seed(seed))
    Q, _ = torch.linalg.qr(A)
    w = torch.logspace(0, -math.log10(cond), n, dtype=torch.float64).to(Q.real.dtype)
    return (Q * w) @ Q.mH


def error(X, Y):
    return float(torch.linalg.norm(X - Y) / torch.linalg.norm(Y))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64, torch.complex128])
@pytest.mark.parametrize("cond", [1.0, 10.0, 1e4])
def test_newton_schulz_reaches_rounding(dtype, cond):
    A = definite(8, cond, dtype=dtype)
    S, Z, residual = newton_schulz_sqrtm(A)
    eps = torch.finfo(dtype).eps
    assert error(S, sqrtm(A)) < 20 * eps * cond**0.5
    assert error(Z, inv_sqrtm(A)) < 20 * eps * cond
    assert float(residual) < 20 * eps * cond


@pytest.mark.parametrize(("cond", "plain", "scaled"), [(1e2, 10, 6), (1e4, 16, 9), (1e6, 21, 11)])
def test_scaling_saves_iterations(cond, plain, scaled):
    A = definite(8, cond)
    bound = 1e-6
    assert error(newton_schulz_sqrtm(A, scaled, lower=1 / cond).S, sqrtm(A)) < bound
    assert error(newton_schulz_sqrtm(A, plain, lower=1.0).S, sqrtm(A)) < bound
    assert error(newton_schulz_sqrtm(A, scaled, lower=1.0).S, sqrtm(A)) > bound


def test_scalings_map_the_interval_onto_one_of_its_kind():
    x = torch.linspace(0.1, 1, 100001, dtype=torch.float64)
    for alpha in _scalings(0.1, 7)[:3]:
        low, high = x.argmin(), x.argmax()
        x = alpha * x * (3 - (alpha * x) ** 2) / 2
        torch.testing.assert_close(x[low], x[high], rtol=0, atol=1e-8)
        torch.testing.assert_close(x.min(), x[low])
        assert 1 - 1e-8 < x.max() <= 1 + 1e-12
    assert _scalings(1e-3, 30)[-15:] == [1.0] * 15


def test_a_tight_norm_does_not_cost_digits():
    # Equal row sums: the bound is λ_max itself, which the first steps move furthest.
    A = 0.01 * torch.eye(6) + 1
    S, Z, residual = newton_schulz_sqrtm(A)
    assert error(S, sqrtm(A.double()).float()) < 1e-6
    assert error(Z, inv_sqrtm(A.double()).float()) < 1e-4
    assert residual < 1e-4


@pytest.mark.parametrize("degree", [1, 3, 5, 8])
def test_pade_has_the_error_of_the_approximant(degree):
    w = torch.tensor([0.2, 0.7, 1.0, 2.1], dtype=torch.float64)
    S = pade_sqrtm(torch.diag(w), degree).S.diagonal()
    root = w.sqrt()
    t = ((1 - root) / (1 + root)) ** (2 * degree + 1)
    torch.testing.assert_close(S, root * (1 + t) / (1 - t))


def test_pade_is_exact_for_multiples_of_the_identity():
    for scale in (1e-12, 1.0, 1e6):
        A = scale * torch.eye(4, dtype=torch.float64)
        S, Z, residual = pade_sqrtm(A)
        torch.testing.assert_close(S, A / scale**0.5)
        torch.testing.assert_close(Z, A / scale**1.5)
        assert float(residual) < 1e-14


@pytest.mark.parametrize("root", ROOTS)
def test_residual_is_that_of_each_matrix(root):
    A = torch.stack([torch.eye(6, dtype=torch.float64), definite(6, 1e9)])
    S, Z, residual = root(A)
    assert residual[0] < 1e-14
    assert residual[1] > 1e-3
    a, s, z = A[1], S[1], Z[1]
    eye = torch.eye(6, dtype=torch.float64)
    first = torch.linalg.norm(s @ s - a) / torch.linalg.norm(a)
    second = torch.linalg.norm(z @ a @ z - eye) / 6**0.5
    torch.testing.assert_close(residual[1], torch.maximum(first, second))


@pytest.mark.parametrize("root", ROOTS)
def test_an_indefinite_matrix_is_seen_in_the_residual(root):
    residual = root(torch.diag(torch.tensor([1.0, 0.5, -0.3])).double()).residual
    assert not residual < 0.1


@pytest.mark.parametrize("root", ROOTS)
@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e6, 1e30])
def test_scale_does_not_matter(root, scale):
    A = definite(5, 10.0, dtype=torch.float32)
    S, Z, residual = root(A)
    s, z, scaled = root(A * scale)
    torch.testing.assert_close(s, S * scale**0.5, rtol=1e-5, atol=0)
    torch.testing.assert_close(z, Z / scale**0.5, rtol=1e-5, atol=0)
    torch.testing.assert_close(scaled, residual, rtol=1e-2, atol=1e-5)


@pytest.mark.parametrize("root", ROOTS)
def test_gradient_approaches_that_of_the_exact_root(root):
    A = definite(5, 3.0)
    G = definite(5, 7.0, seed=1)

    def gradient(f):
        leaf = A.clone().requires_grad_()
        return torch.autograd.grad(f(leaf), leaf, G)[0]

    arguments = {"degree": 12} if root is pade_sqrtm else {}
    torch.testing.assert_close(gradient(lambda A: root(A, **arguments).S), gradient(sqrtm))
    torch.testing.assert_close(gradient(lambda A: root(A, **arguments).Z), gradient(inv_sqrtm))


@pytest.mark.bad_input
@pytest.mark.parametrize("root", ROOTS)
def test_bad_arguments_are_named(root):
    A = torch.eye(2).repeat(3, 1, 1)
    A[2, 0, 0] = torch.nan
    with pytest.raises(LinAlgError, match=r"A\[2\] contains NaN or Inf"):
        root(A)
    assert torch.isnan(root(A, check=False).residual).tolist() == [False, False, True]
    with pytest.raises(ValueError, match="must be >= 1, got 0"):
        root(A[0], 0)
    with pytest.raises(ValueError, match="A must be symmetric"):
        root(torch.ones(2, 2).triu())
    with pytest.raises(ValueError, match=r"lower must lie in \(0, 1\], got 0"):
        newton_schulz_sqrtm(A[0], lower=0)
    assert root(torch.eye(2).half(), upcast=True).residual.dtype == torch.float16


@pytest.mark.parametrize("root", ROOTS)
def test_degenerate_sizes(root):
    assert [T.shape for T in root(torch.zeros(2, 0, 0))] == [(2, 0, 0), (2, 0, 0), (2,)]
    assert [T.shape for T in root(torch.zeros(0, 3, 3))] == [(0, 3, 3), (0, 3, 3), (0,)]
    torch.testing.assert_close(root(torch.tensor([[4.0]])).S.item(), 2.0)


def test_derivatives_of_a_coarse_approximant_are_its_own():
    A = definite(3, 100.0).requires_grad_()
    assert gradcheck(lambda A: pade_sqrtm(A, 2)[:2], (A,), check_forward_ad=True)
    assert gradgradcheck(lambda A: pade_sqrtm(A, 2).S, (A,))
