"""What sets the metrics apart: invariances, limits, domains, gyro structures, scales."""

import math

import pytest
import torch
from linalg_kernels import lyapunov
from linalg_kernels.errors import LinAlgError
from linalg_kernels.testing import orthogonal, random_spd
from spd_metrics import (
    AffineInvariant,
    BuresWasserstein,
    BuresWassersteinCholesky,
    CholeskyBuresWasserstein,
    CholeskyLog,
    CholeskyPower,
    GeneralizedBuresWasserstein,
    LogCholesky,
    LogEuclidean,
    PowerCholesky,
    PowerEuclidean,
)
from spd_metrics.fixed_point import iterate
from spd_metrics.gyro import gyrate, gyro_barycenter, gyro_dist
from spd_metrics.testing import Sample


def draw(n=4, cond=20.0, seed=0, count=6, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        scale * random_spd(count, n, cond=cond, generator=generator) / math.sqrt(cond)
        for _ in range(2)
    )


def close(got, want, rtol=1e-11):
    torch.testing.assert_close(got, want, rtol=rtol, atol=rtol * float(want.abs().max()))


# --- invariances ----------------------------------------------------------------------------

ROTATION_INVARIANT = [
    LogEuclidean(1.0, 0.2),
    AffineInvariant(0.7, 1.0, 0.2),
    PowerEuclidean(0.7, 1.0, 0.2),
    BuresWasserstein(),
]


@pytest.mark.parametrize("metric", ROTATION_INVARIANT, ids=repr)
def test_rotations_are_isometries(metric):
    P, Q = draw()
    U = orthogonal(4, generator=torch.Generator().manual_seed(1))
    close(metric.dist(U @ P @ U.mT, U @ Q @ U.mT), metric.dist(P, Q))


@pytest.mark.parametrize(
    "metric", [LogCholesky(), PowerCholesky(), BuresWassersteinCholesky()], ids=repr
)
def test_cholesky_metrics_depend_on_the_order_of_variables(metric):
    P, Q = draw()
    d, flipped = metric.dist(P, Q), metric.dist(P.flip(-1, -2), Q.flip(-1, -2))
    assert bool(((flipped - d).abs() > 1e-3 * d).any())


def test_congruences_are_isometries_of_the_affine_invariant_metric():
    P, Q = draw()
    A = torch.randn(4, 4, generator=torch.Generator().manual_seed(2), dtype=P.dtype)
    metric = AffineInvariant(1.0, 1.0, 0.3)
    close(metric.dist(A @ P @ A.mT, A @ Q @ A.mT), metric.dist(P, Q), 1e-10)
    close(metric.dist(torch.linalg.inv(P), torch.linalg.inv(Q)), metric.dist(P, Q), 1e-10)


@pytest.mark.parametrize("metric", [LogEuclidean(), AffineInvariant()], ids=repr)
@pytest.mark.parametrize("c", [1e-12, 1e-6, 1e6, 1e12])
def test_the_unit_does_not_matter(metric, c):
    P, Q = draw()
    close(metric.dist(c * P, c * Q), metric.dist(P, Q), 1e-13)
    close(metric.log(c * P, c * Q), c * metric.log(P, Q), 1e-12)
    p, q = P.float(), Q.float()
    close(metric.dist(c * p, c * q), metric.dist(p, q), 1e-5)


@pytest.mark.parametrize(
    ("metric", "degree"),
    [(PowerEuclidean(), 1.0), (PowerEuclidean(0.5), 0.5), (BuresWasserstein(), 0.5)],
    ids=repr,
)
@pytest.mark.parametrize("c", [1e-12, 1e6])
def test_distances_scale_with_the_unit(metric, degree, c):
    P, Q = draw()
    close(metric.dist(c * P, c * Q), c**degree * metric.dist(P, Q))


# --- one metric as a case of another --------------------------------------------------------


