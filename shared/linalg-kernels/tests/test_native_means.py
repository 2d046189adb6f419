"""The Karcher mean in one native call, beside the steps in torch that define it."""

import linalg_kernels as lk
import pytest
import torch
from linalg_kernels.backends import native
from linalg_kernels.testing import random_spd

pytestmark = pytest.mark.skipif(not native.available(), reason=native.why_unavailable())

DTYPES = [torch.float32, torch.float64]
ISAS = native.info().isas if native.available() else ()


def matrices(*shape, dtype=torch.float64, cond=50.0):
    return random_spd(*shape, cond=cond, dtype=dtype, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("shape", [(1, 3), (5, 1), (17, 2), (40, 6), (33, 13), (2, 32, 5)])
def test_agrees_with_torch(shape, isa, dtype):
    X = matrices(*shape, dtype=dtype)
    weights = torch.rand(shape[:-1], dtype=dtype, generator=torch.Generator().manual_seed(1))
    tol = 1e-5 if dtype == torch.float32 else 1e-12
    with native.use_isa(isa), lk.backend("native"):
        M = lk.karcher_mean(X, weights, tol=tol)
    with lk.backend("torch"):
        wanted = lk.karcher_mean(X.double(), weights.double(), tol=1e-12)
    assert torch.equal(M, M.mT)
    torch.testing.assert_close(M.double(), wanted, rtol=20 * tol, atol=20 * tol)


def test_it_is_one_call(monkeypatch):
    made = []
    original = native.library.call

    def spy(name, *arguments):
        made.append(name)
        return original(name, *arguments)

    monkeypatch.setattr(native.library, "call", spy)
    lk.karcher_mean(matrices(40, 4))
    assert made == ["lk_karcher"]


def test_steps_and_residuals():
    X = matrices(64, 5)
    weights = torch.full((64,), 1 / 64, dtype=X.dtype)
    start = X.mean(0)
    tight = native.karcher_mean(X, weights, start, 1e-12, 50, None)
    loose = native.karcher_mean(X, weights, start, 1e-3, 50, None)
    assert 1 < loose.steps < tight.steps < 20
    assert tight.residual <= 1e-12 < loose.residual <= 1e-3
    one = native.karcher_mean(X, weights, start, 1e-12, 1, 1.0)
    assert one.steps == 1
    # One step of length 1 from M: L exp(mean log L^-1 X L^-T) L^T.
    L = lk.cholesky(start)
    S = lk.triangular_congruence(L, X)
    step = L @ lk.expm(lk.logm((S + S.mT) / 2).mean(0)) @ L.mT
    torch.testing.assert_close(one.M, step)


@pytest.mark.parametrize("entry", [float("nan"), -5.0])
def test_what_is_no_set_is_named(entry):
    X = matrices(40, 4)
    X[7, 2, 2] = entry
    with pytest.raises(lk.LinAlgError, match=r"X\[7\]"):
        lk.karcher_mean(X)


@pytest.mark.parametrize("dtype", DTYPES)
def test_results_do_not_depend_on_threads(dtype):
    X = matrices(150, 6, dtype=dtype)
    before = torch.get_num_threads()
    means = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            means.append(lk.karcher_mean(X))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(means[0], means[1])
    assert torch.equal(means[0], means[2])


@pytest.mark.parametrize("scale", [2.0**-60, 2.0**60])
def test_scale(scale):
    X = matrices(40, 5)
    assert torch.equal(lk.karcher_mean(scale * X), scale * lk.karcher_mean(X))
