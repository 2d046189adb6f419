import math

import pytest
import torch
from linalg_kernels import subspace
from linalg_kernels.barycenter import ConvergenceWarning
from linalg_kernels.linear_operator import LinearOperator
from linalg_kernels.lowrank import rank1, remove_rank1, svd_topk, whitened_lowrank
from torch.autograd import gradcheck, gradgradcheck
from torch.linalg import LinAlgError

DTYPES = [torch.float32, torch.float64, torch.complex64, torch.complex128]
SHAPES = [(7, 7), (2, 9, 4), (4, 9), (1, 5), (5, 1), (1, 1), (300, 40), (280, 270)]


def random(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def orthonormal(m, k, dtype=torch.float64, seed=0):
    return torch.linalg.qr(random(m, k, dtype=dtype, seed=seed))[0]


def with_values(m, n, s, dtype=torch.float64, seed=0):
    """A matrix (m, n) with singular values s and its singular vectors."""
    U, V = orthonormal(m, len(s), dtype, seed), orthonormal(n, len(s), dtype, seed + 1)
    s = torch.tensor(s, dtype=U.real.dtype)
    return (U * s) @ V.mH, U, V


def close(a, b, ulps):
    eps = torch.finfo(a.dtype).eps
    torch.testing.assert_close(a, b, rtol=ulps * eps, atol=ulps * eps)


def residuals(A, u, s, v):
    """‖A v - s u‖ and ‖A^H u - s v‖ relative to s."""
    first = (A @ v[..., None])[..., 0] - s[..., None] * u
    second = (A.mH @ u[..., None])[..., 0] - s[..., None] * v
    return torch.stack([torch.linalg.vector_norm(x, dim=-1) / s for x in (first, second)])


# --- rank1 ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_rank1_agrees_with_the_svd(dtype, shape):
    A = random(*shape, dtype=dtype)
    u, s, v = rank1(A, iters=200 if min(shape[-2:]) > 256 else 20)
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(
        s, torch.linalg.matrix_norm(A, 2), rtol=1e-5 if eps > 1e-10 else 1e-9, atol=0
    )
    close(torch.linalg.vector_norm(u, dim=-1), torch.ones_like(s), 20)
    close(torch.linalg.vector_norm(v, dim=-1), torch.ones_like(s), 20)
    assert residuals(A, u, s, v).max() < max(1e-6, 2 * subspace.default_tol(dtype, max(shape)))


@pytest.mark.parametrize("size", [1e-38, 1e-30, 1e-12, 1e6, 1e30, 1e36])
def test_scale_does_not_matter(size):
    A = random(6, 4, dtype=torch.float32)
    u, s, v = rank1(A)
    scaled = rank1(A * size)
    close(scaled[1] / size, s, 1e3 if size < 1e-35 else 50)
    close(scaled[0].abs(), u.abs(), 1e3)
    close(scaled[2].abs(), v.abs(), 1e3)


def test_a_zero_matrix_has_unit_vectors():
    for shape in [(3, 4), (300, 280)]:
        u, s, v = rank1(torch.zeros(shape))
        assert s.item() == 0
        assert torch.linalg.norm(u).item() == pytest.approx(1)
        assert torch.linalg.norm(v).item() == pytest.approx(1)
    assert torch.equal(remove_rank1(torch.zeros(2, 3, 4)), torch.zeros(2, 3, 4))


def test_the_largest_column_may_be_orthogonal_to_the_leading_vector():
    # A column of norm 0.95 on its own, and a value of 1 spread over all the others.
    n = 50
    A = torch.zeros(n, n, dtype=torch.float64)
    A[:-1, :-1] = 1 / (n - 1)
    A[-1, -1] = 0.95
    u, s, v = rank1(A)
    assert s.item() == pytest.approx(1, abs=1e-14)
    assert abs(v[-1].item()) < 1e-14
    assert residuals(A, u, s, v).max() < 1e-13


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("ratio", [0.9, 0.999])
def test_large_matrices_with_a_slow_spectrum_are_right_without_a_tol(ratio, dtype):
    # Subspace iteration alone leaves 1.6e-4 of this one, and would say nothing.
    values = [1.0] + [ratio] * 259
    A, U, V = with_values(300, 260, values)
    A, first = A.to(dtype), torch.outer(U[:, 0], V[:, 0])
    for X in (A, A.mT):
        rest = A.double() - first if X is A else (A.double() - first).mT
        bound = 200 * torch.finfo(dtype).eps / (1 - ratio)
        assert (remove_rank1(X).double() - rest).norm() / rest.norm() < bound


@pytest.mark.parametrize("gap", [0.0, 1e-12, 1e-6, 1e-3])
@pytest.mark.parametrize("shape", [(40, 30), (300, 280)])
def test_repeated_and_close_leading_values_converge_in_value_and_residual(gap, shape):
    A, *_ = with_values(*shape, [2.0, 2.0 - gap, 2.0 - 2 * gap, 0.3, 0.1])
    u, s, v = rank1(A)
    assert s.item() == pytest.approx(2, rel=1e-6)
    assert residuals(A, u, s, v).max() < 1e-5


def test_a_start_orthogonal_to_the_leading_vector_in_one_column():
    n = 300
    like = torch.zeros((), dtype=torch.float64)
    start = subspace.start_block(n, 8, like, None)
    v = random(n, seed=3)
    v -= start[:, 0] * (v @ start[:, 0]) / (start[:, 0] @ start[:, 0])
    v /= torch.linalg.norm(v)
    A = torch.outer(v, v) + 0.5 * torch.outer(start[:, 0], start[:, 0]) / n
    assert rank1(A)[1].item() == pytest.approx(torch.linalg.matrix_norm(A, 2).item(), rel=1e-10)


def test_rank1_is_deterministic():
    for shape in [(20, 10), (300, 280)]:
        A = random(*shape)
        torch.manual_seed(0)
        first = rank1(A)
        torch.manual_seed(1)
        for a, b in zip(first, rank1(A), strict=True):
            assert torch.equal(a, b)


def test_an_unmet_tolerance_is_told():
    A = torch.diag(torch.tensor([1.0, 0.99, 0.5], dtype=torch.float64))
    A = A @ orthonormal(3, 3)
    with pytest.warns(ConvergenceWarning, match="rank1 stopped with a residual"):
        rank1(A, iters=2, tol=1e-10)
    u, s, v = rank1(A, iters=20, tol=1e-10)
    assert residuals(A, u, s, v).max() < 1e-10
    with pytest.warns(ConvergenceWarning, match="svd_topk stopped"):
        svd_topk(random(40, 40), 2, iters=1, tol=1e-6)


@pytest.mark.parametrize("shape", [(5, 4), (3, 5), (2, 4, 3)])
def test_derivatives_of_rank1(shape):
    def f(A):
        u, s, v = rank1(A)
        return s, u[..., :, None] * v[..., None, :], u[..., 0] * u[..., 1]

    A = random(*shape).requires_grad_()
    assert gradcheck(f, (A,), check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(f, (A,), check_fwd_over_rev=True)


def test_complex_derivatives_of_rank1():
    def f(A):
        u, s, v = rank1(A)
        return s, u[:, None] * v.conj()[None, :]

    for shape in [(4, 3), (3, 4)]:
        A = random(*shape, dtype=torch.complex128).requires_grad_()
        assert gradcheck(f, (A,), check_forward_ad=True)
        assert gradgradcheck(f, (A,))


@pytest.mark.parametrize("size", [1e-25, 1e25])
def test_gradients_at_extreme_scales(size):
    A = random(5, 4, dtype=torch.float32)

    def gradient(A):
        A = A.clone().requires_grad_()
        u, _, v = rank1(A)
        return torch.autograd.grad(u[0] * v[0], A)[0]

    close(gradient(A * size) * size, gradient(A), 1e3)


def test_gradient_of_s_alone_is_finite_where_it_is_repeated():
    A = torch.eye(4, dtype=torch.float64).requires_grad_()
    u, s, v = rank1(A)
    (g,) = torch.autograd.grad(s, A)
    torch.testing.assert_close(g, torch.outer(u, v).detach())


# --- operators ------------------------------------------------------------------------------


def as_operator(A):
    return LinearOperator(lambda v: A @ v, lambda u: A.mH @ u, tuple(A.shape), A.dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(30, 12), (12, 30), (1, 4)])
def test_operators_agree_with_matrices(dtype, shape):
    A = random(*shape, dtype=dtype)
    u, s, v = rank1(as_operator(A), iters=60)
    close(s, rank1(A)[1], 100)
    assert residuals(A, u, s, v).max() < 1e-5
    k = min(3, *shape)
    U, S, V = svd_topk(as_operator(A), k)
    expected = svd_topk(A, k, "exact")
    torch.testing.assert_close(S, expected[1])
    torch.testing.assert_close((U * S) @ V.mH, (expected[0] * expected[1]) @ expected[2].mH)


def test_jacobian_is_never_formed():
    weight = random(6, 5)

    def f(x):
        return torch.tanh(weight @ x)

    x = random(5, seed=1)
    J = torch.func.jacrev(f)(x)
    operator = LinearOperator.jacobian(f, x)
    assert operator.shape == (6, 5)
    close(operator.matvec(x), J @ x, 20)
    close(operator.rmatvec(J @ x), J.mT @ J @ x, 20)
    u, s, v = rank1(operator, iters=100)
    close(s, torch.linalg.matrix_norm(J, 2), 100)
    assert residuals(J, u, s, v).max() < 1e-7
    U, S, V = svd_topk(operator, 5)
    close((U * S) @ V.mT, J, 1e3)
    with pytest.raises(ValueError, match="f must map a vector to a vector"):
        LinearOperator.jacobian(lambda x: x.sum(), x)


def test_singular_value_of_an_operator_carries_gradient():
    A = random(6, 4).requires_grad_()
    u, s, v = rank1(as_operator(A), iters=100)
    assert not u.requires_grad
    assert not v.requires_grad
    (g,) = torch.autograd.grad(s, A)
    torch.testing.assert_close(g, torch.outer(u, v))


def test_bad_products_are_named():
    A = random(4, 3)
    with pytest.raises(ValueError, match=r"rmatvec must return \(3,\) for \(4,\), got \(4,\)"):
        rank1(LinearOperator(lambda v: A @ v, lambda u: u, (4, 3), torch.float64))
    with pytest.raises(ValueError, match="needs a matrix"):
        svd_topk(as_operator(A), 1, "exact")


# --- remove_rank1 ---------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5, 4), (2, 3, 4, 9), (1, 4), (300, 49)])
def test_remove_rank1_keeps_the_other_singular_values(shape):
    X = random(*shape)
    S = torch.linalg.svdvals(X)
    S = torch.cat([S[..., 1:], torch.zeros_like(S[..., :1])], -1)
    torch.testing.assert_close(torch.linalg.svdvals(remove_rank1(X)), S, rtol=1e-9, atol=1e-9)


def test_gradient_of_the_removal():
    X, G = random(5, 4).requires_grad_(), random(5, 4, seed=1)
    (through,) = torch.autograd.grad(remove_rank1(X), X, G)
    assert torch.equal(through, G)
    assert gradcheck(lambda X: remove_rank1(X, detach=False), (X,), check_forward_ad=True)
    assert gradgradcheck(lambda X: remove_rank1(X, detach=False), (X,))


# --- svd_topk -------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["block_power", "exact"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(12, 9), (2, 5, 12), (3, 4)])
@pytest.mark.parametrize("k", [1, 3])
def test_topk_agrees_with_the_svd(method, dtype, shape, k):
    A = random(*shape, dtype=dtype)
    U, S, V = svd_topk(A, k, method)
    assert (U.shape[-2:], S.shape[-1], V.shape[-2:]) == ((shape[-2], k), k, (shape[-1], k))
    close(S, torch.linalg.svdvals(A)[..., :k], 100)
    eye = torch.eye(k, dtype=dtype)
    for Q in (U, V):
        close(Q.mH @ Q, eye.expand(*Q.shape[:-2], k, k), 50)
    close(A @ V, U * S[..., None, :], 1e3)
    close(A.mH @ U, V * S[..., None, :], 1e3)


def test_block_power_iterates_until_converged_where_it_is_hard():
    A, *_ = with_values(60, 50, [1 - 0.01 * i for i in range(50)])
    _, S, _ = svd_topk(A, 5, iters=400)
    torch.testing.assert_close(S, torch.tensor([1, 0.99, 0.98, 0.97, 0.96], dtype=torch.float64))


def test_randomized_is_close_to_the_optimum():
    A, *_ = with_values(200, 150, [0.95**i for i in range(150)])
    optimum = torch.linalg.svdvals(A)[20:].square().sum().sqrt()
    U, S, V = svd_topk(A, 20, "randomized")
    error = torch.linalg.norm(A - (U * S) @ V.mT)
    assert 1 <= error / optimum < 1.001
    single = svd_topk(A, 20, "randomized", iters=1, oversample=0)
    assert torch.linalg.norm(A - (single[0] * single[1]) @ single[2].mT) / optimum > 1.05


def test_repeated_values_of_a_block():
    A, U, _ = with_values(20, 15, [3.0, 3.0, 3.0, 1.0])
    for method in ("block_power", "randomized", "exact"):
        u, S, _ = svd_topk(A, 3, method)
        torch.testing.assert_close(S, torch.full((3,), 3.0, dtype=torch.float64))
        projector = U[:, :3] @ U[:, :3].mT
        torch.testing.assert_close(u @ u.mT, projector)


@pytest.mark.parametrize("method", ["block_power", "randomized", "exact"])
@pytest.mark.parametrize("shape", [(5, 4), (3, 5)])
def test_derivatives_of_topk(method, shape):
    def f(A):
        U, S, V = svd_topk(A, 2, method)
        return S, (U * S.sin()[..., None, :]) @ V.mH, U[..., :, :1] * U[..., :1, :1]

    A = random(*shape).requires_grad_()
    assert gradcheck(f, (A,), check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(f, (A,))


def test_gradient_of_topk_agrees_with_that_of_the_svd():
    A, G = random(8, 6).requires_grad_(), random(8, 6, seed=1)
    U, S, V = svd_topk(A, 3)
    (ours,) = torch.autograd.grad((U * S) @ V.mT, A, G)
    U, S, Vh = torch.linalg.svd(A, full_matrices=False)
    (theirs,) = torch.autograd.grad((U[:, :3] * S[:3]) @ Vh[:3], A, G)
    torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)


# --- whitened_lowrank -----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("method", ["exact", "block_power"])
def test_whitened_factors_are_optimal_for_the_inputs(dtype, method):
    W, X = random(6, 5, dtype=dtype), random(5, 40, dtype=dtype, seed=1)
    S = torch.linalg.cholesky(X @ X.mH)
    A, B = whitened_lowrank(W, S, 3, method=method)
    assert (A.shape, B.shape) == ((6, 3), (3, 5))
    error = torch.linalg.norm((W - A @ B) @ X)
    optimum = torch.linalg.svdvals(W @ X)[3:].square().sum().sqrt()
    torch.testing.assert_close(error, optimum)
    # A = U Σ^1/2 and B S = Σ^1/2 V^H are balanced.
    torch.testing.assert_close(A.mH @ A, (B @ S) @ (B @ S).mH)


def test_whitening_by_a_diagonal():
    W, d = random(2, 6, 5), torch.tensor([3.0, 0.0, 1.0, 1e-3, 10.0], dtype=torch.float64)
    A, B = whitened_lowrank(W, d, 2, diagonal=True)
    full = whitened_lowrank(W, torch.diag(d), 2)
    torch.testing.assert_close(A @ B, full[0] @ full[1])


def test_a_singular_factor_of_the_second_moment():
    X = random(5, 2)
    W = random(4, 5, seed=1)
    A, B = whitened_lowrank(W, X, 2)
    torch.testing.assert_close(A @ B @ X, W @ X)
    # The factor of rank 2 as a square matrix: two directions carry nothing.
    A, B = whitened_lowrank(W, torch.cat([X, torch.zeros_like(X)], -1), 4)
    torch.testing.assert_close(A @ B @ X, W @ X)
    assert torch.isfinite(A).all()
    assert B.abs().max() < 100
    A, B = whitened_lowrank(W, torch.zeros(5, 5, dtype=torch.float64), 4)
    torch.testing.assert_close(A @ B, W)


def test_derivatives_of_whitened_factors():
    W, S = random(4, 5).requires_grad_(), random(5, 5, seed=1).requires_grad_()

    def f(W, S):
        A, B = whitened_lowrank(W, S, 2)
        return A @ B

    assert gradcheck(f, (W, S), check_forward_ad=True)


# --- input ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(4, 3), (300, 280)])
def test_non_finite_elements(size):
    A = random(3, *size)
    A[1, 0, 0] = math.inf
    for fn in (rank1, lambda A, **kw: svd_topk(A, 2, **kw), remove_rank1):
        with pytest.raises(LinAlgError, match=r"[AX]\[1\] contains NaN or Inf"):
            fn(A)
        out = fn(A, check=False)
        for T in [out] if isinstance(out, torch.Tensor) else out:
            assert torch.isfinite(T).reshape(3, -1).all(1).tolist() == [True, False, True]


@pytest.mark.bad_input
def test_bad_arguments_are_named():
    A = random(3, 4)
    with pytest.raises(ValueError, match=r"A must have at least one row and column, got \(0, 3\)"):
        rank1(torch.zeros(0, 3))
    with pytest.raises(ValueError, match="iters must be >= 1, got 0"):
        rank1(A, 0)
    with pytest.raises(ValueError, match="tol must be > 0"):
        remove_rank1(A, tol=0.0)
    with pytest.raises(ValueError, match=r"k must lie in \[0, 3\] for A \(\.\.\., 3, 4\), got 4"):
        svd_topk(A, 4)
    with pytest.raises(ValueError, match="method must be one of"):
        svd_topk(A, 1, "lanczos")  # ty: ignore[invalid-argument-type]
    with pytest.raises(ValueError, match="oversample must be >= 0"):
        svd_topk(A, 1, oversample=-1)
    with pytest.raises(ValueError, match=r"S must be \(\.\.\., m, n\) with m=4, got \(3, 3\)"):
        whitened_lowrank(A, random(3, 3), 1)
    with pytest.raises(ValueError, match=r"k must lie in \[0, 2\], the rank of W S, got 3"):
        whitened_lowrank(A, random(4, 2), 3)
    with pytest.raises(ValueError, match=r"S must be \(\.\.\., n\) with n=4, got \(3,\)"):
        whitened_lowrank(A, random(3), 1, diagonal=True)
    with pytest.raises(TypeError, match="upcast=True"):
        rank1(A.half())


def test_empty_sizes():
    assert remove_rank1(torch.zeros(2, 0, 3)).shape == (2, 0, 3)
    assert [T.shape for T in rank1(torch.zeros(0, 3, 4))] == [(0, 3), (0,), (0, 4)]
    assert [T.shape for T in svd_topk(torch.zeros(5, 3, 4), 0)] == [(5, 3, 0), (5, 0), (5, 4, 0)]
    assert [T.shape for T in svd_topk(torch.zeros(0, 3, 4), 2)] == [(0, 3, 2), (0, 2), (0, 4, 2)]
    assert [T.shape for T in whitened_lowrank(torch.zeros(3, 4), torch.eye(4), 0)] == [
        (3, 0),
        (0, 4),
    ]


def test_half_precision_is_upcast_when_asked():
    A = random(6, 4, dtype=torch.float32).half()
    u, s, v = rank1(A, upcast=True)
    assert {u.dtype, s.dtype, v.dtype} == {torch.float16}
    assert remove_rank1(A.bfloat16(), upcast=True).dtype == torch.bfloat16
    torch.testing.assert_close(s.float(), torch.linalg.matrix_norm(A.float(), 2), rtol=1e-3, atol=0)
