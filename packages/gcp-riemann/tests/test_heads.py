"""Features, the identities between heads, and Theorem 1 in the form in which it is true."""

import pytest
import torch
from gcp_riemann import (
    LEMMLR,
    PEMMLR,
    ChoTMLR,
    LogEMLR,
    PowEMLR,
    PowTMLR,
    ScalePowEMLR,
    covariance_pooling,
    matrix_log,
    matrix_power,
    unvectorise,
    vectorise,
)
from linalg_kernels.testing import random_spd
from spd_metrics import LogCholesky, PowerEuclidean
from torch import nn

HEADS = (LogEMLR, PowEMLR, ScalePowEMLR, PowTMLR, ChoTMLR, PEMMLR, LEMMLR)
LINEAR = HEADS[:5]


def covariances(batch=3, n=5, dtype=torch.float32, seed=0):
    return random_spd(batch, n, cond=20.0, generator=torch.Generator().manual_seed(seed)).to(dtype)


# --- vectors --------------------------------------------------------------------------------


def test_upper_is_row_by_row():
    X = torch.tensor([[1.0, 2, 3], [2, 4, 5], [3, 5, 6]])
    assert vectorise(X).tolist() == [1, 2, 3, 4, 5, 6]
    assert vectorise(X, "full").tolist() == [1, 2, 3, 2, 4, 5, 3, 5, 6]


@pytest.mark.parametrize("vec", ["upper", "isometric", "full"])
def test_vectors_go_back(vec):
    X = covariances(dtype=torch.float64)
    assert torch.allclose(unvectorise(vectorise(X, vec), vec), X, rtol=1e-15)
    assert torch.autograd.gradcheck(lambda X: vectorise(X, vec), X.requires_grad_())


@pytest.mark.parametrize("vec", ["isometric", "full"])
def test_isometric_and_full_keep_inner_products(vec):
    X, Y = covariances(dtype=torch.float64), covariances(dtype=torch.float64, seed=1)
    want = (X * Y).sum((-2, -1))
    assert torch.allclose((vectorise(X, vec) * vectorise(Y, vec)).sum(-1), want)
    assert not torch.allclose((vectorise(X) * vectorise(Y)).sum(-1), want)


@pytest.mark.bad_input
def test_what_errors_of_vectors_say():
    with pytest.raises(ValueError, match="vec must be one of"):
        vectorise(torch.eye(2), "lower")  # ty: ignore[invalid-argument-type]
    with pytest.raises(ValueError, match=r"X must be \(..., n, n\), got \(2, 3\)"):
        vectorise(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="a length of vec='upper', got"):
        unvectorise(torch.zeros(2, 5))


# --- heads ----------------------------------------------------------------------------------


@pytest.mark.parametrize("head", HEADS)
def test_logits(head):
    model = head(5, 4)
    P = covariances().requires_grad_()
    logits = model(P)
    assert logits.shape == (3, 4)
    logits.logsumexp(-1).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert P.grad is not None
    assert torch.allclose(P.grad, P.grad.mT)
    assert model(P[0]).shape == (4,)


@pytest.mark.parametrize("head", LINEAR)
@pytest.mark.parametrize("vec", ["upper", "isometric", "full"])
def test_vec_of_heads(head, vec):
    model = head(5, 4, vec=vec)
    assert model.features(covariances()).shape == (3, 25 if vec == "full" else 15)
    assert model(covariances()).shape == (3, 4)


@pytest.mark.parametrize("theta", [0.3, 0.5, 1.0])
def test_powers_differ_by_a_factor_and_a_constant(theta):
    P = covariances(dtype=torch.float64)
    power, scaled, tangent = (
        head(5, 4, theta).features(P) for head in (PowEMLR, ScalePowEMLR, PowTMLR)
    )
    identity = vectorise(torch.eye(5, dtype=torch.float64))
    assert torch.equal(scaled, power / theta)
    assert torch.allclose(tangent, scaled - identity / theta, rtol=1e-14)


def test_powers_have_the_same_functions():
    """The bias takes up the constant and the weights the factor."""
    P = covariances(dtype=torch.float64)
    tangent = PowTMLR(5, 4).double()
    power = PowEMLR(5, 4).double()
    identity = vectorise(torch.eye(5, dtype=torch.float64))
    with torch.no_grad():
        power.fc.weight.copy_(2 * tangent.fc.weight)
        power.fc.bias.copy_(tangent.fc.bias - 2 * tangent.fc.weight @ identity)
    assert torch.allclose(power(P), tangent(P), rtol=1e-12)


def test_cholesky_head_is_the_logarithm_of_the_log_cholesky_metric():
    P = covariances(dtype=torch.float64)
    want = LogCholesky().log(torch.eye(5, dtype=torch.float64), P)
    got = ChoTMLR(5, 4, shift=0.0).features(P)
    assert torch.allclose(got, vectorise(want), rtol=1e-12)