@pytest.mark.parametrize("theta", [1e-3, 1e-6, 1e-12, 0.0, -1e-6])
def test_small_powers_approach_their_limits(theta):
    P, Q = draw()
    slack = 10 * abs(theta) + 1e-12
    d = LogEuclidean().dist(P, Q)
    close(AffineInvariant(theta).dist(P, Q), d, 10 * theta**2 + 1e-12)
    close(PowerEuclidean(theta).dist(P, Q), d, slack)
    close(2 * BuresWasserstein(theta).dist(P, Q), d, slack)
    D = LogEuclidean().log(torch.eye(4, dtype=P.dtype), Q) - LogEuclidean().log(
        torch.eye(4, dtype=P.dtype), P
    )
    limit = (D**2).sum((-2, -1)) / 2 - (D.diagonal(dim1=-2, dim2=-1) ** 2).sum(-1) / 4
    close(LogCholesky(theta).dist(P, Q), limit.sqrt(), slack)
    close(PowerCholesky(theta).dist(P, Q), LogCholesky().dist(P, Q), slack)
    L, K = torch.linalg.cholesky(P), torch.linalg.cholesky(Q)
    close(CholeskyPower(theta).log(L, K), CholeskyLog().log(L, K), slack)
    # The diagonal of this one carries a quarter of the inverse weight.
    diagonals = (T.diagonal(dim1=-2, dim2=-1).log() for T in (L, K))
    step = next(diagonals) - next(diagonals)
    squared = ((L - K).tril(-1) ** 2).sum((-2, -1)) + (step**2).sum(-1) / (4 * 0.3)
    close(BuresWassersteinCholesky(theta, weight=0.3).dist(P, Q), squared.sqrt(), slack)


@pytest.mark.parametrize(
    "metric", [AffineInvariant, LogCholesky, PowerEuclidean, BuresWasserstein], ids=repr
)
@pytest.mark.parametrize("name", ["dist", "log", "geodesic", "transport", "mean"])
def test_both_charts_of_a_power_agree_where_they_meet(metric, name):
    # Just below and just above the exponent at which the chart changes.
    P, Q = draw()
    V = LogEuclidean().log(P, Q.flip(0))
    below, above = metric(0.009999 / 2), metric(0.010001 / 2)
    if metric is not BuresWasserstein:
        below, above = metric(0.009999), metric(0.010001)
    arguments = {
        "dist": (P, Q),
        "log": (P, Q),
        "geodesic": (P, Q, 0.3),
        "transport": (P, Q, V),
        "mean": (P,),
    }[name]
    close(getattr(below, name)(*arguments), getattr(above, name)(*arguments), 1e-4)


def test_commuting_points():
    generator = torch.Generator().manual_seed(0)
    U = orthogonal(4, generator=generator)
    p, q = torch.rand(2, 4, generator=generator, dtype=U.dtype) + 0.1
    P, Q = U * p @ U.mT, U * q @ U.mT
    close(AffineInvariant().dist(P, Q), LogEuclidean().dist(P, Q))
    V = orthogonal(4, generator=generator)
    V = V + V.mT
    ratio = torch.sqrt((q[:, None] + q) / (p[:, None] + p))
    close(BuresWasserstein().transport(P, Q, V), U @ (ratio * (U.mT @ V @ U)) @ U.mT)


def test_one_by_one():
    p, q = torch.tensor([[[0.3]], [[2.0]]], dtype=torch.float64), torch.tensor([[[5.0]]]).double()
    x, y = p[..., 0, 0], q[..., 0, 0]
    close(AffineInvariant().dist(p, q), (x / y).log().abs())
    close(LogCholesky(0.7).dist(p, q), (x / y).log().abs() / 2)
    close(PowerCholesky(0.5).dist(p, q), (x**0.25 - y**0.25).abs() / 0.5)
    expected = (x**0.125 - y**0.125).abs() / 0.5 / math.sqrt(3)
    close(BuresWassersteinCholesky(0.5, 3.0).dist(p, q), expected)
    close(BuresWasserstein().dist(p, q), (x.sqrt() - y.sqrt()).abs())


def test_weighted_bures_wasserstein_cases():
    P, Q = draw(3)
    identity = torch.eye(3, dtype=P.dtype)
    close(GeneralizedBuresWasserstein(identity).dist(P, Q), BuresWasserstein().dist(P, Q))
    V = LogEuclidean().log(P[0], Q[0])
    seen = GeneralizedBuresWasserstein(P[0]).inner(P[0], V, V)
    close(seen, AffineInvariant().inner(P[0], V, V) / 4)


def test_bures_wasserstein_keeps_its_digits_near_the_diagonal():
    P, _ = draw(5, cond=1e8)
    L = torch.linalg.cholesky(P)
    V = L @ torch.diag_embed(torch.linspace(-1, 1, 5, dtype=P.dtype)) @ L.mT
    metric = BuresWasserstein()
    for h in (1e-2, 1e-5, 1e-8):
        d = metric.dist(P, metric.exp(P, h * V))
        close(d, h * metric.norm(P, V), 1e-7)


