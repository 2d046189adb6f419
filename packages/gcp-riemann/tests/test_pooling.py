"""Covariance pooling: numpy's covariance, any piece size, half precision, autocast."""

import numpy as np
import pytest
import torch
from gcp_riemann import CovariancePooling, covariance_pooling, pooling
from linalg_kernels.errors import LinAlgError
from torch.autograd import gradcheck, gradgradcheck


def maps(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("piece", [1, 40, 1 << 22])
def test_is_numpys_covariance_in_pieces_of_any_size(piece, monkeypatch):
    monkeypatch.setattr(pooling, "PIECE", piece)
    X = maps(2, 3, 4, 7)
    got = covariance_pooling(X)
    for i in range(2):
        for j in range(3):
            want = torch.from_numpy(np.cov(X[i, j].numpy(), bias=True))
            assert torch.allclose(got[i, j], want, rtol=0, atol=1e-14)
    assert gradcheck(covariance_pooling, X.requires_grad_())
    assert gradgradcheck(covariance_pooling, X)


def test_offset_costs_no_digits():
    X = maps(1, 3, 50)
    assert torch.allclose(covariance_pooling(X + 1e8), covariance_pooling(X), rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_accumulates_in_float32(dtype):
    X = (maps(2, 8, 14, 14, dtype=torch.float32).relu() + 30).to(dtype).requires_grad_()
    Sigma = CovariancePooling()(X)
    assert Sigma.dtype == torch.float32
    exact = covariance_pooling(X.detach().double().flatten(-2))
    assert float((Sigma - exact).detach().norm() / exact.norm()) < 1e-6
    Sigma.sum().backward()
    assert X.grad.dtype == dtype
    with torch.autocast("cpu", torch.bfloat16):
        inside = CovariancePooling()(X)
        inside.sum().backward()
    assert torch.equal(inside, Sigma)


@pytest.mark.parametrize("X", [torch.ones(2, 3, 4, 4), torch.randn(2, 3, 1, 1)])
def test_constant_maps_and_single_positions_give_zero(X):
    X.requires_grad_()
    Sigma = CovariancePooling()(X)
    Sigma.sum().backward()
    assert Sigma.abs().max() == 0
    assert X.grad.abs().max() == 0


def test_layers_pooled_together_have_covariances_with_one_another():
    A, B = maps(2, 3, 8, 8), maps(2, 2, 4, 4, seed=1)
    Sigma = CovariancePooling()(A, B)
    assert Sigma.shape == (2, 5, 5)
    small = torch.nn.functional.avg_pool2d(A, 2)
    joint = covariance_pooling(torch.cat([small, B], 1).flatten(-2))
    assert torch.allclose(Sigma, joint)
    assert Sigma[:, :3, 3:].abs().min() > 0


def test_transforms():
    X = maps(3, 2, 6)
    batched = torch.func.vmap(covariance_pooling)(X)
    assert torch.allclose(batched, covariance_pooling(X))
    tangent = torch.func.jvp(covariance_pooling, (X,), (X,))[1]
    assert torch.allclose(tangent, 2 * batched)


@pytest.mark.bad_input
def test_what_errors_say():
    X = maps(3, 4, 2, 2)
    X[1, 2, 0, 0] = float("nan")
    with pytest.raises(LinAlgError, match=r"X\[1\] contains NaN or Inf"):
        CovariancePooling()(X)
    assert not CovariancePooling(check=False)(X)[2].isnan().any()
    with pytest.raises(ValueError, match=r"positions >= 1\), got \(2, 3, 0\)"):
        covariance_pooling(torch.zeros(2, 3, 0))
    with pytest.raises(TypeError, match="real floating-point dtype"):
        covariance_pooling(torch.zeros(2, 3, 4, dtype=torch.long))
    with pytest.raises(TypeError, match=r"must be a torch\.Tensor, got list"):
        covariance_pooling([[1.0]])  # ty: ignore[invalid-argument-type]
    with pytest.raises(ValueError, match="one batch size"):
        CovariancePooling()(torch.zeros(2, 3, 4, 4), torch.zeros(3, 3, 4, 4))
    with pytest.raises(ValueError, match="one batch size"):
        CovariancePooling()()
