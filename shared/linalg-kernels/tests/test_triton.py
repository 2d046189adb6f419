"""The Triton kernels against the reference: in Triton's interpreter, or on a GPU if there is one.

The interpreter runs one program after the other in Python, so batches are tiny.
"""

import math

import linalg_kernels as lk
import numpy as np
import pytest
import torch
from linalg_kernels import scalar, testing
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
    """The interpreter is NumPy, which warns of what IEEE arithmetic does as a matter of course."""
    with np.errstate(all="ignore"):
        yield


def kernels():
    return gpu.operators()


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def symmetric(*shape, dtype=torch.float64, seed=0):
    X = torch.randn(*shape, shape[-1], dtype=dtype, generator=seeded(seed))
    return ((X + X.mT) / 2).to(DEVICE)


def spd(*shape, cond=50.0, dtype=torch.float64, seed=0):
    return testing.random_spd(*shape, cond=cond, dtype=dtype, generator=seeded(seed)).to(DEVICE)


def hard(n):
    """Matrices of order n that eigensolvers stumble over, of order 1, (9, n, n) in float64."""
    Q = testing.orthogonal(n, generator=seeded(n))
    steps = torch.linspace(0, 1, n, dtype=torch.float64)
    D = torch.diag(10.0 ** (-6 * steps))
    blocks = testing.with_spectrum(steps, Q)
    blocks[: n // 2, n // 2 :] = 0
    blocks[n // 2 :, : n // 2] = 0
    found = [
        testing.with_spectrum(steps - 0.3, Q),
        testing.with_spectrum((torch.arange(n) % 3).double(), Q),  # repeated, places apart
        testing.with_spectrum(1 + 1e-9 * steps, Q),  # nearly a multiple of I
        testing.with_spectrum((torch.arange(n) == 0).double(), Q),  # rank 1
        D @ testing.with_spectrum(1 + steps, Q) @ D,  # graded
        D.flip(0, 1),  # diagonal
        blocks,
        -3 * torch.eye(n, dtype=torch.float64),
        torch.zeros(n, n, dtype=torch.float64),
    ]
    return torch.stack([(A + A.mT) / 2 for A in found]).to(DEVICE)


def assert_eigensystem(A, w, V):
    """Residual, orthogonality and eigenvalues within a few n eps of the norm."""
    n, eps = A.shape[-1], torch.finfo(A.dtype).eps
    bound = (10 + 2 * n) * eps
    A, w, V = A.double(), w.double(), V.double()
    size = torch.linalg.matrix_norm(A).clamp(min=1e-300)
    assert (w.diff(dim=-1) >= 0).all()
    residual = torch.linalg.matrix_norm(A @ V - V * w[..., None, :]) / size
    assert residual.max() <= bound
    eye = torch.eye(n, dtype=torch.float64, device=A.device)
    assert (V.mT @ V - eye).abs().max() <= bound
    assert ((w - torch.linalg.eigvalsh(A)).abs().amax(-1) / size).max() <= bound


# --- eigensystems ---------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 3, 5])
def test_eigh_of_hard_matrices(n, dtype):
    A = hard(n).to(dtype)
    w, V, found = kernels().eigh(A, True, INF)
    assert not found.any()
    assert_eigensystem(A, w, V)
    alone, _ = kernels().eigvalsh(A, True, INF)
    assert torch.equal(alone, w)


@pytest.mark.parametrize(
    ("n", "which", "dtype"),
    [(8, 1, torch.float32), (13, 1, torch.float64), (22, 0, torch.float32)],
)
def test_eigh_of_larger_and_padded_matrices(n, which, dtype):
    A = hard(n)[which : which + 1].to(dtype)
    w, V, found = kernels().eigh(A, True, INF)
    assert not found.any()
    assert_eigensystem(A, w, V)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [4, 6, 7, 9, 13, 16, 17, 22, 31, 32])
def test_eigh_of_hard_matrices_of_any_order(n, dtype):
    A = hard(n).to(dtype)
    w, V, found = kernels().eigh(A, True, INF)
    assert not found.any()
    assert_eigensystem(A, w, V)


@pytest.mark.parametrize("scale", [1e-40, 1e-30, 1e30])
def test_eigh_at_any_scale(scale):
    A = (hard(3)[[0, 1, 4]] * scale).float()
    w, V, found = kernels().eigh(A, True, INF)
    assert not found.any()
    if scale > 1e-38:
        assert_eigensystem(A, w, V)
    else:
        # Denormal entries have few digits: eigenvalues are right to the last of them.
        assert (w - torch.linalg.eigvalsh(A.double())).abs().max() <= 4e-45


def test_the_lower_triangle_alone():
    A = torch.randn(2, 5, 5, dtype=torch.float64, generator=seeded(1)).to(DEVICE)
    H = reference.from_lower(A)
    w, V, found = kernels().eigh(A, False, 0.02)
    assert not found.any()
    assert_eigensystem(H, w, V)
    L, info, _ = kernels().cholesky(A + 9 * torch.eye(5, device=DEVICE), False, 0.02)
    wanted = torch.linalg.cholesky(H + 9 * torch.eye(5, device=DEVICE))
    assert not info.any()
    torch.testing.assert_close(L, wanted)


def everything(A):
    """What each kernel makes of A (batch, n, n), by the name of its operator."""
    E = symmetric(*A.shape[:-1], dtype=A.dtype, seed=3)
    k = kernels()
    F, w, V, _ = k.spectral(A, None, native.LOG, -INF, True, INF)
    L, *_ = k.cholesky(A, True, INF)
    Q = spd(*A.shape[:-1], dtype=A.dtype, seed=5)
    logs, U, _ = k.pencil(A, Q, INF, True)
    return {
        "eigh": k.eigh(A, True, INF)[:2],
        "spectral": (F,),
        "evaluate": (k.evaluate(w, V, None, native.SQRT, -INF),),
        "frechet": (k.frechet(w, V, E, None, native.LOG, -INF),),
        "cholesky": (L,),
        "cholesky_vjp": (k.cholesky_vjp(L, E),),
        "pencil": (logs, U),
        "pencil_vjp": k.pencil_vjp(logs, logs, U, (True, True)),
        "leading_triple": k.leading_triple(A, 20, 1e-6),
        "without_leading_triple": (k.without_leading_triple(A, 20, 1e-6),),
        "householder": (k.householder(A, E, False),),
    }


def test_a_bad_matrix_is_flagged_and_leaves_its_neighbours_alone():
    A = spd(2, 2, dtype=torch.float32)
    good = everything(A)
    A[1, 1, 0] = math.nan
    for name, results in everything(A).items():
        for got, want in zip(results, good[name], strict=True):
            assert torch.equal(got[0], want[0]), name
            assert got[1].isnan().any(), name
            if name not in ("householder", "without_leading_triple", "cholesky_vjp"):
                assert got[1].isnan().all(), name
    A[0, 0, 0] = INF
    assert kernels().eigh(A, True, INF)[2].tolist() == [native.NOT_FINITE, native.NOT_FINITE]


def test_what_is_found_in_a_matrix():
    A = spd(4, 3)
    A[1] = -A[1]
    A[2, 0, 2] += A[2].abs().max()
    A[3, 1, 1] = math.nan
    _, info, found = kernels().cholesky(A, True, 0.02)
    assert info.tolist()[:2] == [0, 1]
    assert info[3] == 4
    assert found.tolist()[:2] == [0, native.NOT_POSITIVE]
    assert int(found[2]) & native.ASYMMETRIC
    assert int(found[3]) & native.NOT_FINITE
    assert kernels().eigvalsh(A, True, INF)[1].tolist() == [0, 0, 0, native.NOT_FINITE]
    A[2, 1:, :2] = 0
    A[2, :2, 1:] = 0
    assert kernels().cholesky(A[2:3], True, INF)[1].tolist() == [2]


# --- functions ------------------------------------------------------------------------------

KINDS = {
    "log": (native.LOG, scalar.LOG),
    "exp": (native.EXP, scalar.EXP),
    "sqrt": (native.SQRT, scalar.SQRT),
    "inv_sqrt": (native.INV_SQRT, scalar.INV_SQRT),
    "inv": (native.INVERSE, scalar.INV),
    "power": (native.POWER, scalar.POWER),
    "clamp": (native.IDENTITY, scalar.Clamp(0.5)),
    "floored": (native.LOG, scalar.Floored(scalar.LOG, 0.5)),
}


def eigenvalues(dtype):
    """Six sets of five positive eigenvalues: apart, close, equal, far apart, tiny, huge."""
    w = torch.tensor(
        [
            [0.2, 0.7, 1.1, 1.9, 3.0],
            [1.0, 1 + 1e-3, 1 + 2e-3, 1 + 1e-6, 1.3],
            [1.0, 1.0, 1.0, 2.0, 2.0],
            [1e-12, 1e-6, 1.0, 3.0, 50.0],
            [2e-30, 2.0000001e-30, 1e-30, 1e-30, 1e-29],
            [1e30, 2e30, 1.4e30, 1.42e30, 1e30],
        ],
        dtype=torch.float64,
    )
    return w.to(dtype).to(DEVICE)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", KINDS)
def test_values_and_divided_differences(name, dtype):
    kind, fn = KINDS[name]
    w = eigenvalues(dtype)
    if name == "exp":
        w = torch.cat([w[:4], -w[:4]])
    p = torch.tensor([0.3, 2.0, -0.5, 1.0, -1.0, 0.0], dtype=dtype, device=DEVICE)
    p = p if name == "power" else None
    wide = None if p is None else p.double()
    floor = fn.floor if isinstance(fn, (scalar.Clamp, scalar.Floored)) else -INF
    eye = torch.eye(5, dtype=dtype, device=DEVICE).expand(len(w), 5, 5)
    F = kernels().evaluate(w, eye, p, kind, floor)
    # In the eigenbasis the derivative in the direction of ones is the kernel itself.
    K = kernels().frechet(w, eye, torch.ones_like(eye), p, kind, floor)
    exponent = None if wide is None else wide[:, None]
    value = fn.value(w.double(), exponent)
    first = fn.first(
        w.double()[:, :, None], w.double()[:, None, :],
        None if wide is None else wide[:, None, None],
    )  # fmt: skip
    inside = (value.abs() < torch.finfo(dtype).max) & (value.abs() > torch.finfo(dtype).tiny)
    got = F.diagonal(dim1=-2, dim2=-1)
    assert (got.double() / value - 1)[inside].abs().max() <= 4 * torch.finfo(dtype).eps
    inside = (first.abs() < torch.finfo(dtype).max) & (first.abs() > torch.finfo(dtype).tiny)
    slack = 20 if dtype == torch.float64 else 6  # the reference rounds as well
    assert (K.double() / first - 1)[inside].abs().max() <= slack * torch.finfo(dtype).eps
    zero = first == 0
    assert (K[zero] == 0).all()
    assert torch.equal(K.nan_to_num(), K.mT.nan_to_num())


def test_outside_the_domain():
    w = torch.tensor([-1.0, 0.0, 2.0, INF, math.nan], device=DEVICE)[:, None]
    one = torch.ones(5, 1, 1, device=DEVICE)
    for kind, fn in (
        (native.LOG, scalar.LOG),
        (native.SQRT, scalar.SQRT),
        (native.EXP, scalar.EXP),
    ):
        got = kernels().evaluate(w, one, None, kind, -INF)
        torch.testing.assert_close(got[..., 0], fn.value(w, None), equal_nan=True)


@pytest.mark.parametrize("dtype", DTYPES)
def test_spectral_functions_and_their_derivative(dtype):
    A = spd(2, 5, dtype=torch.float64)
    A[1] = 2 * torch.eye(5)
    E = symmetric(2, 5, seed=4)
    eps = torch.finfo(dtype).eps
    w64, V64 = torch.linalg.eigh(A)
    for kind, fn in ((native.LOG, scalar.LOG), (native.EXP, scalar.EXP)):
        F, w, V, found = kernels().spectral(A.to(dtype), None, kind, -INF, True, INF)
        D = kernels().frechet(w, V, E.to(dtype), None, kind, -INF)
        assert not found.any()
        for got, want in (
            (F, reference.evaluate(w64, V64, None, fn)),
            (D, reference.frechet(w64, V64, E, None, fn)),
        ):
            assert torch.equal(got, got.mT)
            # exp magnifies the errors of its argument, here of norm 80.
            assert (got - want).norm() <= 500 * eps * want.norm()


# --- Cholesky, pencils, rank one, reflections -----------------------------------------------


@pytest.mark.parametrize(
    ("n", "dtype"),
    [(n, dtype) for n in (1, 5) for dtype in DTYPES] + [(13, torch.float32), (22, torch.float64)],
)
def test_cholesky_and_its_adjoint(n, dtype):
    A, G = spd(2, n), symmetric(2, n, seed=2)
    L, info, found = kernels().cholesky(A.to(dtype), True, INF)
    assert not info.any()
    assert not found.any()
    wanted = torch.linalg.cholesky(A)
    eps = torch.finfo(dtype).eps
    assert (L - wanted).norm() <= 200 * eps * wanted.norm()
    assert (L.triu(1) == 0).all()
    gA = kernels().cholesky_vjp(L, G.to(dtype))
    wanted = reference.cholesky_vjp(L.double(), G)
    assert torch.equal(gA, gA.mT)
    assert (gA - wanted).norm() <= 200 * eps * wanted.norm()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [3])