# --- domains --------------------------------------------------------------------------------


def weighted(_, domain="raise"):
    """The weighted metric has no power: the argument of the others' is left out."""
    weight = [[2.0, 0.5, 0.1], [0.5, 1.0, -0.2], [0.1, -0.2, 0.7]]
    return GeneralizedBuresWasserstein(weight, domain)


INCOMPLETE = [
    PowerEuclidean,
    BuresWasserstein,
    weighted,
    PowerCholesky,
    BuresWassersteinCholesky,
    CholeskyPower,
    CholeskyBuresWasserstein,
]


@pytest.mark.parametrize("kind", INCOMPLETE, ids=lambda kind: kind.__name__)
def test_policies_beyond_the_domain(kind):
    s = Sample.draw(kind(0.5), n=3)
    reach = kind(0.5).exp_domain(s.P, s.V)
    ends = reach.isfinite()
    assert bool(ends.any())
    i = int(torch.nonzero(ends)[0])
    factor = torch.full_like(reach, 0.5)
    factor[i] = 1.2 * reach[i]
    V = factor[:, None, None] * s.V
    inside = kind(0.5).exp_domain(s.P, V) > 1
    assert not bool(inside[i])
    first = int(torch.nonzero(~inside)[0])
    with pytest.raises(ValueError, match=rf"exp\(P, V\)\[{first}\] leaves the manifold.*t = 0\.8"):
        kind(0.5).exp(s.P, V)
    gave = kind(0.5, domain="nan").exp(s.P, V)
    assert torch.equal(gave.isnan().all(-1).all(-1), ~inside)
    close(gave[inside], kind(0.5).exp(s.P[inside], V[inside]))
    clamped = kind(0.5, domain="clamp").exp(s.P, V)
    assert bool(clamped.isfinite().all())
    close(clamped[inside], gave[inside])
    # It stops on the same geodesic, just short of its end.
    near = kind(0.5).exp(s.P[i], (1 - 1e-6) * reach[i] * s.V[i])
    close(clamped[i], near, 1e-4)


def test_where_geodesics_end():
    s = Sample.draw(PowerEuclidean(), n=3)
    identity = torch.eye(3, dtype=s.P.dtype)
    reach = PowerEuclidean().exp_domain(s.P, s.V)
    ends = reach.isfinite()
    assert bool(ends.any())
    P, V, t = s.P[ends], s.V[ends], reach[ends, None, None]
    smallest = torch.linalg.eigvalsh(P + t * V)[:, 0]
    assert bool((smallest.abs() < 1e-12 * torch.linalg.matrix_norm(P)).all())
    t = BuresWasserstein().exp_domain(P, V)[:, None, None]
    smallest = torch.linalg.eigvalsh(identity + t * lyapunov(P, V))[:, 0]
    assert bool((smallest.abs() < 1e-12).all())
    L = torch.linalg.cholesky(s.P)
    X = torch.linalg.cholesky(s.Q) - 20 * L
    rate = 0.5 * X.diagonal(dim1=-2, dim2=-1) / L.diagonal(dim1=-2, dim2=-1)
    close(CholeskyPower(0.5).exp_domain(L, X), -1 / rate.amin(-1))


def test_an_iteration_stops_at_its_tolerance():
    taken = []
    for tol in (1e-3, None):
        sizes = []

        def halve(x, sizes=sizes):
            sizes.append(float((x - 2).norm() / 2))
            return (x + 2) / 2, (x - 2).norm() / 2

        iterate(halve, torch.full((1, 1), 4.0, dtype=torch.float64), "halving", tol)
        taken.append(len(sizes))
    assert taken[0] == 10
    assert taken[1] > 40


def test_beyond_the_largest_number():
    L = torch.tensor([[1e-25, 0.0], [0.1, 1.0]], dtype=torch.float64)
    V = torch.tensor([[3.0, 0.0], [0.2, 0.5]], dtype=torch.float64)
    steep = CholeskyBuresWasserstein(0.05)
    assert bool(steep.exp(L, V).isinf().any())
    assert bool(CholeskyBuresWasserstein(0.05, domain="clamp").exp(L, V).isfinite().all())
    # 1 + θ v/(2 l) overflows to the power 2/θ long before the result does.
    gentle = CholeskyBuresWasserstein(0.15).exp(L, V)
    ratio = 1 + 0.075 * 3.0 / 1e-25
    want = torch.tensor(math.log(1e-25) + math.log(ratio) / 0.075, dtype=torch.float64)
    close(gentle[0, 0].log(), want)


