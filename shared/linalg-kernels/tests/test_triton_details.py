"""What only some input shows of the Triton kernels; each of these was seen to catch a slip."""

import math

import numpy as np
import pytest
import torch
import triton.language as tl
from linalg_kernels import scalar
from linalg_kernels.backends import gpu, native
from linalg_kernels.backends import torch as reference

pytestmark = [
    pytest.mark.skipif(bool(gpu.why_unavailable()), reason=gpu.why_unavailable()),
    pytest.mark.compile,
]

DEVICE = "cpu" if gpu.interpreted() else "cuda"
DTYPES = (torch.float32, torch.float64)
INF = math.inf


@pytest.fixture(autouse=True)
def numpy_keeps_quiet():
    with np.errstate(all="ignore"):
        yield


def kernels():
    return gpu.operators()


def draw(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed)).to(
        DEVICE
    )


def spd(*shape, seed=0):
    X = draw(*shape, 2 * shape[-1], seed=seed)
    return X @ X.mT / shape[-1]


def test_a_direction_counts_by_its_symmetric_part():
    w, V = torch.linalg.eigh(spd(2, 5))
    E = draw(2, 5, 5, seed=1)
    found = kernels().frechet(w, V, E, None, native.LOG, -INF)
    torch.testing.assert_close(found, reference.frechet(w, V, E, None, scalar.LOG))


def test_the_upper_triangle_of_a_factors_gradient_does_not_count():
    L, G = torch.linalg.cholesky(spd(2, 5)), draw(2, 5, 5, seed=1)
    found = kernels().cholesky_vjp(L, G)
    torch.testing.assert_close(found, reference.cholesky_vjp(L, G.tril()))


@pytest.mark.parametrize("dtype", DTYPES)
def test_logarithms_and_powers_of_subnormal_numbers(dtype):
    tiny = torch.finfo(dtype).tiny
    w = torch.tensor([tiny / 3, tiny / 1000, tiny], dtype=dtype, device=DEVICE)[:, None]
    one = torch.ones(3, 1, 1, dtype=dtype, device=DEVICE)
    found = kernels().evaluate(w, one, None, native.LOG, -INF)[..., 0]
    torch.testing.assert_close(found.double(), w.double().log(), rtol=1e-6, atol=0)
    p = torch.full((3,), 0.3, dtype=dtype, device=DEVICE)
    found = kernels().evaluate(w, one, p, native.POWER, -INF)[..., 0]
    torch.testing.assert_close(found.double(), w.double() ** p.double()[:, None], rtol=1e-5, atol=0)


@pytest.mark.parametrize(("dtype", "x"), [(torch.float64, -720.0), (torch.float32, -95.0)])
def test_exponentials_that_are_subnormal(dtype, x):
    w = torch.tensor([[x]], dtype=dtype, device=DEVICE)
    one = torch.ones(1, 1, 1, dtype=dtype, device=DEVICE)
    found = float(kernels().evaluate(w, one, None, native.EXP, -INF))
    assert found == pytest.approx(math.exp(x), rel=1e-3)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("x", "value"), [(1e4, INF), (1e30, INF), (-1e4, 0.0), (-1e30, 0.0)])
def test_exponentials_beyond_the_range(dtype, x, value):
    """Also where the exponent of two has no integer of the width that holds it."""
    w = torch.full((1, 1), x, dtype=dtype, device=DEVICE)
    one = torch.ones(1, 1, 1, dtype=dtype, device=DEVICE)
    assert float(kernels().evaluate(w, one, None, native.EXP, -INF)) == value


@pytest.mark.parametrize("dtype", DTYPES)
def test_rank_one_of_rows_that_grow(dtype):
    """The Gram matrix is gathered over blocks of rows in units that change."""
    X = draw(2, 150, 5)
    X[:, 40:] *= 1e3
    X[:, 100:] *= 1e3
    eps = torch.finfo(dtype).eps
    rest = kernels().without_leading_triple(X.to(dtype), 20, 100 * eps)
    U, s, Vh = torch.linalg.svd(X, full_matrices=False)
    wanted = X - s[:, None, :1] * U[..., :1] @ Vh[:, :1]
    assert (rest - wanted).abs().max() <= 1e4 * eps * s.max()


def test_rank_one_is_the_largest_and_not_the_first_that_fits():
    """An eigenvector of the Gram matrix with the largest entry on its diagonal, yet not leading."""
    G = torch.tensor([[1.0, 0, 0], [0, 0.6, 0.6], [0, 0.6, 0.6]], dtype=torch.float64)
    w, V = torch.linalg.eigh(G)
    X = (V * w.clamp_min(0).sqrt()) @ V.mT
    X = X.expand(1, 3, 3).contiguous().to(DEVICE)
    rest = kernels().without_leading_triple(X, 30, 1e-10)
    wanted = torch.diag(torch.tensor([1.0, 0, 0], dtype=torch.float64, device=DEVICE))
    torch.testing.assert_close(rest[0], wanted, rtol=0, atol=1e-7)


@pytest.mark.parametrize("adjoint", [False, True])
def test_reflections_of_several_whole_blocks_of_columns(adjoint):
    V, X = draw(1, 5, 2), draw(1, 5, 64, seed=1)
    Q = torch.eye(5, dtype=V.dtype, device=DEVICE)
    for i in range(2):
        v = V[0, :, i : i + 1]
        Q = Q @ (torch.eye(5, dtype=V.dtype, device=DEVICE) - 2 * v @ v.mT / (v.mT @ v))
    found = kernels().householder(V, X, adjoint)
    torch.testing.assert_close(found[0], (Q.mT if adjoint else Q) @ X[0])


def test_a_batch_in_several_launches(monkeypatch):
    from linalg_kernels.backends.triton import operators

    A = spd(5, 3)
    whole = kernels().eigvalsh(A, True, INF)[0]
    monkeypatch.setattr(operators, "LAUNCH", 2)
    assert torch.equal(kernels().eigvalsh(A, True, INF)[0], whole)


@pytest.mark.skipif(not gpu.interpreted(), reason="a compiled kernel has its constants in it")
def test_what_did_not_converge_is_told(monkeypatch):
    from linalg_kernels.backends.triton import jacobi

    monkeypatch.setattr(jacobi, "MAX_SWEEPS", tl.constexpr(1))
    assert kernels().eigvalsh(spd(2, 5), True, INF)[1].tolist() == [native.NOT_CONVERGED] * 2
