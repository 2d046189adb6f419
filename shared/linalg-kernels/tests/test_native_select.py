"""Which backend computes, and that both tell the same story."""

import math

import linalg_kernels as lk
import pytest
import torch
from linalg_kernels.backends import native
from linalg_kernels.backends.plain import NATIVE_LIMIT, WIDE_LIMIT

pytestmark = pytest.mark.skipif(not native.available(), reason=native.why_unavailable())


def random_spd(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> torch.Tensor:
    n = shape[-1]
    X = torch.randn(*shape, 2 * n, dtype=dtype, generator=torch.Generator().manual_seed(seed))
    return X @ X.mH / n


@pytest.fixture
def calls(monkeypatch):
    """Names of the native functions that were called."""
    made = []
    original = native.library.call

    def spy(name, *arguments):
        made.append(name)
        return original(name, *arguments)

    monkeypatch.setattr(native.library, "call", spy)
    return made


FUNCTIONS = {
    "logm": lk.logm,
    "expm": lk.expm,
    "sqrtm": lk.sqrtm,
    "inv_sqrtm": lk.inv_sqrtm,
    "powm": lambda A: lk.powm(A, 0.3),
    "inverse": lambda A: lk.powm(A, -1.0),
    "clamp_eigvals": lambda A: lk.clamp_eigvals(A, 0.5),
    "floored": lambda A: lk.logm(A, nonpos="clamp", eps=0.5),
    "custom": lambda A: lk.spectral_fn(A, torch.tanh, lambda x: 1 - torch.tanh(x) ** 2, length=1.0),
    "eigvalsh": lk.eigvalsh,
    "cholesky": lk.cholesky,
    "chol_log": lk.chol_log,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_values_and_gradients_agree(name, calls):
    A = random_spd(7, 6)
    G = torch.randn(7, 6, 6, dtype=A.dtype)
    results = []
    for choice in ("torch", "native"):
        with lk.backend(choice):
            leaf = A.clone().requires_grad_()
            F = FUNCTIONS[name](leaf)
            weights = G.flatten()[: F.numel()].view_as(F)
            (grad,) = torch.autograd.grad((F * weights).sum(), leaf)
            results.append((F.detach(), grad))
        if choice == "torch":
            assert not calls
    assert calls
    for got, want in zip(*results, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-11)


def test_the_gradient_in_the_exponent_agrees():
    A = random_spd(5, 4)
    p = torch.linspace(-1, 1, 5, dtype=A.dtype, requires_grad=True)
    grads = []
    for choice in ("torch", "native"):
        with lk.backend(choice):
            grads.append(torch.autograd.grad(lk.powm(A, p).square().sum(), p)[0])
    torch.testing.assert_close(grads[1], grads[0], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("function", [lk.logm, lk.eigh, lk.eigvalsh, lk.cholesky])
@pytest.mark.parametrize("choice", ["torch", "native"])
def test_errors_are_worded_alike(choice, function):
    with lk.backend(choice):
        A = random_spd(20, 4)
        A[13, 0, 2] = math.nan
        with pytest.raises(lk.LinAlgError, match=r"A\[13\] contains NaN or Inf"):
            function(A)
        A = random_spd(20, 4)
        A[11, 0, 2] += 10
        with pytest.raises(ValueError, match=r"A\[11\] must be symmetric"):
            function(A)


@pytest.mark.parametrize("choice", ["torch", "native"])
def test_unchecked_bad_matrices_are_nan(choice):
    A = random_spd(5, 4)
    A[3, 1, 1] = math.inf
    with lk.backend(choice):
        for F in (lk.logm(A, check=False), lk.eigvalsh(A, check=False)):
            assert F[3].isnan().all()
            assert F[[0, 1, 2, 4]].isfinite().all()
        L, info = lk.cholesky_ex(A)
        assert info.tolist() == [0, 0, 0, 5, 0]
        assert L[3].isnan().all()


def gives_up_as(original):
    def gives_up(*arguments):
        F, *rest, _ = original(*arguments)
        return F.zero_(), *rest, native.NOT_CONVERGED

    return gives_up


def test_what_did_not_converge_is_computed_by_torch(monkeypatch):
    A = random_spd(5, 4)
    original = native.spectral

    def gives_up(*arguments, **options):
        F, w, V, _ = original(*arguments, **options)
        F[2] = 0
        return F, w, V, native.NOT_CONVERGED

    monkeypatch.setattr(native, "spectral", gives_up)
    for name in ("spectral_value", "spectral_packed"):
        monkeypatch.setattr(native, name, gives_up_as(getattr(native, name)))
    monkeypatch.setattr(native, "eigh", lambda *_, **__: (None, None, native.NOT_CONVERGED))
    for check in (True, False):
        with lk.backend("torch"):
            wanted = lk.logm(A)
        leaf = A.clone().requires_grad_()
        for given in (A, leaf):
            torch.testing.assert_close(lk.logm(given, check=check), wanted)


def test_eigensystems_of_a_few_large_matrices_are_left_to_lapack(calls):
    lk.eigh(random_spd(1, 64))
    assert calls == ["lk_wide_symmetric_part"]
    calls.clear()
    lk.eigh(random_spd(8, 64))
    assert calls == ["lk_spectral"]
    lk.eigh(random_spd(8, 5, dtype=torch.complex128))
    assert calls == ["lk_spectral"]


def test_of_larger_matrices_the_library_does_all_but_the_eigensystem(calls):
    A = random_spd(2, NATIVE_LIMIT + 1).requires_grad_()
    lk.logm(A).sum().backward()
    assert calls == ["lk_wide_symmetric_part", "lk_wide_compose", "lk_wide_frechet"]
    lk.eigh(random_spd(1, WIDE_LIMIT + 1, dtype=torch.float32))
    assert len(calls) == 3


@pytest.mark.bad_input
def test_info_in_words():
    there = lk.backend_info()
    assert there.native is not None
    assert there.native.isa in str(there)
    with lk.backend("torch"):
        assert str(lk.backend_info()).startswith(
            "torch for everything on the CPU, because of backend"
        )
    with pytest.raises(ValueError, match=r"backend must be one of .*'cuda'"), lk.backend("cuda"):  # ty: ignore[invalid-argument-type]
        pass


def test_without_a_library_torch_computes_and_native_is_refused(monkeypatch):
    monkeypatch.setattr(
        native.library, "_load", lambda: (None, "", "it was built without a compiler")
    )
    monkeypatch.setattr(native.library, "_loaded", {})
    torch.testing.assert_close(lk.expm(lk.logm(A := random_spd(3, 4))), A)
    assert "built without a compiler" in str(lk.backend_info())
    with pytest.raises(native.NativeUnavailableError, match="without"), lk.backend("native"):
        pass


@pytest.mark.parametrize("choice", ["torch", "native"])
def test_derivatives_through_the_native_path(choice):
    A = random_spd(3, 4).requires_grad_()
    with lk.backend(choice):
        assert torch.autograd.gradcheck(lk.logm, (A,), check_forward_ad=True)
        assert torch.autograd.gradgradcheck(lk.logm, (A,))
        assert torch.autograd.gradcheck(lk.cholesky, (A,), check_forward_ad=True)
        assert torch.autograd.gradgradcheck(lk.cholesky, (A,))
        hessian = torch.func.hessian(lambda X: lk.logm(X).square().sum())(A[0].detach())
        assert hessian.isfinite().all()
        batched = torch.func.vmap(lk.sqrtm)(A.detach())
        torch.testing.assert_close(batched, lk.sqrtm(A.detach()))
