"""The modules: parameters, parametrisations, memory, errors."""

import copy
import math
import pickle

import geoopt
import pytest
import torch
from linalg_kernels.packed import pack, pack_lower, symmetric, triangular
from linalg_kernels.testing import random_spd
from rmlr import LogEigMLR, RiemannianMLR, parallel_transport, scores
from rmlr.chunks import in_chunks
from spd_metrics import (
    AffineInvariant,
    BuresWasserstein,
    BuresWassersteinCholesky,
    CholeskyPower,
    GeneralizedBuresWasserstein,
    LogCholesky,
    LogEuclidean,
    PowerCholesky,
    PowerEuclidean,
)
from spd_metrics.geoopt_adapter import GeooptManifold

FLAT = [LogEuclidean(1.0, 0.2), PowerEuclidean(0.5), PowerEuclidean(), PowerEuclidean(0.0),
        LogCholesky(), LogCholesky(0.5), LogCholesky(0.0), PowerCholesky(0.6),
        BuresWassersteinCholesky(0.7, 2.0)]  # fmt: skip
CURVED = [AffineInvariant(0.7), BuresWasserstein(0.4)]
EVERY = [*FLAT, *CURVED, GeneralizedBuresWasserstein(torch.eye(4)), CholeskyPower(0.5)]


def spd(count=5, n=4, seed=0, dtype=torch.float64):
    return random_spd(count, n, cond=20.0, generator=torch.Generator().manual_seed(seed)).to(dtype)


def make(metric, n=4, classes=3, **options):
    torch.manual_seed(0)
    return RiemannianMLR(n, classes, metric, dtype=torch.float64, **options)


def near(got, want, rtol=1e-11):
    assert float((got - want).detach().abs().max()) <= rtol * float(want.detach().abs().max())


@pytest.mark.parametrize("metric", EVERY, ids=repr)
def test_starts_as_published(metric):
    mlr = make(metric)
    near(mlr.P, torch.eye(4, dtype=torch.float64).expand(3, 4, 4), 1e-14)
    bound = math.sqrt(6) / 4
    assert mlr.normal.shape == (3, 10)
    assert 0.8 * bound < float(mlr.normal.detach().abs().max()) <= bound


@pytest.mark.parametrize("metric", EVERY, ids=repr)
def test_points_and_normals_are_set_and_read(metric):
    mlr, P, A = make(metric), spd(3, seed=1), spd(3, seed=2) - 3
    S = spd()
    if type(metric) is CholeskyPower:
        P, A, S = torch.linalg.cholesky(P), A.tril(), torch.linalg.cholesky(S)
    mlr.P, mlr.A = P, A
    near(mlr.P, P)
    near(mlr.A, A, 1e-14)
    rtol = 1e-8 if isinstance(metric, GeneralizedBuresWasserstein) else 1e-11
    near(mlr(S), scores(metric, S, P, A), rtol)


@pytest.mark.parametrize("metric", [*FLAT, *CURVED], ids=repr)
def test_every_parameter_has_an_exact_gradient(metric):
    mlr, S = make(metric), spd()
    mlr.P = spd(3, seed=1)
    names = [name for name, _ in mlr.named_parameters()]

    def logits(*values):
        return torch.func.functional_call(mlr, dict(zip(names, values, strict=True)), (S,))

    values = [p.detach().clone().requires_grad_() for p in mlr.parameters()]
    assert torch.autograd.gradcheck(logits, values)


@pytest.mark.parametrize("metric", FLAT, ids=repr)
def test_scalar_bias(metric):
    mlr = make(metric, bias="scalar")
    assert {name for name, _ in mlr.named_parameters()} == {"normal", "bias"}
    assert sum(p.numel() for p in mlr.parameters()) == 3 * (10 + 1)
    near(mlr(spd()), make(metric)(spd()))
    with torch.no_grad():
        mlr.bias += 2.0
    near(mlr(spd()), make(metric)(spd()) - 2)
    with pytest.raises(AttributeError):
        mlr.P = spd(3)


@pytest.mark.parametrize(
    "metric", [LogEuclidean(), PowerEuclidean(), LogCholesky(), AffineInvariant(), PowerCholesky()],
    ids=repr,
)  # fmt: skip
@pytest.mark.parametrize("many", [False, True])
def test_more_classes_than_samples(metric, many):
    mlr, S = make(metric, classes=9), spd(2 if many else 20)
    mlr.P = spd(9, seed=1)
    near(mlr(S), torch.stack([scores(metric, S, P[None], A[None])[:, 0]
                              for P, A in zip(mlr.P, mlr.A, strict=True)], -1))  # fmt: skip


@pytest.mark.parametrize("metric", [AffineInvariant(), BuresWasserstein()], ids=repr)
@pytest.mark.parametrize("memory", [1, 5000, 40000])
def test_pieces_give_the_same_result(metric, memory):
    S = spd(7).requires_grad_()
    found = []
    for bound in (None, memory):
        mlr = make(metric, classes=5, memory=bound)
        logits = mlr(S)
        gradients = torch.autograd.grad(logits.square().sum(), (S, *mlr.parameters()))
        found.append((logits, *gradients))
    for whole, pieces in zip(*found, strict=True):
        near(pieces, whole, 1e-12)


