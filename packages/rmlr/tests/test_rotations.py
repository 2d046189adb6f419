"""Classification of rotations: values and gradients from angle 0 to π, products, invariances."""

import math

import pytest
import torch
from linalg_kernels import LinAlgError, so_exp, so_log
from rmlr import LieMLR, lie_scores
from rmlr.rotations import skew, unskew


def draw(n=3, samples=4, classes=2, product=(), seed=0):
    generator = torch.Generator().manual_seed(seed)
    m = n * (n - 1) // 2

    def numbers(*shape):
        return torch.randn(*shape, *product, m, generator=generator, dtype=torch.float64)

    return so_exp(skew(numbers(samples))), so_exp(skew(numbers(classes))), skew(numbers(classes))


def near(got, want, rtol=1e-12):
    assert float((got - want).detach().abs().max()) <= rtol * float(want.detach().abs().max())


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_formula(n):
    R, P, A = draw(n)
    want = torch.stack(
        [torch.stack([torch.trace(so_log(p.mT @ r).mT @ a) for p, a in zip(P, A, strict=True)])
         for r in R]
    )  # fmt: skip
    near(lie_scores(R, P, A), want)


@pytest.mark.parametrize("n", [3, 4])
def test_invariances(n):
    R, P, A = draw(n)
    Q = draw(n, seed=1)[0][0]
    near(lie_scores(Q @ R, Q @ P, A), lie_scores(R, P, A), 1e-11)
    near(lie_scores(R @ Q, P @ Q, Q.mT @ A @ Q), lie_scores(R, P, A), 1e-11)
    assert float(lie_scores(P, P, A).diagonal().abs().max()) < 1e-14


def at_angle(n, angle, count=10):
    """Points, and rotations that the angle separates from them in one plane (two for n >= 4)."""
    generator = torch.Generator().manual_seed(3)
    frames, _ = torch.linalg.qr(torch.randn(count, n, n, generator=generator, dtype=torch.float64))
    S = torch.zeros(count, n, n, dtype=torch.float64)
    S[:, 1, 0] = angle
    if n >= 4:
        S[:, 3, 2] = angle / 3
    S = S - S.mT
    S = frames @ S @ frames.mT
    P = draw(n, classes=1)[1]
    return P[0] @ so_exp(S), P, S


@pytest.mark.parametrize("n", [3, 4, 5])
@pytest.mark.parametrize(
    "angle", [0.0, 1e-10, 1e-6, 1e-2, 1.0, 3.0, math.pi - 1e-4, math.pi - 1e-8]
)
def test_every_angle(n, angle):
    R, P, S = at_angle(n, angle)
    A = draw(n, classes=1, seed=5)[2]
    R = R.requires_grad_()
    got = lie_scores(R, P, A)[:, 0]
    want = (S * A).sum((-2, -1))
    # Rounding of R itself moves the logarithm by eps; for n > 3 planes near π are less certain.
    tolerance = 1e-14 if n == 3 or angle < 3.1 else 1e-7
    assert float((got - want).detach().abs().max()) < tolerance * 40
    (gradient,) = torch.autograd.grad(got.sum(), R)
    assert bool(gradient.isfinite().all())
    # Along R exp(tX) the score changes by the tangential part; by finite differences.
    X = draw(n, classes=1, seed=6)[2][0]
    h = 1e-5 if 1e-4 < angle < 3.1 else 1e-7
    if angle > 3.1:
        # One-sided, towards smaller angles: at π the logarithm jumps.
        X, h = -S / angle, 1e-3
        ends = lie_scores(R.detach() @ so_exp(h * X), P, A)[:, 0]
        slope = (ends - got.detach()) / h
    else:
        ends = [lie_scores(R.detach() @ so_exp(s * h * X), P, A)[:, 0] for s in (1, -1)]
        slope = (ends[0] - ends[1]) / (2 * h)
    along = (gradient * (R.detach() @ X)).sum((-2, -1))
    assert float((along - slope).abs().max()) < 1e-5 * float(A.abs().max())


