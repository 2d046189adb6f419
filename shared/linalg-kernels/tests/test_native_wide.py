import pytest
import torch
from linalg_kernels import (
    LinAlgError,
    backend,
    clamp_eigvals,
    eigh,
    expm,
    inv_sqrtm,
    logm,
    powm,
    spectral_fn,
    sqrtm,
)
from linalg_kernels.backends import native
from linalg_kernels.backends import torch as reference

pytestmark = pytest.mark.skipif(not native.available(), reason=native.why_unavailable())

DTYPES = [torch.float32, torch.float64]


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def random_spd(*shape, seed=0, dtype=torch.float64):
    X = random(*shape, 2 * shape[-1], seed=seed, dtype=dtype)
    n = shape[-1]
    return X @ X.mT / n + 0.1 * torch.eye(n, dtype=dtype)


def close(got, wanted, ulps):
    allowed = ulps * torch.finfo(got.dtype).eps * float(wanted.abs().max())
    torch.testing.assert_close(got.to(wanted), wanted, rtol=0, atol=allowed)


@pytest.mark.parametrize("isa", native.info().isas if native.available() else ())
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 7, 16, 47, 130])
def test_each_step_is_the_reference(n, dtype, isa):
    w, V = torch.linalg.eigh(random_spd(3, n))
    E = random(3, n, n, seed=1)
    f = native.Function(native.LOG)
    of = dict.fromkeys((native.LOG,), torch.log)
    K = (of[f.kind](w)[..., :, None] - of[f.kind](w)[..., None, :]) / (
        w[..., :, None] - w[..., None, :]
    )
    K = torch.where(torch.eye(n, dtype=torch.bool), 1 / w[..., None, :], K)
    D = reference.hermitian(V @ (K * (V.mT @ reference.hermitian(E) @ V)) @ V.mT)
    w1, E1 = w.to(dtype), E.to(dtype)
    rows, columns = V.to(dtype).mT.contiguous().mT, V.to(dtype).contiguous()
    with native.use_isa(isa):
        H, found = native.symmetric_part(E1, float("inf"))
        assert found == 0
        close(H, reference.hermitian(E), 2)
        for vectors in (rows, columns):
            F = native.compose_wide(vectors, torch.log(w1))
            assert torch.equal(F, F.mT)
            close(F, reference.compose(V, torch.log(w)), 10 * n**0.5)
            found = native.frechet_wide(w1, vectors, E1, f)
            assert torch.equal(found, found.mT)
            close(found, D, 60 * n**0.5)
            table = native.Function(native.TABLE, K.to(dtype))
            close(native.frechet_wide(w1, vectors, E1, table), D, 60 * n**0.5)
        one = native.frechet_wide(w1[0], rows[0], E1, f)
        close(one[0], D[0], 60 * n**0.5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_found(dtype):
    A = random_spd(2, 50, dtype=dtype)
    assert native.symmetric_part(A, 0.02)[1] == 0
    for at in ((1, 3, 40), (0, 49, 49), (1, 40, 3)):
        B = A.clone()
        B[at] += 0.5 * A.abs().max()
        expected = 0 if at[1] == at[2] else native.ASYMMETRIC
        assert native.symmetric_part(B, 0.02)[1] == expected
        for bad in (float("nan"), float("inf")):
            B[at] = bad
            assert native.symmetric_part(B, 0.02)[1] & native.NOT_FINITE


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_symmetric_part_of_a_symmetric_matrix_is_itself(dtype):
    info = torch.finfo(dtype)
    for scale in (info.smallest_normal * info.eps, info.max / 16):
        A = (random(50, 50, dtype=dtype).clamp(-3, 3) * 3).round() * scale
        A = A.tril() + A.tril(-1).mT
        assert torch.equal(native.symmetric_part(A, 0.0)[0], A)


def test_threads_change_no_bit():
    A, E = random_spd(3, 100), random(3, 100, 100, seed=1)
    w, V = torch.linalg.eigh(A)
    f = native.Function(native.SQRT)

    def everything(k):
        parts = native.compose_wide(V[:k], w[:k]), native.frechet_wide(w[:k], V[:k], E[:k], f)
        return native.symmetric_part(E[:k], 0.0)[0], *parts

    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        first = everything(3)
        for count in (2, 5):
            torch.set_num_threads(count)
            for k in (1, 3):
                for one, other in zip(first, everything(k), strict=True):
                    assert torch.equal(one[:k], other)
    finally:
        torch.set_num_threads(threads)


FUNCTIONS = {
    "logm": logm,
    "expm": expm,
    "sqrtm": sqrtm,
    "inv_sqrtm": inv_sqrtm,
    "powm": lambda A: powm(A, -0.3),
    "powers": lambda A: powm(A, torch.tensor([0.4], dtype=A.dtype)),
    "clamp": lambda A: clamp_eigvals(A, 0.5),
    "raised": lambda A: logm(A, nonpos="clamp", eps=0.5),
    "user": lambda A: spectral_fn(A, torch.sin, torch.cos),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_beyond_the_limit_of_blocks(name):
    fn = FUNCTIONS[name]
    A, G = random_spd(1, 140), random(1, 140, 140, seed=1)
    found = []
    for by in ("torch", "native"):
        leaf = A.clone().requires_grad_()
        with backend(by):
            F = fn(leaf)
            found.append((F.detach(), *torch.autograd.grad(F, leaf, G)))
    for got, wanted in zip(found[1], found[0], strict=True):
        close(got, wanted, 3000)


def test_repeated_eigenvalues_and_derivatives_of_derivatives():
    E = random(1, 130, 130, seed=1)
    same = torch.eye(130, dtype=torch.float64)[None].requires_grad_()
    close(torch.autograd.grad(logm(same), same, E)[0], reference.hermitian(E), 10)
    leaf = random_spd(1, 130).requires_grad_()
    (g,) = torch.autograd.grad((logm(leaf) * E).sum(), leaf, create_graph=True)
    (h,) = torch.autograd.grad((g * E).sum(), leaf)
    with backend("torch"):
        (g2,) = torch.autograd.grad((logm(leaf) * E).sum(), leaf, create_graph=True)
        (h2,) = torch.autograd.grad((g2 * E).sum(), leaf)
    close(h, h2, 1e5)


def test_bad_matrices_are_named_and_leave_their_neighbours_alone():
    A = random_spd(3, 130)
    good = eigh(A)[0]
    A[1, 5, 7] = float("nan")
    with pytest.raises(LinAlgError, match=r"A\[1\] contains NaN"):
        logm(A)
    w = eigh(A, check=False)[0]
    assert w[1].isnan().all()
    assert torch.equal(w[[0, 2]], good[[0, 2]])
    A[1] = random(130, 130)
    with pytest.raises(ValueError, match=r"A\[1\] must be symmetric"):
        eigh(A)
