"""Metrics under torch.func, second derivatives and torch.compile."""

import pytest
import torch
from linalg_kernels.testing import (
    check_compile,
    check_forward_mode,
    check_func,
    check_gradgrad,
    check_vmap,
)
from spd_metrics import (
    AffineInvariant,
    BuresWasserstein,
    LogCholesky,
    LogEuclidean,
    PowerCholesky,
    PowerEuclidean,
)
from spd_metrics.testing import Sample
from torch.autograd import gradgradcheck

METRICS = [
    AffineInvariant(),
    AffineInvariant(theta=0.5, beta=0.2),
    LogEuclidean(),
    LogCholesky(),
    LogCholesky(theta=0.5),
    PowerEuclidean(theta=0.5),
    BuresWasserstein(),
    PowerCholesky(theta=0.5),
]


def of_symmetric(fn):
    """fn of the symmetric parts, so that finite differences stay on the manifold."""
    return lambda *args: fn(*((A + A.mT) / 2 for A in args))


def squared(metric):
    return of_symmetric(lambda P, Q: metric.dist(P, Q) ** 2)


@pytest.fixture(params=METRICS, ids=repr)
def metric(request):
    return request.param


@pytest.fixture
def sample(metric):
    return Sample.draw(metric, n=3, batch=2, cond=5.0)


def test_second_derivatives(metric, sample):
    check_gradgrad(squared(metric), (sample.P[:1], sample.Q[:1]))


@pytest.mark.parametrize("name", ["log", "exp", "transport", "inner"])
def test_second_derivatives_of_maps(metric, name):
    # Those of charts by a function of the matrix contain a derivative of it already.
    s = Sample.draw(metric, n=2, batch=1, cond=5.0)
    given = {
        "log": (s.P, s.Q),
        "exp": (s.P, s.V),
        "transport": (s.P, s.Q, s.V),
        "inner": (s.P, s.V, s.W),
    }[name]
    leaves = tuple(T.requires_grad_() for T in given)
    assert gradgradcheck(of_symmetric(getattr(metric, name)), leaves, fast_mode=True)


@pytest.mark.parametrize("theta", [1e-3, 0.0])
@pytest.mark.parametrize("kind", [AffineInvariant, LogCholesky, PowerEuclidean, BuresWasserstein])
def test_second_derivatives_of_small_powers(kind, theta):
    s = Sample.draw(kind(theta), n=2, batch=1, cond=5.0)
    leaves = tuple(T.requires_grad_() for T in (s.P, s.Q))
    assert gradgradcheck(of_symmetric(kind(theta).log), leaves, fast_mode=True)


def test_a_gradient_penalty():
    # The Hessian of a loss on tangent vectors at equal eigenvalues, by finite differences.
    metric, P = LogEuclidean(), torch.eye(3, dtype=torch.float64)[None]
    Q = Sample.draw(metric, n=3, batch=1).Q

    def penalty(A):
        loss = metric.log(P + (A + A.mT) / 2, Q).square().sum()
        (gradient,) = torch.autograd.grad(loss, A, create_graph=True)
        return gradient.square().sum()

    A = torch.zeros_like(P).requires_grad_()
    (slope,) = torch.autograd.grad(penalty(A), A)
    step = torch.zeros_like(P)
    step[0, 0, 1] = step[0, 1, 0] = 1e-5
    ends = [float(penalty((sign * step).requires_grad_()).detach()) for sign in (1, -1)]
    assert float((slope * step).sum() / 1e-5) == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-6)


def test_second_derivative_of_the_squared_distance_where_points_meet(metric, sample):
    # d²(P, P + hV) = h² g_P(V, V) + O(h³): the Hessian is twice the inner product.
    P, V = sample.P[0], sample.V[0]

    def along(h):
        return metric.dist(P, P + h * V) ** 2

    h = torch.tensor(1e-3, dtype=P.dtype)
    second = torch.func.grad(torch.func.grad(along))(h)
    torch.testing.assert_close(second, 2 * metric.inner(P, V, V), rtol=2e-2, atol=0)


def test_forward_mode(metric, sample):
    check_forward_mode(squared(metric), (sample.P[:1], sample.Q[:1]))
    check_forward_mode(of_symmetric(metric.log), (sample.P[:1], sample.Q[:1]))
    check_forward_mode(of_symmetric(metric.exp), (sample.P[:1], sample.V[:1]))


def test_vmap(metric, sample):
    check_vmap(metric.dist, (sample.P, sample.Q))
    check_vmap(metric.log, (sample.P, sample.Q))
    check_vmap(metric.exp, (sample.P, sample.V))


def test_functional_derivatives(metric, sample):
    check_func(squared(metric), (sample.P[0], sample.Q[0]))


def test_mean_under_vmap(metric, sample):
    sets = torch.stack([sample.P, sample.Q])
    torch.testing.assert_close(
        torch.func.vmap(metric.mean)(sets), metric.mean(sets), rtol=1e-8, atol=1e-9
    )


COMPILED = [
    AffineInvariant(theta=0.5, beta=0.2),
    LogCholesky(theta=0.5),
    BuresWasserstein(),
    PowerCholesky(theta=0.5),
]


@pytest.mark.compile
@pytest.mark.parametrize("metric", COMPILED, ids=repr)
def test_compile(metric):
    s = Sample.draw(metric, n=3, batch=2, cond=5.0)
    t = torch.tensor([0.2, 0.7], dtype=s.P.dtype)

    def operations(P, Q, V):
        results = metric.dist(P, Q), metric.log(P, Q), metric.exp(P, V), metric.inner(P, V, V)
        results += (metric.geodesic(P, Q, t),)
        # This one is integrated, in thousands of nodes.
        if isinstance(metric, BuresWasserstein):
            return results
        return *results, metric.transport(P, Q, V)

    check_compile(operations, (s.P, s.Q, s.V), "aot_eager")