def test_pieces_keep_to_the_bound():
    seen = []

    def score(S, P):
        seen.append(len(S) * len(P))
        return (S[:, None] * P).sum((-2, -1))

    S, P = spd(20), spd(30, seed=1)
    want = score(S, P)
    for pairs in (1, 7, 60, 599):
        seen.clear()
        got = in_chunks(score, (S,), (P,), pair_matrices=2, memory=pairs * 2 * 16 * 8)
        assert max(seen) <= pairs
        near(got, want)
    with pytest.raises(ValueError, match="memory must be >= 1"):
        in_chunks(score, (S,), (P,), pair_matrices=2, memory=0)


@pytest.mark.parametrize(
    "metric",
    [AffineInvariant(0.7), PowerEuclidean(0.5), LogCholesky(1.2), BuresWasserstein(0.4),
     PowerCholesky(-0.6), BuresWassersteinCholesky(0.7)],
    ids=repr,
)  # fmt: skip
def test_theta_can_be_learned(metric):
    mlr, S = make(metric, learn_theta=True), spd()
    near(mlr(S), make(metric)(S))
    assert float(mlr.theta.detach()) == pytest.approx(metric.theta)
    mlr.P = P = spd(3, seed=1)
    near(mlr.P, P)
    names = [name for name, _ in mlr.named_parameters()]
    assert "log_theta" in names

    def logits(*values):
        return torch.func.functional_call(mlr, dict(zip(names, values, strict=True)), (S,))

    values = [p.detach().clone().requires_grad_() for p in mlr.parameters()]
    assert torch.autograd.gradcheck(logits, values)
    with torch.no_grad():
        mlr.log_theta += 0.3
    assert float(mlr.theta.detach()) == pytest.approx(metric.theta * math.exp(0.3))


@pytest.mark.parametrize(
    "metric", [LogEuclidean(), AffineInvariant(), BuresWasserstein()], ids=repr
)
def test_points_on_a_geoopt_manifold(metric):
    manifold = geoopt.SymmetricPositiveDefinite()
    mlr = make(metric, manifold=manifold)
    assert isinstance(mlr.P, geoopt.ManifoldParameter)
    assert mlr.P.manifold is manifold
    near(mlr(spd()), make(metric)(spd()))
    mlr.P = spd(3, seed=1)
    near(mlr(spd()), scores(metric, spd(), spd(3, seed=1), mlr.A))
    steps = geoopt.optim.RiemannianAdam(mlr.parameters(), lr=1e-2, amsgrad=True)
    before = mlr.P.detach().clone()
    mlr(spd()).square().sum().backward()
    steps.step()
    assert manifold.check_point_on_manifold(mlr.P)
    assert float((mlr.P.detach() - before).abs().max()) > 1e-4


def test_transport_in_place_of_the_closed_form():
    mlr = make(BuresWasserstein(), carry=parallel_transport)
    Q, _ = torch.linalg.qr(spd(1)[0])
    S, P, A = spd(), spd(3, seed=1), mlr.A.detach()
    mlr.P = P
    before = mlr(S)
    mlr.P, mlr.A = Q @ P @ Q.mT, Q @ A @ Q.mT
    near(mlr(Q @ S @ Q.mT), before, 1e-7)


def test_learning_separates_classes():
    S = spd(60)
    y = torch.arange(60) % 3
    S = S * torch.tensor([1.0, 3.0, 9.0], dtype=S.dtype)[y][:, None, None]
    for metric in (LogEuclidean(), LogCholesky(), AffineInvariant(), BuresWasserstein(0.25)):
        mlr = make(metric)
        steps = torch.optim.Adam(mlr.parameters(), lr=0.1)
        for _ in range(80):
            steps.zero_grad()
            torch.nn.functional.cross_entropy(mlr(S), y).backward()
            steps.step()
        assert float((mlr(S).argmax(-1) == y).double().mean()) > 0.9


@pytest.mark.parametrize("options", [{}, {"bias": "scalar"}, {"learn_theta": True}])
def test_state_travels(options):
    mlr = make(LogCholesky(0.5), **options)
    other = RiemannianMLR(4, 3, LogCholesky(0.5), dtype=torch.float64, **options)
    other.load_state_dict(mlr.state_dict())
    for same in (other, copy.deepcopy(mlr), pickle.loads(pickle.dumps(mlr))):
        assert torch.equal(same(spd()), mlr(spd()))
    assert mlr.float()(spd().float()).dtype == torch.float32


@pytest.mark.compile
@pytest.mark.parametrize("metric", [LogEuclidean(), LogCholesky(), BuresWasserstein()], ids=repr)
def test_compile(metric):
    mlr = make(metric)
    compiled = torch.compile(mlr, backend="aot_eager", fullgraph=True)
    near(compiled(spd()), mlr(spd()))


