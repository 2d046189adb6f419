import pytest
import torch
from linalg_kernels import backend
from linalg_kernels.backends import native
from linalg_kernels.householder import householder_apply, householder_product
from torch.linalg import LinAlgError

DTYPES = [torch.float32, torch.float64, torch.complex64, torch.complex128]


def random(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def one_after_the_other(V):
    n, k = V.shape[-2:]
    Q = torch.eye(n, dtype=V.dtype).expand(*V.shape[:-2], n, n)
    for i in range(k):
        v = V[..., i : i + 1]
        norm = (v.abs() ** 2).sum(-2, keepdim=True)
        if bool((norm == 0).any()):
            assert bool((norm == 0).all())
            continue
        Q = Q - 2 * (Q @ v) @ v.mH / norm
    return Q


def close(X, Y, ulps=100):
    torch.testing.assert_close(X, Y, rtol=0, atol=ulps * torch.finfo(X.dtype).eps)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(5, 1), (5, 3), (5, 5), (3, 9), (2, 4, 6), (4, 200)])
def test_product_is_the_sequential_product(dtype, shape):
    V = random(*shape, dtype=dtype)
    close(householder_product(V), one_after_the_other(V))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("adjoint", [False, True])
@pytest.mark.parametrize("shape", [(5, 3), (3, 150), (2, 6, 6)])
def test_apply_is_the_product_with_q(dtype, adjoint, shape):
    V, X = random(*shape, dtype=dtype), random(shape[-2], 4, dtype=dtype, seed=1)
    Q = householder_product(V)
    close(householder_apply(V, X, adjoint=adjoint), (Q.mH if adjoint else Q) @ X, 500)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 2e-6), (torch.float64, 4e-15)])
def test_large_products_are_orthogonal(dtype, bound):
    Q = householder_product(random(512, 128, dtype=dtype))
    assert float((Q.mT @ Q - torch.eye(512, dtype=dtype)).abs().max()) < bound


def test_order_is_from_left_to_right():
    V = random(4, 2)
    first, second = householder_product(V[:, :1]), householder_product(V[:, 1:])
    close(householder_product(V), first @ second)
    assert not torch.allclose(householder_product(V), second @ first)


def test_length_of_a_reflector_does_not_matter():
    V = random(6, 4, dtype=torch.float32)
    scales = torch.tensor([1e-38, 1e38, 1e-20, -1.0])
    close(householder_product(V * scales / 4), householder_product(V))


def test_zero_columns_are_the_identity_with_zero_gradient():
    V = random(5, 4)
    V[:, 2] = 0
    V.requires_grad_()
    Q = householder_product(V)
    close(Q.detach(), one_after_the_other(V.detach()))
    (g,) = torch.autograd.grad(Q, V, random(5, 5, seed=1))
    assert torch.isfinite(g).all()
    assert (g[:, 2] == 0).all()
    assert (g[:, 1].abs() > 0).all()
    eye = torch.eye(5, dtype=torch.float64)
    close(householder_product(torch.zeros(5, 3, dtype=torch.float64)), eye)
    # So are its second derivatives: the direction of a zero column is not defined.
    hessian = torch.func.hessian(lambda V: (householder_product(V) ** 3).sum())(V.detach())
    assert (hessian[:, 2] == 0).all()
    assert (hessian[:, 1] != 0).any()


def test_gradient_is_orthogonal_to_each_reflector():
    V = random(7, 5).requires_grad_()
    (g,) = torch.autograd.grad(householder_product(V), V, random(7, 7, seed=1))
    close((V * g).sum(-2), torch.zeros(5, dtype=torch.float64), 1e3)


def test_gradient_is_that_of_the_sequential_product():
    V, G = random(3, 6, 9).requires_grad_(), random(3, 6, 6, seed=1)
    (ours,) = torch.autograd.grad(householder_product(V), V, G)
    (loop,) = torch.autograd.grad(one_after_the_other(V), V, G)
    close(ours, loop, 1e3)


