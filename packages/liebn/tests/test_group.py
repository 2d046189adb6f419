from functools import partial

import pytest
import torch
from liebn import (
    AffineInvariantGroup,
    BuresWassersteinCholeskyGroup,
    CholeskyRightInvariantGroup,
    LieGroup,
    LogCholeskyGroup,
    LogEuclideanGroup,
    PowerCholeskyGroup,
)
from liebn.group import compose, dist2, inverse
from liebn.pool import ChannelPool, DomainPool
from linalg_kernels.testing import random_spd
from spd_metrics import (
    AffineInvariant,
    BuresWassersteinCholesky,
    LogCholesky,
    LogEuclidean,
    PowerCholesky,
)
from torch.testing import assert_close

close = partial(assert_close, rtol=1e-11, atol=1e-11)


def test_meets_the_protocol(group):
    assert isinstance(group, LieGroup)


def test_chart(group, draw):
    P = draw(2, 4)
    close(group.chart_inverse(group.chart(P)), P)


def test_group_axioms(group, draw):
    X, Y, Z = (group.chart(draw(4, seed=seed)) for seed in range(3))
    E = group.neutral(X.shape[-1]).to(X.dtype)
    left = compose(group, compose(group, X, Y), Z)
    close(left, compose(group, X, compose(group, Y, Z)))
    close(compose(group, E.expand(X.shape), X), X)
    close(compose(group, inverse(group, X), X), E.expand(X.shape))


def test_translation_has_an_inverse(group, draw):
    X, Y = (group.chart(draw(4, seed=seed)) for seed in range(2))
    back = group.act(group.inverse_translation(X), group.act(group.translation(X), Y))
    close(back, Y)


def test_exp_and_log_at_the_neutral_element(group, draw):
    X = group.chart(draw(4))
    V = group.log(X)
    close(group.exp(V), X)
    # Exp(tV) runs along the geodesic from E, whose speed is constant.
    d = dist2(group, X)
    close(dist2(group, group.exp(0.5 * V)), d / 4)


def test_geodesic(group, draw):
    X, Y = (group.chart(draw(4, seed=seed)) for seed in range(2))
    close(group.geodesic(X, Y, 0.0), X)
    close(group.geodesic(X, Y, 1.0), Y)
    middle = group.geodesic(X, Y, 0.25)

    def d2(A, B):
        return dist2(group, compose(group, inverse(group, A), B))

    assert_close(d2(X, middle), d2(X, Y) / 16, rtol=1e-9, atol=1e-9)


def test_scaling_follows_exp_and_log(group, draw):
    X = group.chart(draw(4))
    E = group.neutral(X.shape[-1]).to(X.dtype)
    factor = torch.tensor(0.7, dtype=X.dtype)[None, None]
    still = group.translation(E)
    moved = group.polar(group.inverse_translation(E), X, constant=True).moved(factor, still)
    close(moved, group.exp(0.7 * group.log(X)))


def test_lift(group, draw):
    X = group.chart(draw(4))
    E = group.neutral(X.shape[-1]).to(X.dtype).expand(X.shape)
    close(group.act(group.lift(group.lift_inverse(X)), E), X)
    close(group.act(group.lift(torch.zeros_like(X)), E), E)


def test_mean_minimises(group, draw):
    X = group.chart(draw(10))
    pool = ChannelPool((0,))
    M = group.mean(X, pool, None)

    def spread(M):
        back = group.inverse_translation(M)
        return group.polar(back, X, constant=True).dist2().sum()

    lowest = spread(M)
    generator = torch.Generator().manual_seed(5)
    for _ in range(8):
        Z = 1e-3 * torch.randn(X.shape[1:], dtype=X.dtype, generator=generator)
        aside = group.act(group.lift(Z), M)
        assert spread(aside) > lowest


@pytest.mark.parametrize("steps", [1, None])
def test_mean_of_sets(group, draw, steps):
    X = group.chart(draw(7))
    index = torch.tensor([0, 1, 0, 1, 1, 0, 0])
    M = group.mean(X, DomainPool(index, 2, ChannelPool(())), steps)
    for i in range(2):
        alone = group.mean(X[index == i], ChannelPool((0,)), steps)
        assert_close(M[i : i + 1], alone, rtol=1e-9, atol=1e-9)


