"""Eigensystems by the native library: accuracy, scale, isolation of lanes, threads."""

import multiprocessing
import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from linalg_kernels import scalar
from linalg_kernels.backends import native
from linalg_kernels.backends import torch as reference

pytestmark = pytest.mark.skipif(not native.available(), reason=native.why_unavailable())

DTYPES = [torch.float32, torch.float64]
ISAS = native.info().isas if native.available() else ()
LOG = native.Function(native.LOG)


def random_symmetric(*shape: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    X = torch.randn(*shape, shape[-1], dtype=dtype, generator=torch.Generator().manual_seed(seed))
    return (X + X.mT) / 2


def random_spd(*shape: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    n = shape[-1]
    X = torch.randn(*shape, 2 * n, dtype=dtype, generator=torch.Generator().manual_seed(seed))
    return X @ X.mT / n


def assert_eigensystem(
    A: torch.Tensor, w: torch.Tensor, V: torch.Tensor, slack: float = 1.0
) -> None:
    """Residual, orthogonality and eigenvalues within a few n eps of the norm."""
    n, eps = A.shape[-1], torch.finfo(A.dtype).eps
    bound = slack * (10 + n) * eps
    scale = A.abs().amax((-2, -1)).clamp(min=torch.finfo(A.dtype).tiny).double()
    A, w, V = A.double() / scale[..., None, None], w.double() / scale[..., None], V.double()
    size = torch.linalg.matrix_norm(A).clamp(min=1e-300)
    residual = torch.linalg.matrix_norm(A @ V - V * w[..., None, :]) / size
    assert residual.max() <= bound
    assert (V.mT @ V - torch.eye(n, dtype=torch.float64)).abs().max() <= bound
    assert ((w - torch.linalg.eigvalsh(A)).abs().amax(-1) / size).max() <= bound


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 8, 12, 16, 17, 22, 31, 32, 33, 48, 64, 100, 128])
def test_eigh_of_random_matrices(n, isa, dtype):
    A = random_symmetric(2 * native.WIDEST + 3, n, dtype=dtype, seed=n)
    info = torch.full(A.shape[:1], -7, dtype=torch.int32)
    with native.use_isa(isa):
        w, V, found = native.eigh(A, info=info)
        alone, _ = native.eigvalsh(A)
    assert (info == 0).all()
    assert found == 0
    assert (w.diff(dim=-1) >= 0).all()
    assert_eigensystem(A, w, V)
    assert torch.equal(alone, w)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("n", [1, 2, 5, 16, 22, 33, 64, 128])
def test_functions_agree_with_the_reference(n, isa, dtype):
    A = random_spd(19, n, dtype=dtype, seed=n)
    E = random_symmetric(19, n, dtype=dtype, seed=n + 1)
    w64, V64 = torch.linalg.eigh(A.double())
    eps = torch.finfo(dtype).eps
    # Errors grow with the condition number of A, not of f(A).
    bound = 8 * eps * (w64[:, -1] / w64[:, 0]).sqrt().max() * n**0.5 * 4
    with native.use_isa(isa):
        for kind, fn in (
            (native.LOG, scalar.LOG),
            (native.SQRT, scalar.SQRT),
            (native.INV_SQRT, scalar.INV_SQRT),
            (native.EXP, scalar.EXP),
        ):
            f = native.Function(kind)
            F, w, V, found = native.spectral(A, f)
            wanted = reference.evaluate(w64, V64, None, fn)
            assert found == 0
            assert torch.equal(F, F.mT)
            assert torch.equal(F, native.compose(w, V, f))
            assert (F - wanted).norm() <= bound * wanted.norm()
            D = native.frechet(w64.to(dtype), V64.to(dtype), E, f)
            wanted = reference.frechet(w64, V64, E.double(), None, fn)
            assert torch.equal(D, D.mT)
            assert (D - wanted).norm() <= bound * wanted.norm()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_tables_serve_any_function(isa, dtype):
    A = random_symmetric(11, 6, dtype=dtype)
    w, V = torch.linalg.eigh(A)
    K = torch.randn(11, 6, 6, dtype=dtype)
    K = K + K.mT
    E = torch.randn(11, 6, 6, dtype=dtype)
    with native.use_isa(isa):
        F = native.compose(w, V, native.Function(native.TABLE, torch.tanh(w)))
        D = native.frechet(w, V, E, native.Function(native.TABLE, K))
    torch.testing.assert_close(F, reference.compose(V, torch.tanh(w)))
    wanted = V @ (K * (V.mT @ reference.hermitian(E) @ V)) @ V.mT
    torch.testing.assert_close(D, wanted, rtol=1e-4, atol=1e-4)