def test_pencils(n, dtype):
    P, Q = spd(2, 1, n, cond=20, seed=1), spd(2, n, cond=20, seed=2)
    Q[1] = P[1, 0]
    logs, U, found = kernels().pencil(P.to(dtype), Q.to(dtype), 0.02, True)
    assert not found.any()
    assert (logs[1, 1] == 0).all()
    P, Q = (T.to(dtype).double().expand(2, 2, n, n) for T in (P, Q))
    eps = torch.finfo(dtype).eps
    logs, U = logs.double(), U.double()
    eye = torch.eye(n, dtype=torch.float64, device=DEVICE)
    assert (U @ P @ U.mT - eye).abs().max() <= 500 * eps
    assert (U @ Q @ U.mT - torch.diag_embed(logs.exp())).abs().max() <= 5000 * eps
    c = torch.randn(2, 2, n, dtype=torch.float64, generator=seeded(7)).to(DEVICE)
    gP, gQ = kernels().pencil_vjp(c, logs, U, (True, True))
    outer = U[..., :, None] * U[..., None, :]
    torch.testing.assert_close(gP, -(c[..., None, None] * outer).sum(-3))
    torch.testing.assert_close(gQ, ((c / logs.exp())[..., None, None] * outer).sum(-3))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(2, 70, 5), (2, 3, 9), (1, 1, 4), (1, 40, 33)])
