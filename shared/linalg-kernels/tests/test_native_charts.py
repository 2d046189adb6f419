"""Cholesky charts, distances of factors, and the other fused calls, by the native library."""

import linalg_kernels as lk
import pytest
import torch
from linalg_kernels import daleckii_krein, scalar
from linalg_kernels.backends import native, select
from linalg_kernels.backends import torch as reference

pytestmark = pytest.mark.skipif(not native.available(), reason=native.why_unavailable())

DTYPES = [torch.float32, torch.float64]
ISAS = native.info().isas if native.available() else ()
ORDERS = [1, 2, 3, 4, 5, 8, 13, 22, 33, 64, 101]
CHARTS = {
    "log": (native.LOG_DIAGONAL, 0.0, lk.chol_log),
    "root": (native.POWER_DIAGONAL, 0.5, lambda A: lk.chol_power(A, 0.5)),
    "negative": (native.POWER_DIAGONAL, -1.25, lambda A: lk.chol_power(A, -1.25)),
}


def random(*shape, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator).to(dtype)


def random_spd(*shape, dtype=torch.float64, seed=0):
    X = random(*shape, 2 * shape[-1], seed=seed)
    return (X @ X.mT / shape[-1]).to(dtype)


def close(found, wanted, ulps):
    eps = torch.finfo(found.dtype).eps
    wanted = wanted.double()
    size = wanted.flatten(1).norm(dim=1) + 1e-3
    error = (found.double() - wanted).flatten(1).norm(dim=1) / size
    assert error.max() <= ulps * eps, f"{error.max() / eps:.3g} ulp"


def composed(fn, *inputs, G):
    """Value and gradients along the road of plain torch, in float64."""
    with lk.backend("torch"):
        leaves = [T.double().clone().requires_grad_() for T in inputs]
        value = fn(*leaves)
        return value.detach(), torch.autograd.grad(value, leaves, G.double())