def test_complete_metrics_never_end():
    s = Sample.draw(AffineInvariant(), n=3)
    for metric in (AffineInvariant(), LogEuclidean(), LogCholesky(0.5), PowerEuclidean(0.0)):
        assert bool(metric.exp_domain(s.P, 100 * s.V).isinf().all())


# --- gyro structures ------------------------------------------------------------------------

GYRO = [
    LogEuclidean(),
    AffineInvariant(),
    AffineInvariant(0.5),
    AffineInvariant(1e-3),
    LogCholesky(),
    LogCholesky(0.5),
    LogCholesky(0.0),
    PowerEuclidean(0.5),
    PowerEuclidean(1e-3),
    PowerCholesky(0.5),
    BuresWassersteinCholesky(0.5),
]


def near_identity(n=3):
    P, Q = draw(n, cond=1.6)
    return P, Q


@pytest.mark.parametrize("metric", GYRO, ids=repr)
def test_gyrogroup_laws(metric):
    P, Q = near_identity()
    identity = torch.eye(3, dtype=P.dtype).expand_as(P)
    close(metric.gyro_add(identity, P), P)
    close(metric.gyro_add(P, identity), P)
    close(metric.gyro_add(metric.gyro_neg(P), P), identity)
    # Left cancellation.
    close(metric.gyro_add(metric.gyro_neg(P), metric.gyro_add(P, Q)), Q)
    close(metric.gyro_scale(0.3, metric.gyro_scale(0.5, P)), metric.gyro_scale(0.15, P))
    both = metric.gyro_add(metric.gyro_scale(0.3, P), metric.gyro_scale(0.2, P))
    close(both, metric.gyro_scale(0.5, P))
    close(gyro_dist(metric, P, Q), metric.dist(P, Q), 1e-10)
    mean = gyro_barycenter(metric, P)
    moved = metric.gyro_add(Q[0], P)
    close(gyro_barycenter(metric, moved), metric.gyro_add(Q[0], mean), 1e-8)


@pytest.mark.parametrize(
    "metric",
    [CholeskyLog(), CholeskyPower(0.5), CholeskyBuresWasserstein(0.5, (0.5, 1.0, 2.0))],
    ids=repr,
)
def test_gyro_structures_of_cholesky_factors(metric):
    # Table 1 of Chen et al.: coordinates of the diagonal add up.
    L, K = (torch.linalg.cholesky(T) for T in near_identity())
    a = {"CholeskyLog": 0.0, "CholeskyPower": 0.5}.get(type(metric).__name__, 0.25)
    l, k = (T.diagonal(dim1=-2, dim2=-1) for T in (L, K))  # noqa: E741
    both = l * k if a == 0 else (l**a + k**a - 1) ** (1 / a)
    scaled = l**0.3 if a == 0 else (0.3 * l**a + 0.7) ** (1 / a)
    inverse = 1 / l if a == 0 else (2 - l**a) ** (1 / a)
    close(metric.gyro_add(L, K), (L + K).tril(-1) + torch.diag_embed(both))
    close(metric.gyro_scale(0.3, L), 0.3 * L.tril(-1) + torch.diag_embed(scaled))
    close(metric.gyro_neg(L), -L.tril(-1) + torch.diag_embed(inverse))
    close(gyro_dist(metric, L, K), metric.dist(L, K), 1e-10)
    close(gyrate(metric, L, K, L.flip(0)), L.flip(0))
    moved = gyro_barycenter(metric, metric.gyro_add(K[0], L))
    close(moved, metric.gyro_add(K[0], gyro_barycenter(metric, L)), 1e-8)


@pytest.mark.parametrize("metric", [LogEuclidean(), LogCholesky(), PowerCholesky(0.5)], ids=repr)
def test_flat_metrics_do_not_gyrate(metric):
    P, Q = near_identity()
    close(gyrate(metric, P, Q, P.flip(0)), P.flip(0))
    close(metric.gyro_add(P, Q), metric.gyro_add(Q, P))


def test_the_affine_invariant_metric_gyrates():
    P, Q = near_identity()
    R = P.flip(0)
    turned = gyrate(AffineInvariant(), P, Q, R)
    close(torch.linalg.eigvalsh(turned), torch.linalg.eigvalsh(R))
    assert bool(((turned - R).abs() > 1e-4).any())