def test_shapes_of_logits():
    mlr = make(AffineInvariant())
    assert mlr(spd(6).view(2, 3, 4, 4)).shape == (2, 3, 3)
    assert mlr(spd(1)[0]).shape == (3,)
    assert mlr(spd()[:0]).shape == (0, 3)


def test_packing():
    X = spd(2)
    near(symmetric(pack(X)), X)
    near(triangular(pack_lower(X.tril())), X.tril())
    assert torch.autograd.gradcheck(symmetric, pack(X).requires_grad_(), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(lambda X: pack(X).square(), X[:1].requires_grad_())


def test_log_eig_has_the_functions_of_the_log_euclidean_metric():
    mlr = make(LogEuclidean(1.5, 0.2))
    mlr.P = spd(3, seed=1)
    near(LogEigMLR.from_mlr(mlr)(spd()), mlr(spd()))
    with pytest.raises(TypeError, match="must have the metric LogEuclidean"):
        LogEigMLR.from_mlr(make(LogCholesky()))


def trained(parameters, logits, steps):
    S, y = spd(12), torch.arange(12) % 3
    for _ in range(10):
        steps.zero_grad()
        torch.nn.functional.cross_entropy(logits(S), y).backward()
        steps.step()
    return [p.detach() for p in parameters]


def test_log_euclidean_steps_of_points_are_plain_steps_of_their_logarithms():
    """Proposition 5.1 of Chen et al., CVPR 2024, trajectory by trajectory."""
    from linalg_kernels import logm

    mlr = make(LogEuclidean(), manifold=GeooptManifold(LogEuclidean()))
    mlr.P = start = spd(3, seed=1)
    normal = mlr.normal.detach().clone()
    P, a = trained((mlr.P, mlr.normal), mlr, geoopt.optim.RiemannianSGD(mlr.parameters(), lr=0.1))

    def run(parameters, logits):
        return trained(parameters, logits, torch.optim.SGD(parameters, lr=0.1))

    Z = logm(start).requires_grad_()
    plain = normal.clone().requires_grad_()
    Z, plain = run(
        (Z, plain),
        lambda S, Z=Z, plain=plain: ((logm(S)[:, None] - Z) * symmetric(plain)).sum((-2, -1)),
    )
    near(logm(P), Z, 1e-10)
    near(a, plain, 1e-10)

    # With a free bias in place of the point, the same start goes another way.
    bias = (logm(start) * symmetric(normal)).sum((-2, -1)).requires_grad_()
    other = normal.clone().requires_grad_()
    found = run(
        (bias, other),
        lambda S, b=bias, other=other: (logm(S)[:, None] * symmetric(other)).sum((-2, -1)) - b,
    )
    assert float((found[1] - a).abs().max()) > 1e-3 * float(a.abs().max())


@pytest.mark.bad_input
def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="n must be >= 1"):
        RiemannianMLR(0, 3, LogEuclidean())
    with pytest.raises(ValueError, match="classes must be >= 1"):
        RiemannianMLR(4, 0, LogEuclidean())
    with pytest.raises(TypeError, match="metric must have inner and log, got str"):
        RiemannianMLR(4, 3, "LEM")  # ty: ignore[invalid-argument-type]
    with pytest.raises(ValueError, match="bias must be 'point' or 'scalar'"):
        RiemannianMLR(4, 3, LogEuclidean(), bias="none")  # ty: ignore[invalid-argument-type]
    with pytest.raises(ValueError, match="bias='scalar' needs a flat metric"):
        RiemannianMLR(4, 3, AffineInvariant(), bias="scalar")
    with pytest.raises(ValueError, match="leaves no points"):
        RiemannianMLR(
            4, 3, LogEuclidean(), bias="scalar", manifold=geoopt.SymmetricPositiveDefinite()
        )
    with pytest.raises(ValueError, match="learn_theta needs a closed form"):
        RiemannianMLR(4, 3, LogEuclidean(), learn_theta=True)
    with pytest.raises(ValueError, match="θ other than 0"):
        RiemannianMLR(4, 3, LogCholesky(0.0), learn_theta=True)
    with pytest.raises(ValueError, match="beta must exceed"):
        RiemannianMLR(3, 3, LogEuclidean(1.0, -1 / 3))
    mlr = make(LogEuclidean())
    with pytest.raises(ValueError, match=r"P must be \(3, 4, 4\), got \(2, 4, 4\)"):
        mlr.P = spd(2)
    with pytest.raises(ValueError, match=r"A must be \(3, 4, 4\)"):
        mlr.A = spd(2)
    with pytest.raises(ValueError, match=r"S must be \(..., n, n\) with n=4"):
        mlr(spd(n=3))
    with pytest.raises(TypeError, match="S and the parameters must have one dtype"):
        mlr(spd().float())
