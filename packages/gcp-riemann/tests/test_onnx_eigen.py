"""Factorisations of graphs for ONNX, against LAPACK's."""

import pytest
import torch
from gcp_riemann import onnx_eigen

pytestmark = pytest.mark.compile


@pytest.mark.parametrize("n", [1, 8, 9])
def test_eigh_of_hard_matrices(n):
    X = torch.randn(2, n, 4, dtype=torch.float64)
    A = torch.randn(n, n, dtype=torch.float64)
    P = torch.stack([*(X @ X.mT), A + A.mT, 3 * torch.eye(n).double(), torch.zeros(n, n).double()])
    w, V = onnx_eigen.eigh(P)
    assert w.shape[-1] == n + n % 2
    eye = torch.eye(n, dtype=torch.float64)
    torch.testing.assert_close(V @ V.mT, eye.expand_as(P), atol=1e-14, rtol=0)
    torch.testing.assert_close((V * w[:, None]) @ V.mT, P, atol=1e-13, rtol=0)
    if n % 2:
        # The one that is too many is marked by a column of zeros.
        extra = V.square().sum(-2) == 0
        assert (extra.sum(-1) == 1).all()
        assert (w[extra] == 1).all()
        w = w[~extra].reshape(len(P), n)
    torch.testing.assert_close(w.sort().values, torch.linalg.eigvalsh(P), atol=1e-13, rtol=0)


def test_spectral_function_of_graded_eigenvalues():
    Q, _ = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64))
    w = torch.logspace(0, -8, 6, dtype=torch.float64)
    found = onnx_eigen.spectral((Q * w) @ Q.T, torch.log)
    torch.testing.assert_close(found, (Q * w.log()) @ Q.T, atol=1e-6, rtol=0)
    assert torch.equal(found, found.T)


def test_cholesky():
    X = torch.randn(3, 7, 20, dtype=torch.float64)
    P = X @ X.mT
    P[1, 3, 3] = -1
    L = onnx_eigen.cholesky(P)
    for i in (0, 2):
        torch.testing.assert_close(L[i], torch.linalg.cholesky(P[i]), rtol=1e-12, atol=1e-12)
    assert L[1].isnan().all()
