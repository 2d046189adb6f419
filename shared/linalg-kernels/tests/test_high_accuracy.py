"""accuracy="high": small eigenvalues as accurate as large ones."""

import linalg_kernels as lk
import mpmath
import pytest
import torch
from linalg_kernels.backends import native
from linalg_kernels.backends import torch as reference

CHOICES = ["torch", "native"] if native.available() else ["torch"]
DTYPES = [torch.float32, torch.float64]


def graded(n, span, dtype=torch.float64, batch=3, seed=0):
    """D B D with a well conditioned B and diagonal D from 1 to 10^span, in a mixed order."""
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(batch, n, n, dtype=torch.float64, generator=generator)
    Q = torch.linalg.qr(X)[0]
    B = (Q * torch.linspace(1, 3, n, dtype=torch.float64)) @ Q.mT
    d = torch.logspace(0, span, n, dtype=torch.float64)[torch.randperm(n, generator=generator)]
    A = (d[:, None] * B * d).to(dtype)
    return (A + A.mT) / 2


def eigenvalues(A):
    with mpmath.workdps(120):
        return [
            sorted(float(w) for w in mpmath.eigsy(mpmath.matrix(M.tolist()), eigvals_only=True))
            for M in A.double()
        ]


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize(("dtype", "span"), [(torch.float32, -6), (torch.float64, -25)])
def test_every_eigenvalue_has_its_own_relative_accuracy(dtype, span, choice):
    A = graded(6, span, dtype)
    exact = torch.tensor(eigenvalues(A), dtype=torch.float64)
    with lk.backend(choice):
        w, V = lk.daleckii_krein.accurate_eigensystem(A)
    eps = torch.finfo(dtype).eps
    assert ((w.double() - exact).abs() / exact).max() < 20 * eps
    assert (V.mT @ V - torch.eye(6, dtype=dtype)).abs().max() < 20 * eps
    lost = (torch.linalg.eigvalsh(A).double() - exact).abs() / exact
    assert lost.max() > 1e3 * eps


@pytest.mark.parametrize("choice", CHOICES)
def test_logarithms_stay_finite_where_lapack_finds_negative_eigenvalues(choice):
    A = torch.stack([graded(8, -5, batch=1, seed=s)[0] for s in range(40)])
    Q = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(0)))[0]
    ordinary = (Q.double() * torch.logspace(0, -6, 8, dtype=torch.float64)) @ Q.mT.double()
    A = torch.cat([A, ordinary[None]]).float()
    A = (A + A.mT) / 2
    with lk.backend(choice):
        L = lk.logm(A, accuracy="high")
        assert L.isfinite().all()
        # Of D B D the logarithm keeps its digits; of a rotated one it has what A has.
        exact = lk.logm(A.double(), accuracy="high")
        error = (L[:40].double() - exact[:40]).flatten(1).norm(dim=1)
        assert (error / exact[:40].flatten(1).norm(dim=1)).max() < 40 * torch.finfo(A.dtype).eps
    assert torch.linalg.eigvalsh(A[:40]).amin() < 0


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize(
    "fn",
    [
        lambda A: lk.logm(A, accuracy="high"),
        lambda A: lk.sqrtm(A, accuracy="high"),
        lambda A: lk.inv_sqrtm(A, accuracy="high"),
        lambda A: lk.powm(A, 0.3, accuracy="high"),
    ],
)
def test_derivatives_and_transforms(fn, choice):
    A = graded(4, -1)
    A[1] = 2 * torch.eye(4, dtype=A.dtype)
    with lk.backend(choice):
        leaf = A.clone().requires_grad_()
        assert torch.autograd.gradcheck(fn, leaf, check_forward_ad=True)
        assert torch.autograd.gradgradcheck(fn, leaf)
        torch.testing.assert_close(torch.vmap(fn)(A), fn(A))
        gradient = torch.func.grad(lambda M: fn(M).sum())
        (wanted,) = torch.autograd.grad(fn(leaf).sum(), leaf)
        torch.testing.assert_close(torch.vmap(gradient)(A), wanted)


