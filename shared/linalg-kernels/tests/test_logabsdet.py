import mpmath
import pytest
import torch
from linalg_kernels.logabsdet import logabsdet_sym
from torch.linalg import LinAlgError


def hermitian(*shape, dtype=torch.float64, seed=0):
    A = torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))
    return (A + A.mH) / 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64, torch.complex128])
@pytest.mark.parametrize("scale", [1e-12, 1e-3, 1.0, 1e3])
def test_agrees_with_mpmath(dtype, scale):
    H = hermitian(3, 6, 6, dtype=dtype) * scale
    computed = logabsdet_sym(H)
    assert computed.dtype == (dtype.to_real() if dtype.is_complex else dtype)
    with mpmath.workdps(60):
        for h, value in zip(H, computed, strict=True):
            exact = mpmath.log(abs(mpmath.det(mpmath.eye(6) + mpmath.matrix(h.tolist()))))
            eps = torch.finfo(value.dtype).eps
            assert abs(value.item() - float(exact)) < 50 * eps * (1 + abs(float(exact)))


@pytest.mark.parametrize("eigenvalue", [-3.0, -1.5, -0.5, 2.0])
def test_gradient_is_the_inverse_on_either_side_of_zero(eigenvalue):
    Q, _ = torch.linalg.qr(hermitian(3, 3))
    w = torch.tensor([eigenvalue, 0.5, 1.0], dtype=torch.float64)
    H = ((Q * w) @ Q.mT).requires_grad_()
    value = logabsdet_sym(H)
    torch.testing.assert_close(value, torch.log((1 + w).abs()).sum())
    (g,) = torch.autograd.grad(value, H)
    torch.testing.assert_close(g, (Q / (1 + w)) @ Q.mT)


def test_density_of_a_quadratic_flow():
    # z + ∇u(z) with u = z^T A z / 2 has the Jacobian I + A.
    A = hermitian(4, 4)
    jacobian = torch.func.jacrev(lambda z: z + A @ z)(torch.ones(4, dtype=torch.float64))
    expected = torch.linalg.det(jacobian).abs().log()
    torch.testing.assert_close(logabsdet_sym(A), expected)


def test_gradient_of_an_asymmetric_perturbation_is_symmetric():
    H = hermitian(4, 4).requires_grad_()
    (g,) = torch.autograd.grad(logabsdet_sym(H), H)
    assert torch.equal(g, g.mT)


@pytest.mark.parametrize("n", [3, 70])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_definite_and_other_elements_in_one_batch(n, dtype):
    """Each has its own factorisation, natively and beyond the native library's orders."""
    H = hermitian(5, n, n, dtype=dtype) / n**0.5
    shift = torch.tensor([0.0, 3.0, -1.5, 3.0, -3.0], dtype=torch.float64)
    A = H + (shift[:, None] * torch.ones(n, dtype=torch.float64)).diag_embed()
    definite = torch.linalg.eigvalsh(A)[:, 0] > -1
    assert definite.any()
    assert not definite.all()
    lower = (A.tril() + 7 * torch.ones_like(A).triu(1)).requires_grad_()
    A.requires_grad_()
    weight = torch.arange(1.0, 6.0, dtype=torch.float64)
    for given, options in ((A, {}), (lower, {"symmetrize": False})):
        value = logabsdet_sym(given, **options)
        want = torch.linalg.slogdet(torch.eye(n, dtype=dtype) + A)[1]
        torch.testing.assert_close(value, want, rtol=1e-11, atol=1e-11)
        with torch.no_grad():
            torch.testing.assert_close(logabsdet_sym(given, **options), value)
        (g,) = torch.autograd.grad(value @ weight, given, create_graph=True)
        (plain,) = torch.autograd.grad(logabsdet_sym(given, **options) @ weight, given)
        inverse = torch.linalg.inv(torch.eye(n, dtype=dtype) + A.detach())
        torch.testing.assert_close(plain, weight[:, None, None] * inverse, rtol=1e-8, atol=1e-9)
        assert torch.equal(plain, plain.mH)
        torch.testing.assert_close(g, plain, rtol=1e-8, atol=1e-9)


def test_singular_elements():
    H = torch.stack([torch.zeros(3, 3), torch.diag(torch.tensor([-1.0, 0.0, 0.0]))])
    with pytest.raises(LinAlgError, match=r"I \+ H\[1\] is singular"):
        logabsdet_sym(H)
    assert logabsdet_sym(H, check=False).tolist() == [0.0, -torch.inf]


@pytest.mark.bad_input
def test_bad_input_is_named():
    H = hermitian(3, 2, 2)
    H[2, 0, 1] = torch.nan
    with pytest.raises(LinAlgError, match=r"H\[2\] contains NaN or Inf"):
        logabsdet_sym(H)
    assert torch.isnan(logabsdet_sym(H, check=False)).tolist() == [False, False, True]
    with pytest.raises(ValueError, match="H must be symmetric"):
        logabsdet_sym(torch.tensor([[0.0, 1.0], [0.0, 0.0]]))
    with pytest.raises(ValueError, match=r"H must be \(\.\.\., n, n\), got \(2, 3\)"):
        logabsdet_sym(torch.zeros(2, 3))


def test_degenerate_sizes_and_half_precision():
    assert logabsdet_sym(torch.zeros(0, 0)).item() == 0
    assert logabsdet_sym(torch.zeros(0, 3, 3)).shape == (0,)
    torch.testing.assert_close(logabsdet_sym(torch.tensor([[-3.0]])).exp().item(), 2.0)
    value = logabsdet_sym(torch.eye(2, dtype=torch.bfloat16), upcast=True)
    assert value.dtype == torch.bfloat16
    with pytest.raises(TypeError, match="upcast=True"):
        logabsdet_sym(torch.eye(2, dtype=torch.bfloat16))