METRICS = [
    (AffineInvariantGroup(1.5, 2.0, 0.3), AffineInvariant(1.5, 2.0, 0.3)),
    (AffineInvariantGroup(-0.5), AffineInvariant(-0.5)),
    (LogEuclideanGroup(2.0, 0.3), LogEuclidean(2.0, 0.3)),
    (LogCholeskyGroup(0.5), LogCholesky(0.5)),
    (PowerCholeskyGroup(0.5), PowerCholesky(0.5)),
    (BuresWassersteinCholeskyGroup(0.5, 0.7), BuresWassersteinCholesky(0.5, 0.7)),
]


@pytest.mark.parametrize(("group", "metric"), METRICS, ids=lambda x: type(x).__name__)
def test_agrees_with_the_metric(group, metric):
    generator = torch.Generator().manual_seed(2)
    P = random_spd(6, 4, cond=5.0, generator=generator)
    Q = random_spd(6, 4, cond=5.0, generator=generator)
    X, Y = group.chart(P), group.chart(Q)
    back = group.inverse_translation(X)
    squared = group.polar(back, Y, constant=True).dist2()
    assert_close(squared, metric.dist(P, Q).square(), rtol=1e-10, atol=1e-10)
    M = group.chart_inverse(group.mean(X, ChannelPool((0,)), None))
    assert_close(M[0], metric.mean(P), rtol=1e-8, atol=1e-8)
    assert_close(
        group.chart_inverse(group.geodesic(X, Y, 0.3)), metric.geodesic(P, Q, 0.3),
        rtol=1e-10, atol=1e-10,
    )  # fmt: skip


@pytest.mark.parametrize(("group", "metric"), METRICS[2:], ids=lambda x: type(x).__name__)
def test_flat_groups_are_gyrogroups_of_the_metric(group, metric):
    """P ⊕ Q and t ⊙ P of spd-metrics wherever these are defined."""
    P, Q = random_spd(2, 6, 4, cond=3.0, generator=torch.Generator().manual_seed(2))
    X, Y = group.chart(P), group.chart(Q)
    assert_close(group.chart_inverse(compose(group, X, Y)), metric.gyro_add(P, Q))
    assert_close(group.chart_inverse(0.6 * X), metric.gyro_scale(0.6, P))


def test_right_invariance():
    """Right translation in Cholesky factors keeps the distances of the right-invariant group."""
    group = CholeskyRightInvariantGroup()
    P, Q, R = random_spd(3, 4, cond=5.0, generator=torch.Generator().manual_seed(2))
    L, K, H = (torch.linalg.cholesky(A) for A in (P, Q, R))

    def d2(L, K):
        X, Y = (group.chart(F @ F.mT) for F in (L, K))
        return group.polar(group.inverse_translation(X), Y, constant=True).dist2()

    assert_close(d2(L @ H, K @ H), d2(L, K))
    # Q ⊙ P has the factor of P times that of Q.
    product = group.chart_inverse(compose(group, group.chart(P), group.chart(Q)))
    assert_close(product, (K @ L) @ (K @ L).mT)


def test_small_theta_goes_over_into_log_euclidean():
    X = random_spd(6, 4, cond=5.0, generator=torch.Generator().manual_seed(2))
    exact = dist2(LogEuclideanGroup(), LogEuclideanGroup().chart(X))
    group = AffineInvariantGroup(theta=1e-3)
    assert_close(dist2(group, group.chart(X)), exact, rtol=1e-8, atol=0)


@pytest.mark.parametrize("kind", [AffineInvariantGroup, LogCholeskyGroup])
def test_theta_zero_is_refused(kind):
    with pytest.raises(ValueError, match="theta must not be 0; LogEuclideanGroup"):
        kind(theta=0.0)


def test_parameters_that_make_no_metric_are_refused():
    with pytest.raises(ValueError, match="alpha must be > 0"):
        LogEuclideanGroup(alpha=-1.0)
    group = AffineInvariantGroup(beta=-0.5)
    with pytest.raises(ValueError, match="beta must exceed"):
        dist2(group, torch.eye(4, dtype=torch.float64))


def test_cholesky_product_says_where_it_ends():
    X = -3.0 * torch.eye(2, dtype=torch.float64).expand(3, 2, 2).clone()
    X[0] = 0
    with pytest.raises(ValueError, match=r"the normalised X\[1\] leaves the manifold"):
        PowerCholeskyGroup(theta=0.5).chart_inverse(X)
    given = PowerCholeskyGroup(theta=0.5, domain="nan").chart_inverse(X)
    assert bool(given[1:].isnan().all())
    assert_close(given[0], torch.eye(2, dtype=torch.float64))
    clamped = PowerCholeskyGroup(theta=0.5, domain="clamp").chart_inverse(X)
    assert bool((torch.linalg.eigvalsh(clamped) > 0).all())
