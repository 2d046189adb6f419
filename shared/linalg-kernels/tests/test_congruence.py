"""Functions of congruent matrices: values, adjoints and errors, on every road."""

import linalg_kernels as lk
import pytest
import torch
from linalg_kernels import LinAlgError, congruence, scalar
from linalg_kernels.backends import native
from linalg_kernels.testing import random_spd
from torch.testing import assert_close

DTYPES = [torch.float32, torch.float64]
ORDERS = [1, 2, 4, 5, 8, 13, 22, 33, 64, 101]
ROADS = ["torch", "native"] if native.available() else ["torch"]
ISAS = native.info().isas if native.available() else ()
# Batch shapes of the matrices and of what acts on them: one for all, one for each, and between.
SHAPES = [((19,), ()), ((3, 6), (1, 6)), ((5, 4), (5, 4)), ((2, 3), (2, 1))]
FUNCTIONS = {"log": (scalar.LOG, None), "exp": (scalar.EXP, None), "power": (scalar.POWER, 0.3)}


def draw(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator).to(dtype)


def near_identity(*shape, seed=0, dtype=torch.float64):
    n = shape[-1]
    return (torch.eye(n) + 0.3 / n**0.5 * draw(*shape, seed=seed)).to(dtype)


def spd(*shape, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return random_spd(*shape, cond=30.0, generator=generator).to(dtype)


def tolerance(dtype, n):
    return {"rtol": 0, "atol": 300 * n * torch.finfo(dtype).eps}


def exponents(name, batch, dtype):
    p = FUNCTIONS[name][1]
    return None if p is None else (p + 0.1 * draw(*batch, seed=9)).to(dtype)


def function(S, name, p):
    """f(S) by torch's own eigh."""
    w, V = torch.linalg.eigh(S)
    values = FUNCTIONS[name][0].value(w, None if p is None else p[..., None])
    return (V * values[..., None, :]) @ V.mT


def composed(W, X, K, name, p):
    """K f(W X W^T) K^T."""
    X = (X + X.mT) / 2
    return K @ function(W @ X @ W.mT, name, p) @ K.mT


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(("batch", "own"), SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("road", ROADS)
def test_carry_and_its_adjoint_are_the_composition(road, dtype, batch, own, name):
    fn = FUNCTIONS[name][0]
    for n in ORDERS[:6]:
        X = spd(*batch, n, seed=n)
        W, K, G = near_identity(*own, n, n, seed=1), draw(*own, n, n, seed=2), draw(*batch, n, n)
        p = exponents(name, batch, torch.float64)
        leaves = [X.requires_grad_()] + ([] if p is None else [p.requires_grad_()])
        wanted = composed(W, X, K, name, p)
        slopes = torch.autograd.grad(wanted, leaves, G)
        wanted = wanted.detach()
        with lk.backend(road), torch.no_grad():
            low = [T.to(dtype) for T in (W, X, K, G)]
            q = None if p is None else p.to(dtype)
            S = congruence.eigh(low[0], low[1])
            found = congruence.carry(S, low[2], fn, q)
            gX, gp = congruence.carry_vjp(S, low[2], fn, q, low[3], (True, p is not None))
        size = float(wanted.abs().max())
        assert_close(found.double() / size, wanted / size, **tolerance(dtype, n))
        assert gX is not None
        size = float(slopes[0].abs().max())
        assert_close((gX + gX.mT).double() / 2 / size, slopes[0] / size, **tolerance(dtype, n))
        if gp is not None:
            size = float(slopes[1].abs().max())
            assert_close(gp.double() / size, slopes[1] / size, **tolerance(dtype, n))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("isa", ISAS)
def test_every_instruction_set(isa, dtype):
    for n in ORDERS:
        X, W, K = spd(19, n, seed=n), near_identity(n, n, seed=1), near_identity(19, n, n, seed=2)
        p, G = 0.3 + 0.1 * draw(19, seed=9), draw(19, n, n)
        X.requires_grad_()
        wanted = composed(W, X, K, "power", p)
        (slope,) = torch.autograd.grad(wanted, X, G)
        with native.use_isa(isa), lk.backend("native"), torch.no_grad():
            S = congruence.eigh(W.to(dtype), X.to(dtype))
            found = congruence.carry(S, K.to(dtype), scalar.POWER, p.to(dtype))
            gX, _ = congruence.carry_vjp(S, K.to(dtype), scalar.POWER, p.to(dtype), G.to(dtype))
        assert gX is not None
        assert torch.equal(found, found.mT)
        assert_close(found.double(), wanted.detach(), **tolerance(dtype, 10 * n))
        assert_close(gX.double(), (slope + slope.mT) / 2, **tolerance(dtype, 10 * n))
        assert_close(S.V @ (S.w[..., None] * S.V.mT), (W @ X @ W.mT).detach().to(dtype),
                     **tolerance(dtype, 10 * n))  # fmt: skip


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize(("batch", "own"), SHAPES)
@pytest.mark.parametrize("road", ROADS)
def test_logm_and_move_with_their_derivatives(road, batch, own, inverse):
    n = 3
    X, L = spd(*batch, n), lk.cholesky(spd(*own, n, seed=3))
    with lk.backend(road):
        W = torch.linalg.inv(L) if inverse else L
        assert_close(congruence.logm(L, X, inverse=inverse), lk.logm(W @ X @ W.mT))
        p = exponents("power", batch, X.dtype)
        found = congruence.move(L, X, scalar.POWER, p, inverse=inverse)
        seen = W @ X @ W.mT if inverse else X
        assert_close(found, L @ lk.powm(seen, p) @ L.mT)
        leaves = X.requires_grad_(), L.requires_grad_()
        sym = lambda X: (X + X.mT) / 2  # noqa: E731
        for fn in (
            lambda X, L: congruence.logm(L.tril(), sym(X), inverse=inverse),
            lambda X, L: congruence.move(L.tril(), sym(X), scalar.LOG, inverse=inverse),
        ):
            assert torch.autograd.gradcheck(fn, leaves)


@pytest.mark.parametrize("road", ROADS)
def test_what_is_not_definite_is_named(road):
    X = spd(4, 3)
    for value, told in ((torch.nan, "NaN or Inf"), (-100.0, "positive")):
        bad = X.clone()
        bad[2, 0, 0] = value
        with lk.backend(road):
            for call in (congruence.eigh, congruence.logm):
                with pytest.raises(LinAlgError, match=told) as caught:
                    call(torch.eye(3, dtype=X.dtype), bad, name="sample")
                assert "sample[2]" in str(caught.value)


@pytest.mark.parametrize("road", ROADS)
@pytest.mark.bad_input
def test_shapes_that_do_not_fit_are_named(road):
    """The library would read beyond a matrix that is too small."""
    X, small, many = spd(3, 5), torch.eye(4, dtype=torch.float64), near_identity(2, 5, 5)
    S = congruence.eigh(near_identity(5, 5), X)
    with lk.backend(road):
        for wrong in (small, many, near_identity(7, 3, 5, 5)):
            for name, call in (
                ("W", lambda T: congruence.eigh(T, X)),
                ("W", lambda T: congruence.logm(T, X)),
                ("K", lambda T: congruence.carry(S, T, scalar.LOG)),
                ("G", lambda T: congruence.carry_vjp(S, X, scalar.LOG, None, T)),
            ):
                with pytest.raises(ValueError, match=f"^{name} must"):
                    call(wrong)
        for wrong in (small, many):
            with pytest.raises(ValueError, match="L"):
                congruence.move(wrong, X, scalar.EXP)
        with pytest.raises(ValueError, match=r"K \(1, 4, 4\)"):
            congruence.traces(X, small[None], small[None], scalar.LOG)


@pytest.mark.parametrize("road", ROADS)
def test_autocast_changes_nothing(road):
    X, L = spd(3, 5, dtype=torch.float32), lk.cholesky(spd(5, dtype=torch.float32, seed=1))

    def everything():
        S = congruence.eigh(L, X)
        return [
            congruence.logm(L, X),
            congruence.move(L, X, scalar.POWER, 0.5),
            congruence.carry(S, L, scalar.LOG),
            congruence.carry_vjp(S, L, scalar.LOG, None, X)[0],
            congruence.traces(X, L[None], X[:1], scalar.LOG)[0],
        ]

    with lk.backend(road):
        wanted = everything()
        with torch.autocast("cpu", torch.bfloat16):
            found = everything()
    for one, other in zip(found, wanted, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("road", ROADS)
def test_neighbours_of_a_lost_matrix_keep_their_values(road):
    """A power of what is not definite is NaN there and nowhere else."""
    L, X = lk.cholesky(spd(3)), spd(9, 3)
    bad = X.clone()
    bad[4] = -bad[4]
    with lk.backend(road):
        p = torch.full((9,), 0.5, dtype=X.dtype)
        good = congruence.move(L, X, scalar.POWER, p)
        found = congruence.move(L, bad, scalar.POWER, p)
    assert found[4].isnan().all()
    keep = [i for i in range(9) if i != 4]
    assert_close(found[keep], good[keep], rtol=1e-13, atol=1e-13)


@pytest.mark.skipif(len(ISAS) < 2, reason="one instruction set")
def test_what_another_instruction_set_has_packed():
    W, X, K, G = near_identity(4, 4), spd(19, 4), draw(4, 4, seed=2), draw(19, 4, 4)
    with torch.no_grad(), lk.backend("native"):
        with native.use_isa(ISAS[-1]):
            S = congruence.eigh(W, X)
        found = congruence.carry(S, K, scalar.LOG), *congruence.carry_vjp(S, K, scalar.LOG, None, G)
        S = congruence.eigh(W, X)
        again = congruence.carry(S, K, scalar.LOG), *congruence.carry_vjp(S, K, scalar.LOG, None, G)
    assert_close(found, again)


@pytest.mark.parametrize("road", ROADS)
@pytest.mark.parametrize("shape", [(0, 3, 3), (2, 0, 3, 3), (2, 0, 0)])
def test_empty(road, shape):
    X = torch.empty(shape, dtype=torch.float64)
    W = torch.eye(shape[-1], dtype=X.dtype)
    with lk.backend(road):
        assert congruence.logm(W, X).shape == shape
        assert congruence.move(W, X, scalar.EXP).shape == shape
        S = congruence.eigh(W, X)
        assert congruence.carry(S, W, scalar.LOG).shape == shape


@pytest.mark.skipif(not native.available(), reason="no native library")
@pytest.mark.parametrize("threads", [2, 3])
def test_threads_change_nothing(threads):
    W, K = near_identity(6, 6), draw(6, 6, seed=2)
    X, G = spd(5 * native.WIDEST + 3, 6), draw(5 * native.WIDEST + 3, 6, 6)

    def everything():
        S = congruence.eigh(W, X)
        p = X.new_full(X.shape[:-2], 0.3)
        return [congruence.carry(S, K, scalar.POWER, p),
                *congruence.carry_vjp(S, K, scalar.POWER, p, G, (True, True))]  # fmt: skip

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        wanted = everything()
        torch.set_num_threads(threads)
        for found, one in zip(everything(), wanted, strict=True):
            assert torch.equal(found, one)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("name", ["log", "exp"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("road", ROADS)
def test_traces_of_every_pair(road, dtype, name):
    fn = FUNCTIONS[name][0]
    for n in ORDERS[:8]:
        X, K = spd(5, n, seed=n), near_identity(4, n, n, seed=1)
        A = draw(4, n, n, seed=2)
        A = A + A.mT
        M = (K.mT[:, None] @ X @ K[:, None]).requires_grad_()
        F = function(M, name, None)
        wanted = (A[:, None] * F).sum((-2, -1))
        (D,) = torch.autograd.grad(wanted.sum(), M)
        with lk.backend(road):
            low = [T.to(dtype) for T in (X, K, A)]
            trace, value, slope = congruence.traces(
                low[0], low[1], low[2], fn, value=True, derivative=True
            )
            assert torch.equal(congruence.traces(low[0], low[1], low[2], fn)[0], trace)
        size = float(wanted.detach().abs().max())
        assert_close(trace.double() / size, wanted.detach() / size, **tolerance(dtype, n))
        for found, expected in ((value, F.detach()), (slope, (D + D.mT) / 2)):
            assert found is not None
            size = float(expected.abs().max())
            assert_close(found.double() / size, expected / size, **tolerance(dtype, n))


@pytest.mark.parametrize("road", ROADS)
def test_traces_of_what_is_not_definite(road):
    X, K, A = spd(9, 3), near_identity(2, 3, 3), torch.eye(3, dtype=torch.float64).expand(2, 3, 3)
    bad = X.clone()
    bad[4], bad[6] = -bad[4], torch.nan
    with lk.backend(road):
        found, _, D = congruence.traces(bad, K, A, scalar.LOG, derivative=True)
        good = congruence.traces(X, K, A, scalar.LOG)[0]
    assert not found[:, [4, 6]].isfinite().any()
    assert D is not None
    keep = [i for i in range(9) if i not in (4, 6)]
    assert D[:, keep].isfinite().all()
    assert_close(found[:, keep], good[:, keep], rtol=1e-13, atol=1e-13)


@pytest.mark.skipif(not native.available(), reason="no native library")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("isa", ISAS)
def test_what_a_look_finds(isa, dtype):
    with native.use_isa(isa):
        for n in ORDERS:
            X = spd(19, n, dtype=dtype)
            assert native.inspect(X, 1e-3) == 0
            lost = X.clone()
            lost[7, n - 1, 0] = torch.inf
            assert native.inspect(lost, 1e-3) & native.NOT_FINITE
            if n > 1:
                X[18, 0, n - 1] += 0.1 * X[18].abs().max()
                assert native.inspect(X, 1e-3) == native.ASYMMETRIC
                assert native.inspect(X, 0.5) == 0