def test_it_is_the_standard_function_of_ordinary_matrices():
    for dtype in (torch.float32, torch.float64, torch.complex64, torch.complex128):
        for n in (0, 1, 2, 5, 9):
            X = torch.randn(
                2, n, 2 * n + 1, dtype=dtype, generator=torch.Generator().manual_seed(n)
            )
            A = X @ X.mH
            wanted = lk.powm(A, torch.tensor(0.5), accuracy="standard")
            found = lk.powm(A, torch.tensor(0.5), accuracy="high")
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.compile
def test_it_can_be_traced():
    A = graded(3, -1)
    fn = torch.compile(lambda A: lk.logm(A, accuracy="high"), backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(fn(A), lk.logm(A))


@pytest.mark.parametrize("choice", CHOICES)
def test_what_is_not_positive_definite_is_named(choice):
    A = graded(3, -1)
    A[2, 0, 0] = -1
    with lk.backend(choice):
        with pytest.raises(lk.LinAlgError, match=r"A\[2\] must be positive definite"):
            lk.logm(A, accuracy="high")
        A[1, 1, 1] = float("nan")
        with pytest.raises(lk.LinAlgError, match=r"A\[1\] contains NaN or Inf"):
            lk.logm(A, accuracy="high")


@pytest.mark.bad_input
def test_another_accuracy_is_refused():
    with pytest.raises(ValueError, match="accuracy must be 'standard' or 'high', got 'best'"):
        lk.logm(graded(3, -1), accuracy="best")  # ty: ignore[invalid-argument-type]


@pytest.mark.skipif(not native.available(), reason=native.why_unavailable())
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("isa", native.info().isas if native.available() else ())
def test_native_rotations(isa, dtype):
    for n in (1, 2, 3, 5, 8, 22, 33, 64):
        span = -5 if dtype == torch.float32 else -40
        A = graded(n, span, dtype, batch=19)
        wanted, _ = reference.eigh_positive(torch.linalg.cholesky(A.double()))
        with native.use_isa(isa):
            w, V, found = native.eigh_positive(A)
            alone = native.eigh_positive(A[4:6])[0]
        assert found == 0
        eps = torch.finfo(dtype).eps
        # B has condition number 3; in double precision the reference errs as much.
        slack = 2 if dtype == torch.float64 else 1
        assert ((w.double() - wanted).abs() / wanted).max() < slack * (10 + 3 * n) * eps
        residual = (V.mT.double() @ V.double() - torch.eye(n, dtype=torch.float64)).abs().max()
        assert residual < (10 + n) * eps
        assert torch.equal(alone, w[4:6])
        bad = A.clone()
        bad[3] = -bad[3]
        bad[7, 0, 0] = float("inf")
        with native.use_isa(isa):
            other, V, found = native.eigh_positive(bad)
        assert found & native.NOT_POSITIVE
        assert other[[3, 7]].isnan().all()
        assert V[[3, 7]].isnan().all()
        rest = [i for i in range(19) if i not in (3, 7)]
        assert torch.equal(other[rest], w[rest])


@pytest.mark.skipif(not native.available(), reason=native.why_unavailable())
@pytest.mark.parametrize("dtype", DTYPES)
def test_results_do_not_depend_on_the_number_of_threads(dtype):
    """Nor on which block a matrix is in: each rotates until it itself is done."""
    A = graded(13, -3, dtype, batch=70)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            with lk.backend("native"):
                X = A.clone().requires_grad_()
                L = lk.logm(X, accuracy="high")
                L.square().sum().backward()
                found.append((L.detach(), X.grad))
                alone = lk.logm(A[41:42], accuracy="high")
            assert torch.equal(alone[0], L[41])
    finally:
        torch.set_num_threads(before)
    for L, gradient in found[1:]:
        assert torch.equal(L, found[0][0])
        assert torch.equal(gradient, found[0][1])