def test_closed_forms_of_gyro_addition():
    P, Q = near_identity()
    w, V = torch.linalg.eigh(P)
    root = V * w.sqrt()[..., None, :] @ V.mT
    close(AffineInvariant().gyro_add(P, Q), root @ Q @ root)
    close(PowerEuclidean().gyro_add(P, Q), P + Q - torch.eye(3, dtype=P.dtype))
    close(AffineInvariant().gyro_neg(P), torch.linalg.inv(P))


def test_gyro_operations_may_leave_the_manifold():
    P = 0.1 * torch.eye(2, dtype=torch.float64)[None]
    with pytest.raises(ValueError, match=r"gyro_add\(P, Q\)\[0\] leaves the manifold"):
        PowerEuclidean().gyro_add(P, P)
    assert bool(PowerEuclidean(domain="nan").gyro_add(P, P).isnan().all())


# --- parameters -----------------------------------------------------------------------------


@pytest.mark.bad_input
def test_parameters_are_checked():
    with pytest.raises(ValueError, match="alpha must be > 0, got -1"):
        LogEuclidean(alpha=-1)
    with pytest.raises(ValueError, match="theta must be finite, got nan"):
        AffineInvariant(theta=math.nan)
    with pytest.raises(TypeError, match="theta must be a number, got str"):
        LogCholesky(theta="1/30")  # ty: ignore[invalid-argument-type]
    with pytest.raises(ValueError, match="domain must be 'raise', 'nan' or 'clamp', got 'ignore'"):
        PowerEuclidean(domain="ignore")  # ty: ignore[invalid-argument-type]
    with pytest.raises(ValueError, match=r"beta must exceed -alpha/n = -0.25 for n=4"):
        LogEuclidean(beta=-0.25).dist(*draw(4))
    with pytest.raises(ValueError, match=r"beta must exceed -alpha/n = -0.25 for n=4"):
        AffineInvariant(beta=-0.3).dist(*draw(4))
    with pytest.raises(ValueError, match="weight must be > 0, got -1"):
        CholeskyBuresWasserstein(weight=(1.0, -1.0))
    with pytest.raises(ValueError, match="weight must have 1 or n=4 numbers, got 2"):
        BuresWassersteinCholesky(weight=(1.0, 1.0)).dist(*draw(4))
    with pytest.raises(LinAlgError, match="weight must be positive definite"):
        GeneralizedBuresWasserstein([[1.0, 2.0], [2.0, 1.0]])
    with pytest.raises(ValueError, match="with n=2, the order of the weight"):
        GeneralizedBuresWasserstein([[1.0, 0.2], [0.2, 1.0]]).dist(*draw(4))


def test_factors_are_checked():
    L = torch.eye(2, dtype=torch.float64).repeat(2, 1, 1)
    bad = L.clone()
    bad[1, 0, 1] = 0.5
    with pytest.raises(ValueError, match=r"Q\[1\] must be lower triangular, but has 0.5 above"):
        CholeskyLog().dist(L, bad)
    bad = L.clone()
    bad[1, 1, 1] = -2
    with pytest.raises(ValueError, match=r"P\[1\] must have a positive diagonal, got -2 on it"):
        CholeskyLog().log(bad, L)


@pytest.mark.bad_input
def test_matrices_are_checked():
    P, Q = draw(3, count=2)
    bad = Q.clone()
    bad[1] -= 2 * torch.eye(3, dtype=P.dtype) * bad[1].abs().max()
    for metric in (AffineInvariant(), LogEuclidean(), LogCholesky(), PowerEuclidean()):
        with pytest.raises(LinAlgError, match=r"Q\[1\]"):
            metric.dist(P, bad)
    with pytest.raises(ValueError, match=r"batch shapes must broadcast, got P \(2,\), Q \(3,\)"):
        LogEuclidean().dist(P, Q[:1].repeat(3, 1, 1))


@pytest.mark.parametrize("metric", [AffineInvariant(), BuresWasserstein()], ids=repr)
def test_a_looser_tolerance_of_an_iterated_mean(metric):
    X, _ = draw(count=12)
    exact, loose = metric.mean(X), metric.mean(X, tol=1e-3)
    error = torch.linalg.matrix_norm(loose - exact) / torch.linalg.matrix_norm(exact)
    assert 1e-13 < float(error) < 1e-2