def test_repeated_and_opposite_reflectors_cancel():
    v = random(5, 1)
    eye = torch.eye(5, dtype=torch.float64)
    close(householder_product(torch.cat([v, -3 * v], -1)), eye)
    close(householder_product(v.expand(5, 41)), one_after_the_other(v))


def test_degenerate_sizes():
    assert householder_product(torch.zeros(0, 3)).shape == (0, 0)
    close(householder_product(torch.zeros(3, 0)), torch.eye(3))
    close(householder_product(torch.tensor([[2.0]])), torch.tensor([[-1.0]]))
    assert householder_product(torch.zeros(0, 3, 2)).shape == (0, 3, 3)
    assert householder_apply(torch.zeros(3, 2), torch.zeros(3, 0)).shape == (3, 0)
    assert householder_apply(torch.zeros(4, 1, 3, 0), torch.zeros(5, 3, 2)).shape == (4, 5, 3, 2)


@pytest.mark.bad_input
def test_bad_input_is_named():
    V = random(3, 4, 2)
    V[1, 0, 0] = float("inf")
    with pytest.raises(LinAlgError, match=r"V\[1\] contains NaN or Inf"):
        householder_product(V)
    Q = householder_product(V, check=False)
    assert torch.isfinite(Q).flatten(1).all(1).tolist() == [True, False, True]
    with pytest.raises(ValueError, match=r"X must be \(\.\.\., m, n\) with m=4, got \(3, 2\)"):
        householder_apply(V[0], random(3, 2))
    with pytest.raises(ValueError, match="V must be"):
        householder_product(torch.ones(3))
    with pytest.raises(TypeError, match="V and X must have one dtype"):
        householder_apply(V[0], torch.ones(4, 2))


def test_half_precision_is_upcast_when_asked():
    V = random(6, 3, dtype=torch.float32).half()
    Q = householder_product(V, upcast=True)
    assert Q.dtype == torch.float16
    torch.testing.assert_close(Q.float(), householder_product(V.float()), rtol=0, atol=1e-3)


# --- the fast roads of plain autograd, held to the composition -------------------------------

ROADS = [(1, 1), (7, 4), (6, 9), (2, 5, 3), (70, 64), (3, 97, 49)]
BY = ["torch", pytest.param("native", marks=pytest.mark.skipif(
    not native.available(), reason="there is no native library"))]  # fmt: skip
NAMES = {"torch": ("_ProductBackward", "_ApplyBackward"), "native": ("_NativelyBackward",) * 2}


def road(T):
    assert T.grad_fn is not None
    return T.grad_fn.name()


@pytest.mark.parametrize("by", BY)
@pytest.mark.parametrize("trapezoidal", [False, True])
@pytest.mark.parametrize("shape", ROADS)
@pytest.mark.parametrize("dtype", DTYPES[:2])
def test_product_and_its_gradient_are_those_of_the_composition(shape, dtype, trapezoidal, by):
    V = random(*shape, dtype=dtype) * torch.logspace(-3, 3, shape[-1], dtype=dtype)
    if trapezoidal:
        V = V.tril() if shape[-1] <= shape[-2] else V
    G = random(*shape[:-1], shape[-2], dtype=dtype, seed=1)
    # Transforms take the composition.
    wanted, pull = torch.func.vjp(householder_product, V)[:2]
    leaf = V.clone().requires_grad_()
    with backend(by):
        Q = householder_product(leaf)
        assert road(Q) == NAMES[by][0]
        close(Q.detach(), wanted, 200)
        scale = V.detach().norm(dim=-2, keepdim=True)
        (g,) = torch.autograd.grad(Q, leaf, G)
        close(g * scale, pull(G)[0] * scale, 2000)
        with torch.no_grad():
            assert torch.equal(householder_product(V), Q)


