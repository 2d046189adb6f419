import pytest
import scipy.linalg
import torch
from linalg_kernels.lyapunov import lyapunov, sylvester
from torch.linalg import LinAlgError

DTYPES = [torch.float32, torch.float64, torch.complex64, torch.complex128]


def hermitian(*shape, dtype, seed=0):
    g = torch.Generator().manual_seed(seed)
    A = torch.randn(*shape, dtype=dtype, generator=g)
    return (A + A.mH) / 2


def definite(*shape, dtype, seed=0):
    g = torch.Generator().manual_seed(seed)
    A = torch.randn(*shape, dtype=dtype, generator=g)
    return A @ A.mH / shape[-1] + 0.1 * torch.eye(shape[-1], dtype=dtype)


def ulps(X, reference):
    eps = torch.finfo(X.dtype).eps
    return float(torch.linalg.norm(X - reference) / torch.linalg.norm(reference) / eps)


@pytest.mark.parametrize("dtype", DTYPES)
def test_lyapunov_agrees_with_scipy(dtype):
    A = definite(3, 6, 6, dtype=dtype)
    C = torch.randn(3, 6, 6, dtype=dtype, generator=torch.Generator().manual_seed(1))
    X = lyapunov(A, C)
    assert X.dtype == dtype
    for a, c, x in zip(A, C, X, strict=True):
        wide = torch.complex128 if dtype.is_complex else torch.float64
        a, c = a.to(wide), c.to(wide)
        expected = torch.from_numpy(scipy.linalg.solve_continuous_lyapunov(a.numpy(), c.numpy()))
        assert ulps(x, expected.to(wide)) < 200


@pytest.mark.parametrize("dtype", DTYPES)
def test_sylvester_of_different_sizes_agrees_with_scipy(dtype):
    A, B = definite(6, 6, dtype=dtype), definite(2, 4, 4, dtype=dtype, seed=1)
    C = torch.randn(2, 6, 4, dtype=dtype, generator=torch.Generator().manual_seed(2))
    X = sylvester(A, B, C)
    assert X.shape == (2, 6, 4)
    wide = torch.complex128 if dtype.is_complex else torch.float64
    for b, c, x in zip(B, C, X, strict=True):
        expected = scipy.linalg.solve_sylvester(
            A.to(wide).numpy(), b.to(wide).numpy(), c.to(wide).numpy()
        )
        assert ulps(x, torch.from_numpy(expected).to(wide)) < 200


def test_indefinite_coefficients_are_solved():
    A = hermitian(5, 5, dtype=torch.float64)
    C = torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    X = lyapunov(A, C)
    torch.testing.assert_close(A @ X + X @ A, C, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1.0, 1e6, 1e30])
def test_scale_of_the_matrix_does_not_matter(scale):
    A = definite(5, 5, dtype=torch.float32)
    C = torch.randn(5, 5, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(lyapunov(A * scale, C * scale), lyapunov(A, C), rtol=1e-5, atol=3e-5)


def test_repeated_eigenvalues_have_finite_derivatives():
    A = torch.eye(4, dtype=torch.float64).requires_grad_()
    C = torch.arange(16.0, dtype=torch.float64).reshape(4, 4)
    (gA,) = torch.autograd.grad(lyapunov(A, C).sum(), A)
    # X = C / 2 at A = I, and dX solves dX + dX = -(dA X + X dA).
    ones = torch.ones(4, 4, dtype=torch.float64)
    expected = -(ones @ C.mT + C.mT @ ones) / 4
    torch.testing.assert_close(gA, (expected + expected.mT) / 2)


def test_gradient_for_general_right_sides_is_not_the_symmetric_short_form():
    A = (definite(4, 4, dtype=torch.float64) + torch.eye(4)).requires_grad_()
    g = torch.Generator().manual_seed(5)
    C, G = (torch.randn(4, 4, dtype=torch.float64, generator=g) for _ in range(2))
    X = lyapunov(A, C)
    (gA,) = torch.autograd.grad(X, A, G)
    Y = lyapunov(A.detach(), G)
    M = -(Y @ X.mT + X.mT @ Y)
    torch.testing.assert_close(gA, (M + M.mT) / 2)
    short = -(X @ Y + Y @ X)
    assert torch.linalg.norm(gA - (short + short.mT) / 2) > 0.1 * torch.linalg.norm(gA)


def test_derivative_of_the_square_root():
    A = definite(5, 5, dtype=torch.float64)
    S = torch.from_numpy(scipy.linalg.sqrtm(A.numpy()))
    E = hermitian(5, 5, dtype=torch.float64, seed=3)
    h = 1e-6
    up, down = (torch.from_numpy(scipy.linalg.sqrtm((A + s * h * E).numpy())) for s in (1, -1))
    torch.testing.assert_close(lyapunov(S, E), (up - down) / (2 * h), rtol=1e-7, atol=1e-8)


def test_singular_equation_names_the_element():
    A = torch.stack([torch.eye(2), torch.diag(torch.tensor([1.0, -1.0]))])
    C = torch.ones(2, 2)
    with pytest.raises(LinAlgError, match=r"A\[1\] X \+ X A\[1\] = C is singular"):
        lyapunov(A, C)
    with pytest.raises(LinAlgError, match=r"^A X \+ X B = C is singular"):
        sylvester(A[0], -A[0], C)
    with pytest.raises(LinAlgError, match="singular"):
        lyapunov(torch.zeros(3, 3), torch.ones(3, 3))


def test_singularity_is_seen_through_a_rotation_of_the_basis():
    Q, _ = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(0)).double())
    A = Q @ torch.diag(torch.tensor([3.0, 2.0, -2.0, 1.0]).double()) @ Q.mT
    with pytest.raises(LinAlgError, match="singular"):
        lyapunov(A, torch.eye(4).double())