def orthogonal(n: int, seed: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(n, n, dtype=torch.float64, generator=g)).Q


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(1, 33),
    kind=st.sampled_from(
        ["geometric", "clusters", "multiple", "rank", "graded", "diagonal", "blocks", "zero"]
    ),
    strength=st.integers(0, 12),
    scale=st.integers(-40, 36),
    single=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_hard_spectra(n, kind, strength, scale, single, seed):
    Q = orthogonal(n, seed)
    g = torch.Generator().manual_seed(seed + 1)
    steps = torch.linspace(0, 1, n, dtype=torch.float64)
    if kind == "geometric":
        A = Q @ torch.diag(10 ** (-strength * steps)) @ Q.mT
    elif kind == "clusters":
        w = 1 + torch.randint(0, 3, (n,), generator=g) + 10.0 ** (-strength - 3) * steps
        A = Q @ torch.diag(w) @ Q.mT
    elif kind == "multiple":
        A = -3 * torch.eye(n, dtype=torch.float64)
    elif kind == "rank":
        A = Q[:, :1] @ Q[:, :1].mT
    elif kind == "graded":
        D = torch.diag(10 ** (-strength * steps))
        A = D @ (Q @ torch.diag(1 + steps) @ Q.mT) @ D
    elif kind == "diagonal":
        A = torch.diag(torch.randn(n, dtype=torch.float64, generator=g))
    elif kind == "blocks":
        A = Q @ torch.diag(steps) @ Q.mT
        A[: n // 2, n // 2 :] = 0
        A[n // 2 :, : n // 2] = 0
    else:
        A = torch.zeros(n, n, dtype=torch.float64)
    dtype = torch.float32 if single else torch.float64
    A = ((A + A.mT) / 2 * 10.0 ** (scale if single else 7 * scale)).to(dtype)
    if not A.isfinite().all():
        return
    # Neighbours of another kind take other paths through the same instructions.
    batch = torch.stack([A, random_symmetric(n, dtype=dtype, seed=seed), A])
    w, V, found = native.eigh(batch)
    assert found == 0
    assert torch.equal(w[0], w[2])
    assert torch.equal(V[0], V[2])
    if A.abs().max() == 0 or A.abs().max() > 1e3 * torch.finfo(dtype).tiny:
        # Graded downwards, against the direction of the iteration, takes more rotations.
        assert_eigensystem(batch, w, V, slack=2.0)
    else:
        eps = torch.finfo(dtype).eps
        # Denormal entries have few digits: eigenvalues are right to the last of them.
        assert (V.double().mT @ V.double() - torch.eye(n)).abs().max() <= 2 * (10 + n) * eps
        step = eps * (torch.finfo(dtype).tiny + A.abs().max().item())
        assert (w[0].double() - torch.linalg.eigvalsh(A.double())).abs().max() <= 8 * n * step


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_bad_matrix_is_flagged_and_leaves_its_neighbours_alone(bad, isa, dtype):
    A = random_spd(native.WIDEST + 3, 6, dtype=dtype)
    E = random_symmetric(native.WIDEST + 3, 6, dtype=dtype, seed=1)
    rest = [i for i in range(len(A)) if i != 4]
    info = torch.empty(len(A), dtype=torch.int32)
    with native.use_isa(isa):
        good = native.spectral(A, LOG)
        good_D = native.frechet(good[1], good[2], E, LOG)
        A[4, 5, 1] = bad
        F, w, V, found = native.spectral(A, LOG, info=info)
        D = native.frechet(w, V, E, LOG)
    assert info[4] == -1
    assert found == native.NOT_FINITE
    for got, want in zip((F, w, V, D), (*good[:3], good_D), strict=True):
        assert got[4].isnan().all()
        assert torch.equal(got[rest], want[rest])
    assert (info[rest] == 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("isa", ISAS)
def test_every_tail_and_batch_shape(isa, dtype):
    A = random_spd(4 * native.WIDEST + 1, 5, dtype=dtype)
    E = random_symmetric(4 * native.WIDEST + 1, 5, dtype=dtype, seed=1)
    with native.use_isa(isa):
        F, w, V, _ = native.spectral(A, LOG)
        D = native.frechet(w, V, E, LOG)
        for count in range(1, len(A) + 1):
            part, *_ = native.spectral(A[:count], LOG)
            assert torch.equal(part, F[:count])
            assert torch.equal(native.frechet(w[:count], V[:count], E[:count], LOG), D[:count])
        shaped, *_ = native.spectral(A[:12].reshape(2, 1, 6, 5, 5), LOG)
        assert torch.equal(shaped.reshape(12, 5, 5), F[:12])
        single, *_ = native.spectral(A[0], LOG)
        assert torch.equal(single, F[0])
        strided, *_ = native.spectral(A.mT[::2], LOG)
        assert torch.equal(strided, native.spectral(A.mT[::2].contiguous(), LOG)[0])
        none, found = native.eigvalsh(A[:0])
        assert none.shape == (0, 5)
        assert found == 0


@pytest.mark.parametrize("symmetrize", [True, False])
def test_asymmetry_is_reported(symmetrize):
    A = random_spd(40, 4, dtype=torch.float64)
    A[17, 0, 3] += 0.1 * A[17].abs().max()
    w, _, found = native.eigh(A, symmetrize=symmetrize, tolerance=0.05)
    assert found == (native.ASYMMETRIC if symmetrize else 0)
    wanted = reference.hermitian(A) if symmetrize else reference.from_lower(A)
    torch.testing.assert_close(w, torch.linalg.eigvalsh(wanted))
    assert native.eigh(A, tolerance=0.2)[2] == 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("n", [1, 3, 8, 22, 33])
def test_whitened_eigenvalues_and_congruence(n, isa, dtype):
    P, X = random_spd(21, n, dtype=dtype), random_spd(21, n, dtype=dtype, seed=1)
    L = torch.linalg.cholesky(P)
    with native.use_isa(isa):
        w, _ = native.eigvalsh(X, L=L)
        F, *_ = native.spectral(X, LOG, L=L[0])
        Y = native.congruence(L, X)
        one = native.congruence(L[0], X)
    left = torch.linalg.solve_triangular(L.double(), X.double(), upper=False)
    wanted = torch.linalg.solve_triangular(L.double().mT, left, upper=True, left=False)
    tolerance = 2e3 * torch.finfo(dtype).eps * wanted.abs().max()
    assert torch.equal(Y, Y.mT)
    assert (Y - wanted).abs().max() <= tolerance
    assert (w - torch.linalg.eigvalsh(wanted)).abs().max() <= tolerance
    assert torch.equal(one[0], Y[0])
    spectral_of_one, *_ = native.spectral(one, LOG)
    torch.testing.assert_close(F, spectral_of_one, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6, 7, 8, 22, 33])
def test_cholesky_adjoint(n, isa, dtype):
    L = torch.linalg.cholesky(random_spd(21, n, dtype=dtype))
    G = torch.randn(21, n, n, dtype=dtype)
    with native.use_isa(isa):
        gA = native.cholesky_vjp(L, G)
    wanted = reference.cholesky_vjp(L.double(), G.double())
    assert torch.equal(gA, gA.mT)
    assert (gA - wanted).abs().max() <= 2e3 * torch.finfo(dtype).eps * wanted.abs().max()


# --- threads and processes ------------------------------------------------------------------


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def everything(A: torch.Tensor) -> list[torch.Tensor]:
    F, w, V, _ = native.spectral(A, LOG)
    sorted_w, sorted_V, _ = native.eigh(A)
    return [F, w, V, native.frechet(w, V, A, LOG), sorted_w, sorted_V, native.cholesky(A)[0]]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [3, 16, 22, 40])
def test_results_do_not_depend_on_the_number_of_threads(n, dtype, threads):
    A = random_spd(300, n, dtype=dtype)
    threads(1)
    wanted = everything(A)
    for count in (2, 4):
        threads(count)
        for got, want in zip(everything(A), wanted, strict=True):
            assert got.numpy().tobytes() == want.numpy().tobytes()


def test_concurrent_calls():
    A = random_spd(200, 12, dtype=torch.float64)
    wanted = everything(A)
    wrong: list[int] = []

    def work():
        runs = (everything(A) for _ in range(10))
        wrong.extend(
            i
            for i, run in enumerate(runs)
            if not all(torch.equal(x, y) for x, y in zip(run, wanted, strict=True))
        )

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def _in_child(A: torch.Tensor, queue) -> None:
    torch.set_num_threads(2)
    F, *_ = native.spectral(A, LOG)
    queue.put(F.numpy())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_computes_on_its_own_threads(threads):
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("no fork here")
    threads(2)
    A = random_spd(300, 8, dtype=torch.float32)
    wanted, *_ = native.spectral(A, LOG)  # the parent's threads exist now
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_in_child, args=(A, queue))
    child.start()
    got = queue.get(timeout=60)
    child.join(timeout=60)
    assert child.exitcode == 0
    assert torch.equal(torch.from_numpy(got), wanted)