def test_rank_one(shape, dtype):
    X = torch.randn(*shape, dtype=torch.float64, generator=seeded(1)).to(DEVICE)
    X[0] *= 1e25  # squares leave the range of float32
    aim = 8 * math.sqrt(max(shape)) * torch.finfo(dtype).eps
    u, s, v = (T.double() for T in kernels().leading_triple(X.to(dtype), 20, aim))
    rest = kernels().without_leading_triple(X.to(dtype), 20, aim)
    S = torch.linalg.svdvals(X)
    assert (s / S[:, 0] - 1).abs().max() <= aim
    for vector in (u, v):
        assert (vector.norm(dim=-1) - 1).abs().max() <= aim
    size = S[:, 0, None]
    assert (((X @ v[..., None])[..., 0] - s[:, None] * u) / size).abs().max() <= 2 * aim
    assert (((X.mT @ u[..., None])[..., 0] - s[:, None] * v) / size).abs().max() <= 2 * aim
    removed = X - s[:, None, None] * u[..., :, None] * v[..., None, :]
    assert ((rest - removed) / size[..., None]).abs().max() <= 2 * aim


def test_rank_one_of_zero():
    u, s, v = kernels().leading_triple(torch.zeros(1, 3, 2, device=DEVICE), 5, 1e-6)
    assert s.item() == 0
    assert u.norm() == 1
    assert v.norm() == 1


@pytest.mark.parametrize("adjoint", [False, True])
@pytest.mark.parametrize(("n", "k", "m"), [(5, 3, 40), (2, 4, 1), (8, 8, 8)])
def test_householder(n, k, m, adjoint):
    V = torch.randn(2, n, k, dtype=torch.float64, generator=seeded(1)).to(DEVICE)
    V[0, :, 0] *= 1e200
    V[1, :, 1] = 0  # no reflection
    X = torch.randn(2, n, m, dtype=torch.float64, generator=seeded(2)).to(DEVICE)
    with lk.backend("torch"):
        wanted = lk.householder_apply(V, X, adjoint=adjoint)
    torch.testing.assert_close(kernels().householder(V, X, adjoint), wanted)
    single = kernels().householder(V[1:].float(), X[1:].float(), adjoint)
    torch.testing.assert_close(single.double(), wanted[1:], rtol=1e-5, atol=1e-5)
