import pytest
import scipy.linalg
import torch
from linalg_kernels.polar import polar
from torch.autograd import gradcheck, gradgradcheck
from torch.linalg import LinAlgError

METHODS = ["svd", "newton_schulz"]


def random(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def conditioned(n, cond, dtype):
    P, Q = (torch.linalg.qr(random(n, n, seed=s))[0] for s in (1, 2))
    w = torch.logspace(0, -torch.log10(torch.tensor(cond)).item(), n, dtype=torch.float64)
    return ((P * w) @ Q.mT).to(dtype), (P @ Q.mT).to(dtype)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64, torch.complex128])
@pytest.mark.parametrize("shape", [(5, 5), (2, 6, 3), (3, 6), (1, 4), (4, 1), (1, 1)])
def test_agrees_with_scipy(method, dtype, shape):
    A = random(*shape, dtype=dtype)
    U = polar(A, method)
    wide = torch.complex128 if dtype.is_complex else torch.float64
    for a, u in zip(A.reshape(-1, *shape[-2:]), U.reshape(-1, *shape[-2:]), strict=True):
        expected = torch.from_numpy(scipy.linalg.polar(a.to(wide).numpy())[0]).to(dtype)
        torch.testing.assert_close(u, expected, rtol=0, atol=200 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("dtype", "cond"), [(torch.float32, 1e5), (torch.float64, 1e13)])
def test_ill_conditioned_factors_are_orthogonal_and_as_accurate_as_they_can_be(method, dtype, cond):
    A, expected = conditioned(8, cond, dtype)
    U = polar(A, method)
    eps = torch.finfo(dtype).eps
    assert float((U.mT @ U - torch.eye(8, dtype=dtype)).abs().max()) < 10 * eps
    assert float((U - expected).abs().max()) < 10 * eps * cond


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scale", [1e-35, 1e-12, 1e6, 1e35])
def test_scale_does_not_matter(method, scale):
    A = random(4, 4, dtype=torch.float32)
    torch.testing.assert_close(polar(A * scale, method), polar(A, method), rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(4, 4), (5, 3), (2, 4)])
def test_derivatives(method, shape):
    A = random(*shape).requires_grad_()

    def f(A):
        return polar(A, method)

    assert gradcheck(f, (A,), check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(f, (A,), check_fwd_over_rev=True)


def test_complex_derivatives():
    A = random(3, 3, dtype=torch.complex128).requires_grad_()
    assert gradcheck(polar, (A,), check_forward_ad=True)
    assert gradgradcheck(polar, (A,))


def test_gradient_at_repeated_singular_values_where_that_of_the_svd_is_not_finite():
    Q, _ = torch.linalg.qr(random(4, 4))
    A = (2 * Q).requires_grad_()
    G = random(4, 4, seed=1)
    (ours,) = torch.autograd.grad(polar(A), A, G)
    skew = Q.mT @ G - G.mT @ Q
    torch.testing.assert_close(ours, Q @ skew / 4)
    identity = torch.eye(4, dtype=torch.float64, requires_grad=True)
    U, _, Vh = torch.linalg.svd(identity)
    (theirs,) = torch.autograd.grad(U @ Vh, identity, G)
    assert not torch.isfinite(theirs).all()


@pytest.mark.parametrize("method", METHODS)
def test_singular_elements_are_named(method):
    A = torch.stack([torch.eye(3), torch.diag(torch.tensor([1.0, 1.0, 0.0]))])
    with pytest.raises(LinAlgError, match=r"A\[1\] must have full rank"):
        polar(A, method)
    with pytest.raises(LinAlgError, match="A must have full rank"):
        polar(torch.zeros(2, 2), method)
    with pytest.raises(LinAlgError, match="A must have full rank"):
        polar(torch.ones(3, 2), method)
    torch.testing.assert_close(polar(A, method, check=False)[0], torch.eye(3))


@pytest.mark.bad_input
@pytest.mark.parametrize("method", METHODS)
def test_bad_input_is_named(method):
    A = random(3, 2, 2)
    A[1, 0, 0] = torch.inf
    with pytest.raises(LinAlgError, match=r"A\[1\] contains NaN or Inf"):
        polar(A, method)
    U = polar(A, method, check=False)
    assert torch.isfinite(U).flatten(1).all(1).tolist() == [True, False, True]
    with pytest.raises(ValueError, match="method must be"):
        polar(A, "eig")  # ty: ignore[invalid-argument-type]
    with pytest.raises(ValueError, match=r"A must be \(\.\.\., m, n\), got \(3,\)"):
        polar(torch.ones(3), method)


def test_degenerate_sizes_and_half_precision():
    assert polar(torch.zeros(0, 0)).shape == (0, 0)
    assert polar(torch.zeros(3, 0)).shape == (3, 0)
    assert polar(torch.zeros(0, 2, 2)).shape == (0, 2, 2)
    assert polar(torch.zeros(0, 3, 2), "newton_schulz").shape == (0, 3, 2)
    assert polar(torch.eye(2).bfloat16(), upcast=True).dtype == torch.bfloat16