@pytest.mark.parametrize("name", CHARTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("isa", ISAS)
def test_charts_and_their_gradients(name, isa, dtype):
    chart, exponent, fn = CHARTS[name]
    for n in ORDERS:
        A, G = random_spd(19, n, dtype=dtype, seed=n), random(19, n, n, dtype=dtype, seed=1)
        wanted, (gA,) = composed(fn, A, G=G)
        with native.use_isa(isa):
            X, L, found = native.cholesky_chart(A, chart, exponent)
            got = native.cholesky_vjp(L, G, chart, exponent)
        assert found == 0
        close(X, wanted, 100 * n)
        close(got, gA, 1000 * n)
        assert torch.equal(got, got.mT)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("isa", ISAS)
def test_the_inverse_of_the_log_chart(isa, dtype):
    for n in ORDERS:
        X, G = random(19, n, n, dtype=dtype, seed=n), random(19, n, n, dtype=dtype, seed=1)
        wanted, (gX,) = composed(lk.from_chol_log, X, G=G)
        with native.use_isa(isa):
            A, got = native.from_chol_log(X), native.from_chol_log_vjp(X, G)
        close(A, wanted, 10 * n)
        close(got, gX, 10 * n)
        assert (got.triu(1) == 0).all()


@pytest.mark.parametrize("choice", ["torch", "native"])
def test_public_charts_take_either_road(choice):
    A = random_spd(5, 4).requires_grad_()
    X = random(5, 4, 4).requires_grad_()
    with lk.backend(choice):
        for fn in (lk.chol_log, lambda A: lk.chol_power(A, 0.7)):
            assert torch.autograd.gradcheck(fn, A)
            assert torch.autograd.gradgradcheck(fn, A)
        assert torch.autograd.gradcheck(lk.from_chol_log, X)
        assert torch.autograd.gradgradcheck(lk.from_chol_log, X)
        torch.testing.assert_close(lk.from_chol_log(lk.chol_log(A)), A)
        road = lk.chol_log(A).grad_fn
        assert road is not None
        assert (road.name() == "_ChartBackward") == (choice == "native")


def test_charts_read_the_lower_triangle_when_asked():
    A = random_spd(6, 5)
    wanted = lk.chol_log(A)
    torch.testing.assert_close(lk.chol_log(A.tril(), symmetrize=False), wanted)
    leaf = A.tril().requires_grad_()
    lk.chol_log(leaf, symmetrize=False).sum().backward()
    assert leaf.grad is not None
    assert torch.equal(leaf.grad, leaf.grad.mT)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_a_bad_matrix_is_named_and_leaves_its_neighbours_alone(value):
    A = random_spd(20, 4)
    good = native.cholesky_chart(A, native.LOG_DIAGONAL)[0]
    A[7, 2, 2] = value
    X, L, found = native.cholesky_chart(A, native.LOG_DIAGONAL)
    assert found & native.NOT_POSITIVE
    assert X[7].isnan().all()
    assert L[7].isnan().all()
    rest = [i for i in range(20) if i != 7]
    assert torch.equal(X[rest], good[rest])
    with pytest.raises(lk.LinAlgError, match=r"A\[7\]"):
        lk.chol_log(A)
    P = random_spd(20, 4)
    d = native.cholesky_distance(P, A, 0.0, torch.ones(4, dtype=torch.float64))
    assert d.found & native.NOT_POSITIVE
    assert d.value[7].isnan()
    assert d.value[rest].isfinite().all()


def distance(a, roots):
    """The definition."""

    def h(x):
        return torch.log(x) if a == 0 else (x**a - 1) / a

    def fn(P, Q):
        L, K = torch.linalg.cholesky(P), torch.linalg.cholesky(Q)
        diagonal = [h(F.diagonal(dim1=-2, dim2=-1)) for F in (L, K)]
        R = (K - L).tril(-1) + torch.diag_embed(roots.double() * (diagonal[1] - diagonal[0]))
        return torch.linalg.matrix_norm(R)

    return fn


@pytest.mark.parametrize("a", [0.0, 0.5, -0.75, 2.0])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("isa", ISAS)
def test_distances_of_factors_and_their_gradients(a, isa, dtype):
    for n in ORDERS:
        P, Q = (random_spd(19, n, dtype=dtype, seed=2 * n + i) for i in range(2))
        roots = torch.linspace(0.5, 2, n, dtype=dtype)
        g = random(19, dtype=dtype, seed=3)
        wanted, (gP, gQ) = composed(distance(a, roots), P, Q, G=g)
        with native.use_isa(isa):
            d = native.cholesky_distance(P, Q, a, roots)
            assert d.L is not None
            assert d.K is not None
            got = native.cholesky_distance_vjp((d.value, d.L, d.K), g, a, roots)
            only = native.cholesky_distance_vjp(
                (d.value, d.L, d.K), g, a, roots, wanted=(False, True)
            )
            short = native.cholesky_distance(P, Q, a, roots, factors=False)
        assert d.found == 0
        close(d.value[:, None], wanted[:, None], 300 * n)
        for found, expected in zip(got, (gP, gQ), strict=True):
            assert found is not None
            close(found, (expected + expected.mT) / 2, 3000 * n)
        assert only[0] is None
        assert only[1] is not None
        assert got[1] is not None
        assert torch.equal(only[1], got[1])
        assert short.L is None
        assert torch.equal(short.value, d.value)


def test_a_distance_of_zero_has_gradient_zero():
    P = random_spd(6, 5)
    roots = torch.ones(5, dtype=torch.float64)
    d = native.cholesky_distance(P, P, 0.5, roots)
    assert (d.value == 0).all()
    assert d.L is not None
    assert d.K is not None
    for G in native.cholesky_distance_vjp(
        (d.value, d.L, d.K), torch.ones_like(d.value), 0.5, roots
    ):
        assert G is not None
        assert (G == 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("isa", ISAS)
def test_gradients_of_eigensystems(isa, dtype):
    for n in ORDERS:
        A = random_spd(19, n, dtype=dtype, seed=n)
        gw, gV = random(19, n, dtype=dtype, seed=1), random(19, n, n, dtype=dtype, seed=2)
        w, V = (T.to(dtype) for T in torch.linalg.eigh(A.double()))
        gap = w.double()[:, None, :] - w.double()[:, :, None]
        inverse = torch.where(gap == 0, 0, 1 / gap)
        W = V.double()
        for use_w, use_V in ((True, True), (True, False), (False, True)):
            inner = torch.diag_embed(gw.double()) * use_w + (W.mT @ gV.double()) * inverse * use_V
            wanted = W @ (inner + inner.mT) @ W.mT / 2
            with native.use_isa(isa):
                got = native.eigh_vjp(w, V, gw if use_w else None, gV if use_V else None)
            close(got, wanted, 100 * n)
            assert torch.equal(got, got.mT)


@pytest.mark.parametrize("choice", ["torch", "native"])
def test_tied_eigenvalues_have_finite_gradients(choice):
    A = torch.diag(torch.tensor([1.0, 1.0, 2.0, 2.0], dtype=torch.float64)).expand(3, 4, 4).clone()
    A.requires_grad_()
    with lk.backend(choice):
        w, V = lk.eigh(A)
        # A projector onto the upper eigenspace: (A - 1) there and then.
        P = V[..., 2:] @ V[..., 2:].mT
        (g,) = torch.autograd.grad((P * random(4, 4)).sum() + w.sum(), A)
    C = (random(4, 4) + random(4, 4).mT) / 2
    wanted = torch.eye(4, dtype=torch.float64)
    wanted[:2, 2:], wanted[2:, :2] = C[:2, 2:], C[2:, :2]
    torch.testing.assert_close(g, wanted.expand(3, 4, 4))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    "fn", [scalar.LOG, scalar.POWER, scalar.Clamp(0.5)], ids=["log", "power", "clamp"]
)
def test_one_base_point_for_many_directions(fn, isa, dtype):
    for n in ORDERS:
        A, E = random_spd(n, dtype=dtype, seed=n), random(3, 19, n, n, dtype=dtype, seed=1)
        w, V = torch.linalg.eigh(A.double())
        p = torch.tensor(0.3, dtype=torch.float64) if fn is scalar.POWER else None
        wanted = reference.frechet(w, V, E.double(), p, fn)
        p = None if p is None else p.to(dtype)
        with native.use_isa(isa), lk.backend("native"):
            got = select.frechet(w.to(dtype), V.to(dtype), E, p, fn)
        assert got.shape == E.shape
        close(got.flatten(0, 1), wanted.flatten(0, 1), 300 * n)


def test_a_table_may_serve_many_directions():
    w, V = torch.linalg.eigh(random_spd(5))
    E = random(19, 5, 5)
    table = native.Function(native.TABLE, reference.kernel(w, None, scalar.LOG))
    wanted = native.frechet(w, V, E, native.Function(native.LOG))
    torch.testing.assert_close(native.frechet(w, V, E, table), wanted)


def test_derivatives_with_one_base_point():
    A, E = random_spd(4).requires_grad_(), random(6, 4, 4).requires_grad_()
    for choice in ("torch", "native"):
        with lk.backend(choice):
            assert torch.autograd.gradcheck(lambda A, E: lk.frechet(A, E, "log"), (A, E))
            with torch.no_grad():
                many = lk.frechet(A, E, 0.5)
                one = torch.stack([lk.frechet(A, e, 0.5) for e in E])
            torch.testing.assert_close(many, one)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("isa", ISAS)
def test_functions_of_congruences(isa, dtype):
    for n in ORDERS:
        X = random_spd(2, 19, n, dtype=dtype, seed=n)
        C = (torch.eye(n) + 0.3 / n**0.5 * random(2, 1, n, n, seed=1)).to(dtype)
        seen = C.double() @ X.double() @ C.double().mT
        with lk.backend("torch"):
            wanted = lk.logm(seen)
        with native.use_isa(isa):
            F, w, found = native.spectral_of_congruence(C, X, native.Function(native.LOG))
        assert found == 0
        condition = torch.linalg.cond(seen).max() * torch.linalg.cond(C.double()).max()
        close(F.flatten(0, 1), wanted.flatten(0, 1), 10 * n * float(condition))
        close(w.sort(-1).values.flatten(0, 1), torch.linalg.eigvalsh(seen).flatten(0, 1), 3000)


def test_directions_keep_the_power_of_their_base_point():
    """The exponent of a batch of base points broadcasts with directions."""
    A, E = random_spd(3, 1, 4).requires_grad_(), random(7, 4, 4)
    p = torch.tensor([[0.5], [1.5], [-0.5]], dtype=torch.float64)
    with torch.no_grad():
        _, w, V = daleckii_krein.spectral(A, p, scalar.POWER)
    got = daleckii_krein.frechet(A, E, p, w, V, scalar.POWER)
    assert got.shape == (3, 7, 4, 4)
    for i in range(3):
        torch.testing.assert_close(got[i].detach(), lk.frechet(A[i, 0].detach(), E, float(p[i])))


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("dtype", DTYPES)
def test_results_do_not_depend_on_threads_or_neighbours(dtype, threads):
    n, count = 7, 5 * native.WIDEST + 3
    P, Q = (random_spd(count, n, dtype=dtype, seed=i) for i in range(2))
    g, roots = torch.ones(count, dtype=dtype), torch.ones(n, dtype=dtype)
    w, V = native.eigh(P)[:2]

    def everything(keep):
        p, q = P[keep], Q[keep]
        d = native.cholesky_distance(p, q, 0.5, roots)
        assert d.L is not None
        assert d.K is not None
        return [
            *native.cholesky_chart(p, native.LOG_DIAGONAL)[:2],
            native.from_chol_log(q),
            native.from_chol_log_vjp(p, q),
            d.value,
            *native.cholesky_distance_vjp((d.value, d.L, d.K), g[keep], 0.5, roots),
            native.eigh_vjp(w[keep], V[keep], None, q),
            native.frechet(w[0], V[0], q, native.Function(native.EXP)),
            native.spectral_of_congruence(P[0], q, native.Function(native.LOG))[0],
        ]

    before = torch.get_num_threads()
    wanted = everything(slice(None))
    try:
        torch.set_num_threads(threads)
        for keep in (slice(None), slice(3, 8)):
            for found, expected in zip(everything(keep), wanted, strict=True):
                assert found is not None
                assert expected is not None
                assert torch.equal(found, expected[keep])
    finally:
        torch.set_num_threads(before)