@pytest.mark.parametrize("head", HEADS)
def test_singular_covariances_in_float32_and_autocast(head):
    X = torch.randn(2, 16, 4, generator=torch.Generator().manual_seed(0))
    model = head(16, 3)
    logits = model(covariance_pooling(X))
    assert logits.isfinite().all()
    with torch.autocast("cpu", torch.bfloat16):
        inside = model(covariance_pooling(X))
    assert torch.allclose(inside.float(), logits, atol=0.1)


def test_riemannian_heads_are_their_formulas():
    P = covariances(dtype=torch.float64)
    head = PEMMLR(5, 4, 0.5).double()
    nn.init.normal_(head.point)
    want = torch.einsum(
        "bkij,kij->bk", matrix_power(P)[:, None] / 0.5 - head.points(), head.normals()
    )
    assert torch.allclose(head(P), want)
    log_head = LEMMLR(5, 4, shift=0.0).double()
    nn.init.normal_(log_head.point)
    want = torch.einsum(
        "bkij,kij->bk", matrix_log(P, shift=0.0)[:, None] - log_head.points(), log_head.normals()
    )
    assert torch.allclose(log_head(P), want)
    assert torch.allclose(PEMMLR(5, 2, 0.5).points()[1], 2 * torch.eye(5))
    assert LEMMLR(5, 2).points().abs().max() == 0


@pytest.mark.bad_input
def test_what_errors_say():
    with pytest.raises(ValueError, match=r"P must be \(..., n, n\) with n=5, got \(3, 4, 4\)"):
        PowEMLR(5, 3)(torch.zeros(3, 4, 4))
    with pytest.raises(ValueError, match=r"P must be \(..., n, n\) with n=5, got \(3, 4, 4\)"):
        PEMMLR(5, 3)(torch.zeros(3, 4, 4))
    with pytest.raises(ValueError, match="classes must be >= 1, got 0"):
        LogEMLR(5, 0)
    with pytest.raises(ValueError, match="n must be >= 1, got 0"):
        LEMMLR(0, 3)


# --- Theorem 1 ------------------------------------------------------------------------------
# The Riemannian classifier of the power-Euclidean metric, with P_k stepped by Riemannian SGD
# and A_k by SGD, takes the same course as the Euclidean classifier <φ(S) - p_k, A_k> in the
# codomain of φ(S) = S^θ/θ under plain SGD. A linear layer in the same features does not.

STEPS, RATE, THETA = 8, 0.02, 0.5


def samples():
    return covariances(12, 4, torch.float64), torch.arange(12) % 3


def start():
    draws = torch.Generator().manual_seed(7)
    points = random_spd(3, 4, cond=4.0, generator=draws)
    normals = torch.randn(3, 4, 4, dtype=torch.float64, generator=draws)
    return points, 0.3 * (normals + normals.mT)


def riemannian_course():
    """Logits after each step, with P_k on the manifold itself."""
    S, y = samples()
    metric = PowerEuclidean(THETA)
    P, A = start()
    found = []
    for _ in range(STEPS):
        P, A = P.detach().requires_grad_(), A.detach().requires_grad_()
        logits = torch.einsum(
            "bkij,kij->bk",
            (matrix_power(S, THETA)[:, None] - matrix_power(P, THETA)) / THETA,
            A,
        )
        found.append(logits.detach())
        gP, gA = torch.autograd.grad(nn.functional.cross_entropy(logits, y), (P, A))
        P = metric.exp(P.detach(), -RATE * metric.gradient(P.detach(), gP))
        A = A.detach() - RATE * gA
    return torch.stack(found)


def euclidean_course(head):
    S, y = samples()
    optimiser = torch.optim.SGD(head.parameters(), RATE)
    found = []
    for _ in range(STEPS):
        logits = head(S)
        found.append(logits.detach())
        optimiser.zero_grad()
        nn.functional.cross_entropy(logits, y).backward()
        optimiser.step()
    return torch.stack(found)


def test_theorem_1_in_points_and_normals():
    points, normals = start()
    head = PEMMLR(4, 3, THETA).double()
    with torch.no_grad():
        head.point.copy_(vectorise(matrix_power(points, THETA) / THETA, "isometric"))
        head.normal.copy_(vectorise(normals, "isometric"))
    want = riemannian_course()
    assert float((want[-1] - want[0]).norm() / want[0].norm()) > 0.02
    assert torch.allclose(euclidean_course(head), want, rtol=1e-10, atol=1e-12)


def test_theorem_1_does_not_hold_for_a_linear_layer():
    points, normals = start()
    head = ScalePowEMLR(4, 3, THETA, vec="isometric").double()
    with torch.no_grad():
        head.fc.weight.copy_(vectorise(normals, "isometric"))
        p = matrix_power(points, THETA) / THETA
        head.fc.bias.copy_(-(p * normals).sum((-2, -1)))
    found, want = euclidean_course(head), riemannian_course()
    # The same function to begin with, and then another course.
    assert torch.allclose(found[0], want[0], rtol=1e-12)
    moved = float((want[-1] - want[0]).norm())
    assert float((found[-1] - want[-1]).norm()) > 0.05 * moved
