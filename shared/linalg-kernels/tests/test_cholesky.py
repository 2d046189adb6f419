"""The Cholesky family: factors, charts, their inverses, and what errors say."""

import math

import linalg_kernels as lk
import pytest
import torch
from linalg_kernels.testing import random_spd

DTYPES = [torch.float32, torch.float64, torch.complex64, torch.complex128]


@pytest.mark.parametrize("dtype", DTYPES)
def test_factor(dtype):
    A = random_spd(3, 5, dtype=dtype, generator=torch.Generator().manual_seed(0))
    L = lk.cholesky(A)
    tol = 100 * torch.finfo(dtype).eps
    torch.testing.assert_close(L @ L.mH / 100, A / 100, rtol=tol, atol=tol)
    assert torch.equal(L, L.tril())
    torch.testing.assert_close(L, torch.linalg.cholesky(A), rtol=tol, atol=tol)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_gradient_is_the_hermitian_part_of_torch(dtype):
    A = random_spd(3, 5, dtype=dtype, generator=torch.Generator().manual_seed(1)).requires_grad_()
    G = torch.randn(3, 5, 5, dtype=dtype, generator=torch.Generator().manual_seed(2)).tril()
    (ours,) = torch.autograd.grad((lk.cholesky(A) * G.conj()).sum().real, A)
    (theirs,) = torch.autograd.grad((torch.linalg.cholesky(A) * G.conj()).sum().real, A)
    torch.testing.assert_close(ours, (theirs + theirs.mH) / 2)
    assert torch.equal(ours, ours.mH)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_charts_and_their_inverses(dtype):
    A = random_spd(4, 5, dtype=dtype, generator=torch.Generator().manual_seed(3))
    X = lk.chol_log(A)
    assert torch.equal(X, X.tril())
    torch.testing.assert_close(lk.from_chol_log(X), A)
    L = torch.linalg.cholesky(A)
    diagonal = torch.log(L.diagonal(dim1=-2, dim2=-1).real)
    torch.testing.assert_close(X.diagonal(dim1=-2, dim2=-1).real, diagonal)
    torch.testing.assert_close(X.tril(-1), L.tril(-1))
    P = lk.chol_power(A, 0.5)
    torch.testing.assert_close(P.diagonal(dim1=-2, dim2=-1).real, torch.exp(diagonal / 2))
    torch.testing.assert_close(P.tril(-1), L.tril(-1))
    theta = torch.tensor([0.5, 1.0, 1.5, -0.5])
    torch.testing.assert_close(lk.chol_power(A, theta)[1], L[1])
    torch.testing.assert_close(lk.chol_power(A, theta)[0], P[0])


def test_from_chol_log_reads_the_lower_triangle_alone():
    X = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(4))
    torch.testing.assert_close(lk.from_chol_log(X), lk.from_chol_log(X.tril()))


def test_logdet():
    A = random_spd(3, 6, generator=torch.Generator().manual_seed(5)).requires_grad_()
    value = lk.logdet(A)
    torch.testing.assert_close(value, torch.linalg.slogdet(A).logabsdet)
    (grad,) = torch.autograd.grad(value.sum(), A)
    torch.testing.assert_close(grad, torch.linalg.inv(A))
    far = lk.logdet(torch.eye(400, dtype=torch.float64) * 1e-12)
    torch.testing.assert_close(far, torch.tensor(400 * math.log(1e-12), dtype=torch.float64))


@pytest.mark.bad_input
def test_triangular_congruence():
    A = random_spd(1, 4, generator=torch.Generator().manual_seed(6))
    X = random_spd(5, 4, generator=torch.Generator().manual_seed(7))
    L = lk.cholesky(A)
    inverse = torch.linalg.inv(L)
    torch.testing.assert_close(lk.triangular_congruence(L, X), inverse @ X @ inverse.mT)
    with pytest.raises(ValueError, match=r"X must be \(\.\.\., n, n\) with n=4, got \(3, 3\)"):
        lk.triangular_congruence(L, torch.eye(3).double())


@pytest.mark.parametrize("fn", [lk.cholesky, lk.chol_log, lk.logdet])
def test_indefinite_is_named(fn):
    A = torch.eye(3).expand(2, 2, 3, 3).clone()
    A[1, 0, 1, 1] = -2.0
    with pytest.raises(lk.LinAlgError, match=r"A\[1, 0\] must be positive definite.*order 2"):
        fn(A)
    with pytest.raises(lk.LinAlgError, match=r"P\[1, 0\] must be positive definite"):
        fn(A, name="P")
    with pytest.raises(lk.LinAlgError, match="must be positive definite"):
        fn(A, check=False)
    A[1, 0, 1, 1] = math.nan
    with pytest.raises(lk.LinAlgError, match=r"A\[1, 0\] contains NaN or Inf"):
        fn(A)


def test_ex_never_raises_and_keeps_neighbours():
    A = random_spd(4, 3, generator=torch.Generator().manual_seed(8))
    expected = lk.cholesky(A)
    A[1] = -A[1]
    A[2, 0, 0] = math.inf
    L, info = lk.cholesky_ex(A)
    assert info.tolist() == [0, 1, 4, 0]
    assert info.dtype == torch.int32
    assert L[1:3].isnan().all()
    torch.testing.assert_close(L[[0, 3]], expected[[0, 3]], rtol=0, atol=0)


@pytest.mark.parametrize("fn", [lk.cholesky, lk.chol_log, lk.from_chol_log, lk.logdet])
def test_empty_and_scalar(fn):
    trailing = () if fn is lk.logdet else (0, 0)
    assert fn(torch.zeros(2, 0, 0)).shape == (2, *trailing)
    assert fn(torch.zeros(0, 3, 3)).shape[0] == 0
    x = torch.tensor([[[4.0]]])
    wanted = {lk.cholesky: 2.0, lk.chol_log: math.log(2), lk.from_chol_log: math.exp(8)}
    torch.testing.assert_close(
        fn(x).flatten()[0].item(), wanted.get(fn, math.log(4)), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("scale", [1e-12, 1e-6, 1.0, 1e6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scale(dtype, scale):
    A = random_spd(3, 6, dtype=dtype, generator=torch.Generator().manual_seed(9))
    torch.testing.assert_close(lk.cholesky(A * scale) / scale**0.5, lk.cholesky(A))