@pytest.mark.parametrize("by", BY)
@pytest.mark.parametrize("adjoint", [False, True])
@pytest.mark.parametrize("shape", ROADS)
@pytest.mark.parametrize("wanted", [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("m", [1, 3, 17])
def test_apply_and_its_gradients_are_those_of_the_composition(shape, adjoint, wanted, by, m):
    V = random(*shape)
    X, G = (random(*shape[:-1], m, seed=seed) for seed in (1, 2))
    apply = lambda v, x: householder_apply(v, x, adjoint=adjoint)  # noqa: E731
    value, pull = torch.func.vjp(apply, V, X)[:2]
    leaves = [T.clone().requires_grad_(w) for T, w in zip((V, X), wanted, strict=True)]
    with backend(by):
        Y = householder_apply(*leaves, adjoint=adjoint)
        assert road(Y) == NAMES[by][1]
        close(Y.detach(), value, 200)
        found = torch.autograd.grad(Y, [T for T in leaves if T.requires_grad], G)
    asked = [g for g, w in zip(pull(G), wanted, strict=True) if w]
    for g, expected in zip(found, asked, strict=True):
        close(g, expected, 2000)


@pytest.mark.parametrize("by", BY)
@pytest.mark.parametrize("adjoint", [False, True])
def test_second_derivatives_of_the_fast_roads(adjoint, by):
    V, X = random(5, 3).requires_grad_(), random(5, 2, seed=1).requires_grad_()
    apply = lambda v, x: householder_apply(v, x, adjoint=adjoint)  # noqa: E731
    with backend(by):
        assert torch.autograd.gradgradcheck(householder_product, V)
        assert torch.autograd.gradgradcheck(apply, (V, X))


@pytest.mark.parametrize("by", BY)
@pytest.mark.parametrize("scale", [1e-12, 1e12, 0.0])
def test_lengths_beyond_the_fast_roads_take_the_other(scale, by):
    V = random(6, 4, dtype=torch.float32)
    V[:, 1] *= scale
    V.requires_grad_()
    with backend(by):
        Q = householder_product(V)
        assert road(Q) not in NAMES[by]
        close(Q.detach(), one_after_the_other(V.detach().double()).float())
        Y = householder_apply(V, torch.eye(6))
        assert road(Y) not in NAMES[by]
        close(Y.detach(), Q.detach())


@pytest.mark.parametrize("by", BY)
def test_operands_of_other_batches_and_layouts(by):
    V, X = random(5, 3), random(2, 4, 5, seed=1).mT
    Q = householder_product(V)
    with backend(by):
        close(householder_apply(V, X), Q @ X)
        close(householder_apply(V.mT.contiguous().mT, X[0]), Q @ X[0])
        close(householder_product(V.mT.contiguous().mT), Q)


@pytest.mark.skipif(not native.available(), reason="there is no native library")
@pytest.mark.parametrize("dtype", DTYPES[:2])
def test_instruction_sets_agree_and_threads_change_no_bit(dtype):
    V, X = random(150, 70, dtype=dtype), random(150, 20, dtype=dtype, seed=1)
    G, H = random(150, 150, dtype=dtype, seed=2), random(150, 20, dtype=dtype, seed=3)

    def everything(V, X, G, H):
        found = []
        for operand, adjoint, gradient in ((None, False, G), (X, False, H), (X, True, H)):
            result = native.reflect(V, operand, adjoint)
            assert result is not None
            found += [result[0], *native.reflect_vjp(V, operand, result[1], gradient, adjoint)]
        return [T for T in found if T is not None]

    first = everything(V, X, G, H)
    for isa in native.info().isas:
        with native.use_isa(isa):
            for one, other in zip(first, everything(V, X, G, H), strict=True):
                close(one / one.abs().max(), other / one.abs().max(), 30)
    threads = torch.get_num_threads()
    batch = [T.expand(3, *T.shape).contiguous() for T in (V, X, G, H)]
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            for one, other in zip(first, everything(V, X, G, H), strict=True):
                assert torch.equal(one, other)
            for one, other in zip(first, everything(*batch), strict=True):
                assert torch.equal(one.expand_as(other), other)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.skipif(not native.available(), reason="there is no native library")
def test_gradients_that_are_not_finite_stay_so():
    V = random(6, 3).requires_grad_()
    G = torch.zeros(6, 6, dtype=torch.float64)
    G[2, 3] = torch.nan
    (g,) = torch.autograd.grad(householder_product(V), V, G)
    assert not torch.isfinite(g).all()
