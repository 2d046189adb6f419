import pytest
import torch
from linalg_kernels import backend, from_chol_log
from linalg_kernels.backends import native
from linalg_kernels.inner import inner_products, inner_products_at
from linalg_kernels.packed import symmetric, triangular

DTYPES = [torch.float32, torch.float64]
HAS_NATIVE = pytest.mark.skipif(not native.available(), reason="there is no native library")
BY = ["torch", pytest.param("native", marks=HAS_NATIVE)]
SIZES = [(1, 1, 1), (3, 2, 5), (49, 7, 17), (100, 8, 117), (5, 33, 48)]


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def operands(b, n, c, dtype=torch.float64):
    m = n * (n + 1) // 2
    X, w, minus, z = random(b, n, n), random(c, m, seed=1), random(c, seed=2), random(c, m, seed=3)
    return [T.to(dtype) for T in (X, w, minus, z / n)]


def by_entries(X, w, minus, lower):
    W = triangular(w) if lower else symmetric(w)
    products = torch.einsum("bij,cij->bc", X, W)
    return products if minus is None else products - minus


def held_to(fn, by, inputs, expected, G):
    """Value and gradients of fn, to those of `expected` in float64."""
    exact = [T.double().requires_grad_() for T in inputs]
    wanted = expected(*exact)
    leaves = [T.clone().requires_grad_() for T in inputs]
    with backend(by):
        found = fn(*leaves)
        gradients = torch.autograd.grad(found, leaves, G)
        with torch.no_grad():
            assert torch.equal(fn(*inputs), found)
    pairs = [(found, wanted), *zip(gradients, torch.autograd.grad(wanted, exact, G.double()),
                                   strict=True)]  # fmt: skip
    for got, right in pairs:
        allowed = 60 * torch.finfo(got.dtype).eps * float(right.detach().abs().max())
        torch.testing.assert_close(got.double(), right, rtol=0, atol=allowed)
    return found.grad_fn.name()


@pytest.mark.parametrize("by", BY)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("lower", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_products_and_gradients_are_sums_over_entries(size, lower, dtype, by):
    X, w, minus, _ = operands(*size, dtype=dtype)
    G = random(size[0], size[2], seed=4, dtype=dtype)
    with_minus = held_to(
        lambda X, w, minus: inner_products(X, w, minus, lower=lower), by, (X, w, minus),
        lambda X, w, minus: by_entries(X, w, minus, lower), G,
    )  # fmt: skip
    held_to(
        lambda X, w: inner_products(X, w, lower=lower), by, (X, w),
        lambda X, w: by_entries(X, w, None, lower), G,
    )  # fmt: skip
    assert (with_minus == "_ProductsBackward") == (by == "native")


@pytest.mark.parametrize("by", BY)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
def test_products_at_points_are_those_of_differences(size, dtype, by):
    X, w, _, z = operands(*size, dtype=dtype)
    G = random(size[0], size[2], seed=4, dtype=dtype)

    def expected(X, w, z):
        differences = X[:, None] - from_chol_log(triangular(z))
        return torch.einsum("bcij,cij->bc", differences, symmetric(w))

    taken = held_to(inner_products_at, by, (X, w, z), expected, G)
    assert (taken == "_ProductsAtBackward") == (by == "native")


@pytest.mark.parametrize("by", BY)
def test_gradients_of_some_and_second_derivatives(by):
    X, w, minus, z = operands(2, 3, 4)
    with backend(by):
        for at in range(3):
            for fn, inputs in ((inner_products, (X, w, minus)), (inner_products_at, (X, w, z))):
                leaves = [T.clone().requires_grad_(k == at) for k, T in enumerate(inputs)]
                assert torch.autograd.gradcheck(fn, leaves)
                every = [T.clone().requires_grad_() for T in inputs]
                (one,) = torch.autograd.grad(fn(*leaves).sum(), leaves[at])
                torch.testing.assert_close(
                    one, torch.autograd.grad(fn(*every).sum(), every)[at], rtol=1e-13, atol=1e-13
                )
        for fn, inputs in ((inner_products, (X, w, minus)), (inner_products_at, (X, w, z))):
            assert torch.autograd.gradgradcheck(fn, [T.clone().requires_grad_() for T in inputs])


@pytest.mark.parametrize("by", BY)
def test_layouts_and_transforms(by):
    X, w, minus, z = operands(4, 3, 5)
    right = by_entries(X, w, minus, False)
    with backend(by):
        torch.testing.assert_close(inner_products(X.mT, w, minus), right)
        torch.testing.assert_close(inner_products(X, w.mT.contiguous().mT, minus), right)
        each = torch.func.vmap(lambda x: inner_products(x[None], w, minus)[0])(X)
        torch.testing.assert_close(each, right)
        jacobian = torch.func.jacrev(inner_products_at, argnums=2)(X, w, z)
        forward = torch.func.jacfwd(inner_products_at, argnums=2)(X, w, z)
        torch.testing.assert_close(jacobian, forward)


@pytest.mark.parametrize("by", BY)
def test_nothing_is_a_sum_of_nothing_and_nan_stays_where_it_is(by):
    X, w, minus, z = operands(3, 2, 4)
    with backend(by):
        assert inner_products(X[:0], w, minus).shape == (0, 4)
        assert inner_products(X, w[:0], minus[:0]).shape == (3, 0)
        assert inner_products_at(X[:0], w, z).shape == (0, 4)
        X[1, 0, 0] = torch.nan
        found = inner_products(X, w, minus)
    assert found.isnan().any(1).tolist() == [False, True, False]


@pytest.mark.bad_input
def test_bad_input_is_named():
    X, w, _, z = operands(3, 2, 4)
    with pytest.raises(
        ValueError, match=r"w \(c, n \(n \+ 1\) / 2\), got \(3, 2, 2\) and \(4, 2\)"
    ):
        inner_products(X, w[:, :2])
    with pytest.raises(ValueError, match="z must be"):
        inner_products_at(X, w, z[:2])


@HAS_NATIVE
@pytest.mark.parametrize("dtype", DTYPES)
def test_instruction_sets_agree_and_threads_change_no_bit(dtype):
    X, w, minus, z = operands(150, 9, 70, dtype=dtype)
    G = random(150, 70, seed=5, dtype=dtype)

    def everything():
        scores, x = native.inner_products(X, w, minus)
        at, kept = native.inner_products_at(X, w, z)
        found = [scores, *native.inner_products_vjp(x, w, G, 9)]
        found += [at, *native.inner_products_at_vjp(kept, w, G, 9)]
        return [T for T in found if T is not None]

    first = everything()
    for isa in native.info().isas:
        with native.use_isa(isa):
            for one, other in zip(first, everything(), strict=True):
                scale = one.abs().max()
                torch.testing.assert_close(
                    one / scale, other / scale, rtol=0, atol=30 * torch.finfo(dtype).eps
                )
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            for one, other in zip(first, everything(), strict=True):
                assert torch.equal(one, other)
    finally:
        torch.set_num_threads(threads)
