"""Karcher, Wasserstein and log-Cholesky means: fixed points, invariants, gradients, errors."""

import functools
import math

import linalg_kernels as lk
import pytest
import torch
from linalg_kernels.barycenter import ConvergenceWarning
from linalg_kernels.testing import (
    check_forward_mode,
    check_grad,
    check_gradgrad,
    orthogonal,
    random_spd,
)
from pyriemann.geometry import mean as peer

MEANS = {
    "karcher": functools.partial(lk.karcher_mean, tol=1e-13),
    "wasserstein": functools.partial(lk.wasserstein_mean, tol=1e-13, max_iter=500),
    "log_cholesky": lk.log_cholesky_mean,
}


def spread(*shape, seed=0, dtype=torch.float64):
    """Wishart-like matrices with condition numbers of about a hundred."""
    n = shape[-1]
    g = torch.Generator().manual_seed(seed)
    X = torch.randn(*shape, 2 * n, generator=g, dtype=dtype)
    return X @ X.mH / (2 * n) + 0.05 * torch.eye(n, dtype=dtype)


@pytest.mark.parametrize("n", [2, 5, 20])
def test_against_pyriemann(n):
    X = spread(30, n)
    w = torch.rand(30, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for weights in (None, w):
        sample = None if weights is None else weights.numpy()
        close = functools.partial(torch.testing.assert_close, rtol=1e-9, atol=1e-9)
        theirs = peer.mean_riemann(X.numpy(), sample_weight=sample, tol=1e-12, maxiter=200)
        close(MEANS["karcher"](X, weights), torch.from_numpy(theirs))
        theirs = peer.mean_wasserstein(X.numpy(), sample_weight=sample, tol=1e-13, maxiter=500)
        close(MEANS["wasserstein"](X, weights), torch.from_numpy(theirs))
        theirs = peer.mean_logchol(X.numpy(), sample_weight=sample)
        close(lk.log_cholesky_mean(X, weights), torch.from_numpy(theirs))


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_karcher_invariants(dtype):
    X = spread(2, 7, 4, seed=2, dtype=dtype)
    mean = functools.partial(lk.karcher_mean, tol=1e-13)
    M = mean(X)
    close = functools.partial(torch.testing.assert_close, rtol=1e-10, atol=1e-10)
    C = orthogonal(4, dtype=dtype, generator=torch.Generator().manual_seed(3)) * 3 + 0.5
    close(mean(C @ X @ C.mH), C @ M @ C.mH)
    close(mean(torch.linalg.inv(X)), torch.linalg.inv(M))
    close(mean(X[:, [3, 1, 0, 2, 6, 5, 4]]), M)
    close(mean(X[:, :1].expand(2, 5, 4, 4)), X[:, 0])
    # Two matrices: the midpoint of their geodesic.
    A, B = X[0, 0], X[0, 1]
    root, inverse = lk.sqrtm(A), lk.inv_sqrtm(A)
    close(mean(X[0, :2]), root @ lk.sqrtm(inverse @ B @ inverse) @ root)
    # Commuting matrices: the log-Euclidean mean.
    Q = orthogonal(4, dtype=dtype, generator=torch.Generator().manual_seed(4))
    w = torch.rand(5, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64) + 0.1
    commuting = (Q * w[:, None, :]) @ Q.mH
    close(mean(commuting), (Q * torch.exp(torch.log(w).mean(0))) @ Q.mH)


@pytest.mark.parametrize("cond", [1e3, 1e6])
def test_karcher_converges_on_ill_conditioned_sets(cond):
    X = random_spd(20, 5, cond=cond, generator=torch.Generator().manual_seed(6))
    M = lk.karcher_mean(X)  # a ConvergenceWarning would fail this test
    L = lk.cholesky(M)
    J = lk.logm(lk.triangular_congruence(L, X)).mean(0)
    assert float(torch.linalg.matrix_norm(J)) < 1e-9 * 5**0.5


@pytest.mark.parametrize("scale", [1e-12, 1e6])
@pytest.mark.parametrize("name", MEANS)
def test_scale(name, scale):
    X = spread(10, 4, seed=7)
    mean = MEANS[name]
    if name == "log_cholesky":
        # Not homogeneous: the strictly lower part is averaged as it is, its square is what scales.
        torch.testing.assert_close(mean(X * scale) / scale, mean(X), rtol=1e-9, atol=0)
    else:
        torch.testing.assert_close(mean(X * scale) / scale, mean(X), rtol=1e-10, atol=0)


def test_single_precision():
    X = spread(30, 8, seed=8)
    torch.testing.assert_close(
        lk.karcher_mean(X.float()).double(), lk.karcher_mean(X), rtol=1e-3, atol=1e-4
    )
    torch.testing.assert_close(
        lk.wasserstein_mean(X.float()).double(), lk.wasserstein_mean(X), rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("name", MEANS)
class TestDerivatives:
    def inputs(self):
        X = spread(1, 3, 2, seed=9)
        w = torch.tensor([[0.2, 0.5, 0.9]], dtype=torch.float64)
        return X, w

    def test_reverse(self, name):
        check_grad(MEANS[name], self.inputs())

    def test_second_order(self, name):
        check_gradgrad(MEANS[name], self.inputs())

    def test_forward(self, name):
        check_forward_mode(MEANS[name], self.inputs())

    def test_identities_of_the_gradient(self, name):
        X = spread(6, 4, seed=10).requires_grad_()
        w = torch.rand(6, generator=torch.Generator().manual_seed(11), dtype=torch.float64)
        w.requires_grad_()
        M = MEANS[name](X, w)
        G = torch.randn(4, 4, generator=torch.Generator().manual_seed(12), dtype=torch.float64)
        gX, gw = torch.autograd.grad((M * (G + G.mT)).sum(), (X, w))
        # The mean is homogeneous of degree one in X and of degree zero in the weights.
        if name != "log_cholesky":
            torch.testing.assert_close((gX * X).sum(), ((G + G.mT) * M).sum(), rtol=1e-8, atol=0)
        assert abs((w * gw).sum().item()) < 1e-9 * gw.abs().max().item()

    def test_complex(self, name):
        X = spread(3, 2, seed=13, dtype=torch.complex128)
        check_grad(MEANS[name], (X,))


def test_unrolled_gradient_tends_to_the_implicit_one():
    X = spread(5, 3, seed=14).requires_grad_()
    G = torch.randn(3, 3, generator=torch.Generator().manual_seed(15), dtype=torch.float64)
    grads = [
        torch.autograd.grad((lk.karcher_mean(X, tol=1e-13, grad=g) * G).sum(), X)[0]
        for g in ("implicit", "unroll")
    ]
    torch.testing.assert_close(*grads, rtol=1e-8, atol=1e-10)
    assert not lk.karcher_mean(X, grad="detach").requires_grad
    check_grad(lambda X: lk.karcher_mean(X, max_iter=1, step=1.0, grad="unroll"), (spread(3, 2),))


def test_one_step_from_the_arithmetic_mean():
    X = spread(6, 3, seed=16)
    M = X.mean(0)
    root, inverse = lk.sqrtm(M), lk.inv_sqrtm(M)
    J = lk.logm(inverse @ X @ inverse).mean(0)
    torch.testing.assert_close(lk.karcher_mean(X, max_iter=1, step=1.0), root @ lk.expm(J) @ root)
    torch.testing.assert_close(lk.karcher_mean(X, max_iter=0), M)
    torch.testing.assert_close(lk.karcher_mean(X, max_iter=0, init=X[0]), X[0])


def test_not_converged_is_said():
    X = spread(6, 3, seed=17)
    with pytest.warns(
        ConvergenceWarning, match=r"karcher_mean stopped after 2 steps with residual"
    ):
        lk.karcher_mean(X, max_iter=2)
    with pytest.warns(ConvergenceWarning, match="wasserstein_mean stopped after 2 steps"):
        lk.wasserstein_mean(X, max_iter=2)


@pytest.mark.bad_input
@pytest.mark.parametrize("name", MEANS)
def test_errors(name):
    mean = MEANS[name]
    X = spread(2, 4, 3, seed=18)
    with pytest.raises(
        ValueError, match=r"X must be \(\.\.\., b, n, n\), b >= 1 matrices, got \(3, 3\)"
    ):
        mean(X[0, 0])
    with pytest.raises(ValueError, match=r"b >= 1"):
        mean(X[:, :0])
    with pytest.raises(ValueError, match=r"weights must be \(\.\.\., b\) with b=4.*got \(3,\)"):
        mean(X, torch.ones(3))
    with pytest.raises(ValueError, match="weights must be finite and >= 0"):
        mean(X, torch.tensor([1.0, -1.0, 1.0, 1.0]))
    with pytest.raises(ValueError, match="weights must be finite and >= 0"):
        mean(X, torch.zeros(4))
    bad = X.clone()
    bad[1, 2] -= 5 * torch.eye(3)
    with pytest.raises(lk.LinAlgError, match=r"X\[1, 2\]"):
        mean(bad)
    bad[1, 2, 0, 0] = math.nan
    with pytest.raises(lk.LinAlgError, match=r"X\[1, 2\] contains NaN or Inf"):
        mean(bad)


@pytest.mark.parametrize("name", MEANS)
def test_shapes(name):
    mean = MEANS[name]
    X = spread(2, 3, 5, 2, seed=19)
    assert mean(X).shape == (2, 3, 2, 2)
    w = torch.rand(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(20)) + 0.1
    torch.testing.assert_close(mean(X, w)[1, 2], mean(X[1, 2], w[2]))
    assert mean(torch.zeros(4, 0, 0)).shape == (0, 0)
    assert mean(torch.zeros(0, 4, 3, 3)).shape == (0, 3, 3)
    x = torch.tensor([1.0, 4.0], dtype=torch.float64)
    wanted = {"karcher": 2.0, "wasserstein": 2.25, "log_cholesky": 2.0}[name]
    torch.testing.assert_close(mean(x[:, None, None]).item(), wanted)
    with pytest.raises(TypeError, match="upcast"):
        mean(X.bfloat16())
    default = getattr(lk, f"{name}_mean")
    assert default(X.bfloat16(), upcast=True).dtype == torch.bfloat16


@pytest.mark.parametrize("name", MEANS)
def test_vmap(name):
    X = spread(3, 4, 2, seed=21)
    torch.testing.assert_close(torch.func.vmap(MEANS[name])(X), MEANS[name](X))
    moved = torch.func.vmap(MEANS[name], in_dims=1)(X.transpose(0, 1))
    torch.testing.assert_close(moved, MEANS[name](X))
    bad = X.clone()
    bad[1, 2, 0, 0] = math.nan
    with pytest.raises(lk.LinAlgError, match=r"X\[1, 2\] contains NaN"):
        torch.func.vmap(MEANS[name])(bad)
