"""pyRiemann's answers where both have the operation: ordinary, ill-conditioned, tiny, large."""

import numpy as np
import pytest
import torch
from linalg_kernels.testing import random_spd
from pyriemann.geometry import mean as means
from pyriemann.geometry import tangentspace
from pyriemann.geometry.distance import distance, distance_poweuclid
from pyriemann.geometry.geodesic import geodesic, geodesic_functions
from spd_metrics import (
    AffineInvariant,
    BuresWasserstein,
    LogCholesky,
    LogEuclidean,
    PowerCholesky,
    PowerEuclidean,
)

PAIRS = [
    pytest.param(AffineInvariant(), "riemann", id="riemann"),
    pytest.param(LogEuclidean(), "logeuclid", id="logeuclid"),
    pytest.param(LogCholesky(), "logchol", id="logchol"),
    pytest.param(PowerEuclidean(), "euclid", id="euclid"),
    pytest.param(PowerEuclidean(-1.0), "harmonic", id="harmonic"),
    pytest.param(PowerCholesky(), "chol", id="chol"),
    pytest.param(BuresWasserstein(), "wasserstein", id="wasserstein"),
]


def having(functions):
    """Those of PAIRS for which pyRiemann has the operation."""
    return [pair for pair in PAIRS if pair.values[1] in functions]


# Two matrices of condition 1e4 see each other at a condition of 1e8.
INPUTS = [
    pytest.param(20.0, 1.0, 1e-11, id="ordinary"),
    pytest.param(1e4, 1.0, 1e-7, id="ill-conditioned"),
    pytest.param(20.0, 1e-12, 1e-11, id="volts squared"),
    pytest.param(20.0, 1e6, 1e-11, id="large"),
]


def draw(cond, scale, seed, n=6, count=8):
    generator = torch.Generator().manual_seed(seed)
    return scale * random_spd(count, n, cond=cond, generator=generator)


def tangent_at(P, seed):
    noise = torch.randn(P.shape, generator=torch.Generator().manual_seed(seed), dtype=P.dtype)
    L = torch.linalg.cholesky(P)
    return 0.2 * L @ (noise + noise.mT) @ L.mT


def skip_absolute_ties(name, scale):
    if name == "logeuclid" and scale < 1:
        pytest.skip("pyRiemann's derivative of log takes eigenvalues within 1e-12 for equal")


def assert_close(got, want, rtol):
    got, want = np.asarray(got), np.asarray(want)
    axes = tuple(range(want.ndim - 2, want.ndim)) if want.ndim > 1 else None
    size = np.abs(want) if axes is None else np.linalg.norm(want, axis=axes)
    error = np.abs(got - want) if axes is None else np.linalg.norm(got - want, axis=axes)
    assert np.max(error / size) < rtol


@pytest.mark.parametrize(("cond", "scale", "rtol"), INPUTS)
@pytest.mark.parametrize(("metric", "name"), PAIRS)
def test_distance(metric, name, cond, scale, rtol):
    P, Q = draw(cond, scale, 1), draw(cond, scale, 2)
    want = np.array(
        [distance(p, q, metric=name) for p, q in zip(P.numpy(), Q.numpy(), strict=True)]
    )
    assert_close(metric.dist(P, Q), want, rtol)
    table = np.array([[distance(p, q, metric=name) for q in Q.numpy()] for p in P.numpy()])
    assert_close(metric.pairwise_dist(P, Q), table, rtol)


@pytest.mark.parametrize(("cond", "scale", "rtol"), INPUTS)
@pytest.mark.parametrize(("metric", "name"), having(tangentspace.log_map_functions))
def test_log_and_exp(metric, name, cond, scale, rtol):
    P, Q = draw(cond, scale, 1), draw(cond, scale, 2)
    base = P[0]
    skip_absolute_ties(name, scale)
    # Otherwise pyRiemann leaves out the congruence with the base's root.
    options = {"C12": True} if name == "riemann" else {}
    want = tangentspace.log_map(Q.numpy(), base.numpy(), metric=name, **options)
    assert_close(metric.log(base, Q), want, rtol)
    # Euclidean geodesics end soon.
    V = tangent_at(base, 3)[None] / (10 if name == "euclid" else 1)
    options = {"Cm12": True} if name == "riemann" else {}
    want = tangentspace.exp_map(V.numpy(), base.numpy(), metric=name, **options)
    assert_close(metric.exp(base, V), want, rtol)


@pytest.mark.parametrize(("cond", "scale", "rtol"), INPUTS)
@pytest.mark.parametrize(("metric", "name"), having(geodesic_functions))
def test_geodesic(metric, name, cond, scale, rtol):
    P, Q = draw(cond, scale, 1), draw(cond, scale, 2)
    want = np.stack(
        [geodesic(p, q, 0.3, metric=name) for p, q in zip(P.numpy(), Q.numpy(), strict=True)]
    )
    assert_close(metric.geodesic(P, Q, 0.3), want, rtol)


@pytest.mark.parametrize(("cond", "scale", "rtol"), INPUTS)
@pytest.mark.parametrize(("metric", "name"), PAIRS)
def test_weighted_mean(metric, name, cond, scale, rtol):
    if name == "wasserstein" and scale != 1:
        pytest.skip("pyRiemann's iteration stops at an absolute size of its steps")
    if name == "riemann" and cond > 1e3:
        pytest.skip("pyRiemann's iteration shortens its steps until it stands still")
    X = draw(cond, scale, 1)
    weights = torch.linspace(1, 2, len(X), dtype=X.dtype)
    options = {"tol": rtol / 10, "maxiter": 200} if name in ("riemann", "wasserstein") else {}
    want = getattr(means, f"mean_{name}")(X.numpy(), sample_weight=weights.numpy(), **options)
    assert_close(metric.mean(X, weights)[None], want[None], max(10 * rtol, 1e-9))


@pytest.mark.parametrize(("cond", "scale", "rtol"), INPUTS)
@pytest.mark.parametrize(("metric", "name"), having(tangentspace.transport_functions))
def test_transport(metric, name, cond, scale, rtol):
    skip_absolute_ties(name, scale)
    P, Q = draw(cond, scale, 1), draw(cond, scale, 2)
    V = tangent_at(P[0], 4)[None]
    want = tangentspace.transport(V.numpy(), P[0].numpy(), Q[0].numpy(), metric=name)
    assert_close(metric.transport(P[0], Q[0], V), want, 30 * rtol)


@pytest.mark.parametrize("power", [0.5, -0.5, 2.0])
def test_power_euclidean(power):
    P, Q = draw(20.0, 1.0, 1), draw(20.0, 1.0, 2)
    metric = PowerEuclidean(power)
    want = np.array(
        [distance_poweuclid(p, q, power) for p, q in zip(P.numpy(), Q.numpy(), strict=True)]
    )
    assert_close(metric.dist(P, Q), want, 1e-11)
    weights = torch.linspace(1, 2, len(P), dtype=P.dtype)
    want = means.mean_poweuclid(P.numpy(), power, sample_weight=weights.numpy())
    assert_close(metric.mean(P, weights)[None], want[None], 1e-11)
