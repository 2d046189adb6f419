"""Covariances against numpy and scikit-learn, and shrinkage."""

import math

import linalg_kernels as lk
import numpy as np
import pytest
import torch
from linalg_kernels.testing import check_grad, check_gradgrad
from sklearn import covariance as peer


def signal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype) + 3


@pytest.mark.parametrize("ddof", [0, 1])
def test_against_numpy(ddof):
    X = signal(4, 20)
    torch.testing.assert_close(lk.covariance(X, ddof=ddof), torch.from_numpy(np.cov(X, ddof=ddof)))
    Z = signal(4, 20, dtype=torch.complex128)
    torch.testing.assert_close(lk.covariance(Z, ddof=ddof), torch.from_numpy(np.cov(Z, ddof=ddof)))


def test_assume_centered():
    X = signal(4, 20)
    torch.testing.assert_close(lk.covariance(X, assume_centered=True), X @ X.mT / 20)


@pytest.mark.parametrize("samples", [3, 20, 400])
@pytest.mark.parametrize("rule", ["ledoit_wolf", "oas"])
def test_estimated_shrinkage_against_sklearn(rule, samples):
    X = signal(5, 6, samples, seed=1) * torch.linspace(0.1, 3, 6, dtype=torch.float64)[:, None]
    ours = lk.covariance(X, ddof=0, shrinkage=rule)
    for i in range(5):
        theirs, _ = getattr(peer, rule)(X[i].T.numpy())
        torch.testing.assert_close(ours[i], torch.from_numpy(theirs))


def test_shrinkage():
    C = lk.covariance(signal(3, 4, 20))
    s = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    shrunk = lk.shrink_covariance(C, s)
    torch.testing.assert_close(shrunk[0], C[0])
    torch.testing.assert_close(shrunk[1], lk.shrink_covariance(C[1], 0.3))
    trace = C[2].diagonal().sum()
    torch.testing.assert_close(shrunk[2], trace / 4 * torch.eye(4, dtype=torch.float64))
    torch.testing.assert_close(lk.covariance(signal(3, 4, 20), shrinkage=s), shrunk)
    torch.testing.assert_close(
        lk.shrink_covariance(C * 1e-12, 0.3) * 1e12, lk.shrink_covariance(C, 0.3)
    )


def test_singular_covariance_becomes_definite():
    C = lk.covariance(signal(2, 8, 5))
    with pytest.raises(lk.LinAlgError, match=r"C\[\d\] must be positive definite"):
        lk.cholesky(C, name="C")
    lk.cholesky(lk.shrink_covariance(C, 0.1))


@pytest.mark.parametrize("rule", [0.0, 0.2, "oas", "ledoit_wolf"])
def test_gradients(rule):
    def fn(X):
        return lk.covariance(X, ddof=0, shrinkage=rule)

    check_grad(fn, (signal(2, 3, 7, seed=2),))
    check_gradgrad(fn, (signal(2, 3, 7, seed=2),))


@pytest.mark.bad_input
def test_errors():
    X = signal(2, 3, 10)
    with pytest.raises(ValueError, match=r"X must be \(\.\.\., channels, samples\), got \(3,\)"):
        lk.covariance(X[0, :, 0])
    with pytest.raises(ValueError, match="1 samples, too few for ddof=1"):
        lk.covariance(X[..., :1])
    with pytest.raises(ValueError, match="shrinkage='oas' is defined for ddof=0"):
        lk.covariance(X, shrinkage="oas")
    with pytest.raises(ValueError, match="'ledoit_wolf' or 'oas', got 'lw'"):
        lk.covariance(X, ddof=0, shrinkage="lw")  # ty: ignore[invalid-argument-type]
    with pytest.raises(ValueError, match=r"shrinkage must lie in \[0, 1\], got 1.5"):
        lk.covariance(X, shrinkage=1.5)
    with pytest.raises(ValueError, match=r"shrinkage must lie in \[0, 1\], got -0.5"):
        lk.shrink_covariance(lk.covariance(X), torch.tensor([0.5, -0.5]))
    X[1, 0, 0] = math.nan
    with pytest.raises(lk.LinAlgError, match=r"X\[1\] contains NaN or Inf"):
        lk.covariance(X)
    assert lk.covariance(X, check=False)[0].isfinite().all()


def test_half_precision():
    X = signal(3, 50, dtype=torch.float32).bfloat16()
    with pytest.raises(TypeError, match="upcast"):
        lk.covariance(X)
    C = lk.covariance(X, upcast=True)
    assert C.dtype == torch.bfloat16
    torch.testing.assert_close(C, lk.covariance(X.float()).bfloat16())


def test_empty():
    assert lk.covariance(torch.zeros(0, 3, 5)).shape == (0, 3, 3)
    assert lk.covariance(torch.zeros(2, 0, 5)).shape == (2, 0, 0)