def test_products_are_sums():
    product = (2, 5)
    R, _, A = draw(samples=6, classes=3, product=product)
    P = draw(samples=6, classes=3, product=(2,))[1]
    parts = [lie_scores(R[:, i, j], P[:, i], A[:, i, j]) for i in range(2) for j in range(5)]
    want = torch.stack(parts).sum(0)
    near(lie_scores(R, P, A), want)
    near(lie_scores(R, P, A, memory=4000), want)
    near(lie_scores(R.view(2, 3, *R.shape[1:]), P, A), want.view(2, 3, 3))
    shared = P[:, :, None].expand(3, 2, 1, 3, 3)
    near(lie_scores(R, shared, A), want)


def test_gradients():
    R, P, A = draw(product=(2,), samples=2)
    R = unskew(so_log(R)).requires_grad_()
    P, A = unskew(so_log(P)).requires_grad_(), unskew(A).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda R, P, A: lie_scores(so_exp(skew(R)), so_exp(skew(P)), skew(A)), (R, P, A)
    )


def test_module():
    torch.manual_seed(0)
    mlr = LieMLR(3, 4, product=(2,), shared=(5,), dtype=torch.float64)
    assert mlr.normal.shape == (4, 2, 5, 3)
    assert mlr.location.shape == (4, 2, 3)
    assert float(mlr.normal.detach().abs().max()) <= math.sqrt(6 / 90)
    R, _, A = draw(samples=6, classes=4, product=(2, 5))
    P = draw(samples=1, classes=4, product=(2,))[1]
    mlr.P, mlr.A = P, A
    near(mlr.P, P)
    near(mlr.A, A)
    near(mlr(R), lie_scores(R, P, A))
    y = torch.arange(6) % 4
    steps = torch.optim.Adam(mlr.parameters(), lr=0.05)
    losses = []
    for _ in range(20):
        steps.zero_grad()
        loss = torch.nn.functional.cross_entropy(mlr(R), y)
        loss.backward()
        steps.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


def test_float32():
    R, P, A = draw()
    single = lie_scores(R.float(), P.float(), A.float())
    near(single.double(), lie_scores(R, P, A), 1e-5)


@pytest.mark.bad_input
def test_bad_input_is_named():
    R, P, A = draw()
    bad = R.clone()
    bad[2] *= 1.1
    with pytest.raises(ValueError, match=r"R\[2\] must be orthogonal"):
        lie_scores(bad, P, A)
    with pytest.raises(ValueError, match=r"P\[0\] must be a rotation, but has determinant -1"):
        lie_scores(R, -P, A)
    with pytest.raises(ValueError, match=r"A\[0\] must be skew-symmetric"):
        lie_scores(R, P, A.abs())
    with pytest.raises(ValueError, match=r"R must be \(..., 2, 3, 3\)"):
        lie_scores(R, P, A[:, None].expand(2, 2, 3, 3))
    with pytest.raises(ValueError, match=r"P must be \(2, ..., 3, 3\)"):
        lie_scores(R, P[:1], A)
    half_turn = torch.diag(torch.tensor([-1.0, -1, 1, 1])).double()
    with pytest.raises(LinAlgError, match=r"R\[0\] seen from P\[0\] turns a plane by π"):
        lie_scores(half_turn[None], torch.eye(4)[None].double(), torch.zeros(1, 4, 4).double())
    with pytest.raises(ValueError, match="n must be >= 2"):
        LieMLR(1, 3)
    with pytest.raises(ValueError, match="classes must be >= 1"):
        LieMLR(3, 0)
    mlr = LieMLR(3, 2, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"P must be \(2, 3, 3\)"):
        mlr.P = R
    with pytest.raises(ValueError, match=r"A must be \(2, 3, 3\)"):
        mlr.A = R
