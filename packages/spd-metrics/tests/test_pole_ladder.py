"""Bures-Wasserstein transport beside its differential equation and the ladder of textbooks."""

import pytest
import torch
from linalg_kernels import ConvergenceWarning, lyapunov, sqrtm
from linalg_kernels.testing import random_spd
from spd_metrics import BuresWasserstein
from torch.autograd import gradcheck, gradgradcheck

METRIC = BuresWasserstein()


def draw(n, cond, seed=0, count=4):
    generator = torch.Generator().manual_seed(seed)
    P, Q, S = (random_spd(count, n, cond=cond, generator=generator) for _ in range(3))
    return P, Q, S - Q.flip(0)


def relative(got, want):
    return float((torch.linalg.matrix_norm(got - want) / torch.linalg.matrix_norm(want)).max())


def integrated(P, Q, V, steps):
    """V = S X + X S is parallel along X = T P T, T = I + t D, where X S' + S' X = -2 sym(S D X)."""
    identity = torch.eye(P.shape[-1], dtype=P.dtype)
    root = sqrtm(P)
    inverse = torch.linalg.inv(root)
    D = inverse @ sqrtm(root @ Q @ root) @ inverse - identity

    def slope(S, t):
        T = identity + t * D
        X = T @ P @ T
        K = S @ T.inverse() @ D @ X
        return -lyapunov(X, K + K.mT)

    S, h = lyapunov(P, V), 1 / steps
    for k in range(steps):
        t = k * h
        first = slope(S, t)
        second = slope(S + h / 2 * first, t + h / 2)
        third = slope(S + h / 2 * second, t + h / 2)
        last = slope(S + h * third, t + h)
        S = S + h / 6 * (first + 2 * second + 2 * third + last)
    return S @ Q + Q @ S


@pytest.mark.parametrize("n", [2, 3, 6])
def test_the_equation_of_parallel_fields(n):
    P, Q, V = draw(n, cond=10.0)
    assert relative(METRIC.transport(P, Q, V), integrated(P, Q, V, 100)) < 1e-7


def test_the_ladder_of_geodesics():
    # Parallelograms: the pole is reached through the middle of each piece of the way.
    P, Q, V = draw(4, cond=5.0)
    errors = []
    for rungs in (4, 8):
        W, small = V, 1e-5
        for k in range(rungs):
            here, middle, there = (
                METRIC.geodesic(P, Q, t / rungs) for t in (k + 0.0, k + 0.5, k + 1.0)
            )
            start = METRIC.exp(here, small * W)
            pole = METRIC.exp(middle, -METRIC.log(middle, start))
            W = -METRIC.log(there, pole) / small
        errors.append(relative(W, METRIC.transport(P, Q, V)))
    assert errors[0] < 1e-2
    # Of second order in the length of the rungs.
    assert 3.5 < errors[0] / errors[1] < 4.5


@pytest.mark.parametrize("cond", [1e4, 1e8])
def test_near_points_that_are_ill_conditioned(cond):
    P, _, V = draw(5, cond)
    L = torch.linalg.cholesky(P)
    V = L @ V @ L.mT / 100
    Q = METRIC.exp(P, 0.3 * L @ (V / torch.linalg.matrix_norm(V)[:, None, None]) @ L.mT)
    W = METRIC.transport(P, Q, V)
    lengths = METRIC.norm(Q, W), METRIC.norm(P, V)
    torch.testing.assert_close(*lengths, rtol=1e-15 * cond, atol=0)
    assert relative(METRIC.transport(Q, P, W), V) < 1e-15 * cond


def test_distant_points_are_told():
    P = torch.diag(torch.tensor([1e-6, 1.0, 1e6], dtype=torch.float64))
    U = torch.linalg.qr(torch.arange(9.0, dtype=P.dtype).reshape(3, 3).cos())[0]
    with pytest.warns(ConvergenceWarning, match=r"ladder of 64 rungs still changed .* by 0\."):
        METRIC.transport(P, U @ P @ U.mT, torch.ones(3, 3, dtype=P.dtype))


def test_single_precision_and_units():
    P, Q, V = draw(4, cond=20.0)
    want = METRIC.transport(P, Q, V)
    assert relative(METRIC.transport(P.float(), Q.float(), V.float()).double(), want) < 1e-4
    assert relative(METRIC.transport(1e-12 * P, 1e-12 * Q, V), want) < 1e-10


def test_derivatives():
    leaves = tuple(T.requires_grad_() for T in draw(3, cond=5.0, count=1))

    def carried(*args):
        return METRIC.transport(*((T + T.mT) / 2 for T in args))

    assert gradcheck(carried, leaves, fast_mode=True)
    assert gradgradcheck(carried, leaves, fast_mode=True)


def test_vmap():
    P, Q, V = draw(4, cond=10.0)
    mapped = torch.func.vmap(METRIC.transport)(P, Q, V)
    torch.testing.assert_close(mapped, METRIC.transport(P, Q, V), rtol=1e-9, atol=1e-10)
