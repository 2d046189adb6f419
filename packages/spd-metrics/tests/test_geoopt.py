"""The geoopt adapter: geoopt's own formulas, and optimisation under every metric."""

import geoopt
import pytest
import torch
from linalg_kernels.testing import random_spd
from spd_metrics import (
    AffineInvariant,
    BuresWasserstein,
    CholeskyPower,
    LogCholesky,
    LogEuclidean,
    PowerCholesky,
    PowerEuclidean,
)
from spd_metrics.geoopt_adapter import GeooptManifold


def draw(seed=0, count=5, n=4):
    return random_spd(count, n, cond=20.0, generator=torch.Generator().manual_seed(seed)) / 4


def test_geoopts_affine_invariant_manifold():
    ours, theirs = GeooptManifold(AffineInvariant()), geoopt.SymmetricPositiveDefinite()
    P, Q = draw(0), draw(1)
    V = theirs.logmap(P, draw(2))
    close = torch.testing.assert_close
    close(ours.dist(P, Q), theirs.dist(P, Q))
    close(ours.expmap(P, V), theirs.expmap(P, V))
    close(ours.logmap(P, Q), theirs.logmap(P, Q))
    close(ours.transp(P, Q, V), theirs.transp(P, Q, V))
    close(ours.inner(P, V, Q), theirs.inner(P, V, Q))
    close(ours.egrad2rgrad(P, Q), theirs.egrad2rgrad(P, Q))
    assert ours.inner(P, V, keepdim=True).shape == (5, 1, 1)
    assert ours.dist(P, Q, keepdim=True).shape == (5, 1, 1)


def test_points_are_checked_and_projected():
    manifold = GeooptManifold(LogEuclidean())
    assert manifold.check_point_on_manifold(draw())
    assert not manifold.check_point_on_manifold(-draw())
    assert not manifold.check_point_on_manifold(torch.tensor([[1.0, 0.5], [0.0, 1.0]]))
    assert manifold.check_point_on_manifold(manifold.projx(-draw()))
    assert manifold.check_vector_on_tangent(draw(), -draw())
    assert manifold.check_point_on_manifold(manifold.origin(2, 3, 3))
    lower = GeooptManifold(CholeskyPower())
    assert not lower.check_point_on_manifold(draw())
    assert lower.check_point_on_manifold(lower.projx(draw()))


@pytest.mark.parametrize(
    "metric",
    [
        AffineInvariant(),
        AffineInvariant(0.5, 1.0, 0.2),
        LogEuclidean(),
        LogCholesky(),
        PowerEuclidean(0.5, domain="clamp"),
        BuresWasserstein(domain="clamp"),
        PowerCholesky(0.5, domain="clamp"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("optimiser", [geoopt.optim.RiemannianSGD, geoopt.optim.RiemannianAdam])
def test_finding_a_mean(metric, optimiser):
    X = draw(3)
    start = torch.eye(4, dtype=X.dtype)
    P = geoopt.ManifoldParameter(start.clone(), manifold=GeooptManifold(metric))  # ty: ignore[unknown-argument]
    options = {"lr": 0.2} if optimiser is geoopt.optim.RiemannianSGD else {"lr": 0.05}
    steps = optimiser([P], **options)
    for _ in range(150):
        steps.zero_grad()
        (metric.dist(P, X) ** 2).mean().div(2).backward()
        steps.step()
    M = metric.mean(X)
    assert bool(metric.dist(P.detach(), M) < 0.02 * metric.dist(start, M))
