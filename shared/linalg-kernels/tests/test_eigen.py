"""eigh and eigvalsh: agreement with torch, and gradients where torch's are NaN."""

import math

import linalg_kernels as lk
import pytest
import torch
from linalg_kernels.testing import (
    check_forward_mode,
    check_grad,
    orthogonal,
    random_spd,
    with_spectrum,
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64, torch.complex128])
def test_decomposition(dtype):
    A = random_spd(5, 6, dtype=dtype, generator=torch.Generator().manual_seed(0))
    w, V = lk.eigh(A)
    tol = 100 * torch.finfo(dtype).eps
    torch.testing.assert_close((V * w[:, None, :]) @ V.mH / 100, A / 100, rtol=tol, atol=tol)
    identity = torch.eye(6, dtype=dtype).expand_as(A)
    torch.testing.assert_close(V.mH @ V, identity, rtol=tol, atol=tol)
    assert (w.diff(dim=-1) >= 0).all()
    torch.testing.assert_close(lk.eigvalsh(A), w, rtol=tol, atol=tol)


def test_gradient_agrees_with_torch_where_torch_has_one():
    A = random_spd(3, 5, generator=torch.Generator().manual_seed(1)).requires_grad_()
    Gw = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2))

    def loss(w, V):
        return (w * Gw).sum() + (V.abs() ** 3).sum()

    (ours,) = torch.autograd.grad(loss(*lk.eigh(A)), A)
    (theirs,) = torch.autograd.grad(loss(*torch.linalg.eigh(A)), A)
    torch.testing.assert_close(ours, (theirs + theirs.mT) / 2)


@pytest.mark.parametrize("spectrum", [[1.0, 1.0, 2.0, 2.0], [1.0, 1.0 + 1e-15, 3.0, 3.0]])
def test_gradient_of_an_eigenspace(spectrum):
    Q = orthogonal(4, generator=torch.Generator().manual_seed(3))
    A = with_spectrum(spectrum, Q)

    def projector(A):
        V = lk.eigh(A).V[..., 2:]
        return V @ V.mT

    check_grad(projector, (A,))
    check_forward_mode(projector, (A,))


def test_gradient_is_finite_where_torch_has_nan():
    A = torch.diag(torch.tensor([1.0, 1.0, 2.0, 2.0])).requires_grad_()
    ours, theirs = (
        torch.autograd.grad((V[:, 2:] @ V[:, 2:].mT)[0, 3], A)[0]
        for V in (lk.eigh(A).V, torch.linalg.eigh(A).eigenvectors)
    )
    assert theirs.isnan().any()
    wanted = torch.zeros(4, 4)
    wanted[0, 3] = wanted[3, 0] = 0.5  # dP_03 = dA_03 / (2 - 1), symmetrised
    torch.testing.assert_close(ours, wanted)


def test_gradient_of_symmetric_functions_of_repeated_eigenvalues():
    A = with_spectrum(
        [1.0, 1.0, 2.0, 2.0], orthogonal(4, generator=torch.Generator().manual_seed(4))
    )
    check_grad(lambda A: (lk.eigvalsh(A) ** 2).sum(-1), (A,))


def test_gauge_check_warns_of_an_undefined_loss():
    A = torch.eye(3, dtype=torch.float64, requires_grad=True)
    _, V = lk.eigh(A, gauge_check=True)
    with pytest.warns(UserWarning, match="choice of eigenvectors of a repeated eigenvalue"):
        V[0].sum().backward()
    assert A.grad is not None
    assert A.grad.isfinite().all()


def test_gauge_check_is_silent_for_a_defined_loss():
    Q = orthogonal(4, generator=torch.Generator().manual_seed(5))
    A = with_spectrum([1.0, 1.0, 2.0, 2.0], Q).requires_grad_()
    _, V = lk.eigh(A, gauge_check=True)
    (V[:, :2] @ V[:, :2].mT)[0, 1].backward()


@pytest.mark.parametrize("fn", [lk.eigh, lk.eigvalsh])
def test_edges(fn):
    def values(A, **options):
        out = fn(A, **options)
        return out.w if isinstance(out, lk.Eigh) else out

    assert values(torch.zeros(3, 0, 0)).shape == (3, 0)
    assert values(torch.zeros(0, 4, 4)).shape == (0, 4)
    torch.testing.assert_close(
        values(torch.tensor([[[3.0]], [[-1.0]]])), torch.tensor([[3.0], [-1.0]])
    )
    A = random_spd(3, 4, generator=torch.Generator().manual_seed(6))
    expected = values(A)
    A[1, 0, 0] = math.nan
    with pytest.raises(lk.LinAlgError, match=r"A\[1\] contains NaN or Inf"):
        fn(A)
    got = values(A, check=False)
    assert got[1].isnan().all()
    torch.testing.assert_close(got[[0, 2]], expected[[0, 2]], rtol=0, atol=0)
    assert values(torch.eye(3).bfloat16(), upcast=True).dtype == torch.bfloat16


def test_eigvalsh_without_grad_computes_no_vectors(monkeypatch):
    from linalg_kernels.backends import torch as reference

    def refuse(*_, **__):
        raise AssertionError("eigenvectors were computed")

    monkeypatch.setattr(reference, "eigh", refuse)
    lk.eigvalsh(random_spd(2, 40, generator=torch.Generator().manual_seed(7)))
