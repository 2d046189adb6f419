import math

import pytest
import torch
from linalg_kernels.vech import unvech, vech
from torch.linalg import LinAlgError

DTYPES = [torch.float32, torch.float64, torch.complex64, torch.complex128]


def hermitian(*shape, dtype=torch.float64, seed=0):
    A = torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))
    return (A + A.mH) / 2


def test_order_is_row_by_row():
    A = torch.tensor([[1.0, 2.0, 4.0], [2.0, 3.0, 5.0], [4.0, 5.0, 6.0]])
    assert vech(A).tolist() == [1, 2, 3, 4, 5, 6]
    w = math.sqrt(2)
    torch.testing.assert_close(vech(A, weighted=True), torch.tensor([1, 2 * w, 3, 4 * w, 5 * w, 6]))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (4, 4), (2, 3, 5, 5), (0, 3, 3), (2, 0, 0)])
def test_unvech_is_the_inverse(dtype, weighted, shape):
    A = hermitian(*shape, dtype=dtype)
    x = vech(A, weighted=weighted)
    n = shape[-1]
    assert x.shape == (*shape[:-2], n * (n + 1) // 2)
    torch.testing.assert_close(unvech(x, weighted=weighted), A)
    torch.testing.assert_close(vech(unvech(x, weighted=weighted), weighted=weighted), x)


@pytest.mark.parametrize("dtype", DTYPES)
def test_weights_keep_inner_products(dtype):
    A, B = hermitian(6, 6, dtype=dtype), hermitian(6, 6, dtype=dtype, seed=1)
    x, y = vech(A, weighted=True), vech(B, weighted=True)
    product = (x.conj() * y).sum().real
    torch.testing.assert_close(product, torch.trace(A.mH @ B).real)


def test_gradient_is_symmetric():
    A = hermitian(4, 4).requires_grad_()
    c = torch.arange(10.0, dtype=torch.float64)
    (g,) = torch.autograd.grad(vech(A) @ c, A)
    torch.testing.assert_close(g, g.mT)
    torch.testing.assert_close(g.tril(-1) * 2 + g.diagonal().diag(), unvech(c).tril())


def test_asymmetric_input():
    A = torch.tensor([[1.0, 9.0], [2.0, 3.0]])
    assert vech(A, symmetrize=False).tolist() == [1, 2, 3]
    with pytest.raises(ValueError, match=r"A\[1\] must be symmetric"):
        vech(torch.stack([torch.eye(2), A]))
    assert vech(A, check=False).tolist() == [1, 5.5, 3]
    with pytest.raises(LinAlgError, match="A contains NaN or Inf"):
        vech(A * float("nan"))


@pytest.mark.bad_input
def test_wrong_length_names_the_nearest_sizes():
    with pytest.raises(ValueError, match=r"is 8; .* 6 \(n=3\) and 10 \(n=4\)"):
        unvech(torch.zeros(2, 8))
    with pytest.raises(ValueError, match="single number"):
        unvech(torch.tensor(1.0))
    with pytest.raises(ValueError, match=r"A must be \(\.\.\., n, n\), got \(2, 3\)"):
        vech(torch.zeros(2, 3))
    with pytest.raises(TypeError, match=r"must be a torch\.Tensor"):
        unvech([1.0])  # ty: ignore[invalid-argument-type]


def test_every_length_up_to_a_thousand_is_recognised():
    triangular = {n * (n + 1) // 2 for n in range(50)}
    for m in range(1000):
        if m in triangular:
            assert unvech(torch.zeros(m)).numel() == round(math.sqrt(8 * m + 1) - 1) ** 2 // 4
        else:
            with pytest.raises(ValueError, match="nearest"):
                unvech(torch.zeros(m))


def test_half_precision_is_upcast_when_asked():
    A = torch.tensor([[1.0, 2.0], [2.0, 3.0]], dtype=torch.bfloat16)
    x = vech(A, upcast=True)
    assert x.dtype == torch.bfloat16
    assert torch.equal(unvech(x, upcast=True), A)
    with pytest.raises(TypeError, match="upcast=True"):
        vech(A)