def test_tiny_eigenvalues_of_one_sign_are_not_called_singular():
    A = torch.diag(torch.tensor([1.0, 1e-25]).double())
    X = lyapunov(A, torch.eye(2).double())
    torch.testing.assert_close(X, torch.diag(torch.tensor([0.5, 5e24]).double()))


def test_singular_equation_is_not_masked_without_check():
    A = torch.stack([torch.eye(2), torch.diag(torch.tensor([1.0, -1.0]))])
    X = lyapunov(A, torch.ones(2, 2), check=False)
    assert torch.isfinite(X[0]).all()
    assert not torch.isfinite(X[1]).all()


@pytest.mark.parametrize(("bad", "name"), [(0, "A"), (1, "B"), (2, "C")])
def test_non_finite_input_names_the_element(bad, name):
    tensors = [torch.eye(2).repeat(3, 1, 1), torch.eye(3).repeat(3, 1, 1), torch.ones(3, 2, 3)]
    tensors[bad][1, 0, 0] = float("nan")
    with pytest.raises(LinAlgError, match=rf"^{name}\[1\] contains NaN or Inf"):
        sylvester(*tensors)
    X = sylvester(*tensors, check=False)
    assert torch.isnan(X).flatten(1).any(1).tolist() == [False, True, False]


@pytest.mark.bad_input
def test_shapes_and_dtypes_are_refused_by_name():
    eye = torch.eye(3)
    with pytest.raises(
        ValueError, match=r"C must be \(\.\.\., m, n\) with m=3 and n=3, got \(3, 2"
    ):
        lyapunov(eye, torch.ones(3, 2))
    with pytest.raises(ValueError, match="batch shapes must broadcast"):
        lyapunov(eye.repeat(2, 1, 1), torch.ones(3, 3, 3))
    with pytest.raises(TypeError, match="A and C must have one dtype"):
        lyapunov(eye, eye.double())
    with pytest.raises(ValueError, match="B must be symmetric"):
        sylvester(eye, torch.tensor([[1.0, 1.0], [0.0, 1.0]]), torch.ones(3, 2))
    with pytest.raises(TypeError, match="upcast=True"):
        lyapunov(eye.half(), eye.half())


def test_half_precision_is_upcast_when_asked():
    A = definite(3, 3, dtype=torch.float32).bfloat16()
    X = lyapunov(A, A, upcast=True)
    assert X.dtype == torch.bfloat16
    torch.testing.assert_close(X.float(), torch.eye(3) / 2, rtol=0, atol=1e-2)


def test_empty_sizes_and_batches():
    assert lyapunov(torch.zeros(2, 0, 0), torch.zeros(2, 0, 0)).shape == (2, 0, 0)
    assert lyapunov(torch.zeros(0, 3, 3), torch.zeros(0, 3, 3)).shape == (0, 3, 3)
    assert sylvester(torch.zeros(0, 0), torch.eye(2), torch.zeros(0, 2)).shape == (0, 2)
    torch.testing.assert_close(lyapunov(torch.tensor([[2.0]]), torch.tensor([[8.0]])).item(), 2.0)


def test_lower_triangle_alone_is_read_without_symmetrize():
    A = definite(4, 4, dtype=torch.complex128)
    C = hermitian(4, 4, dtype=torch.complex128, seed=1)
    torch.testing.assert_close(lyapunov(A.tril(), C, symmetrize=False), lyapunov(A, C))
