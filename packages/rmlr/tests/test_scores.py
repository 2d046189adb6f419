"""Scores: closed forms, invariances, limits and units."""

from dataclasses import dataclass
from itertools import product

import pytest
import torch
from linalg_kernels import LinAlgError, expm, logm, scalar
from linalg_kernels.packed import pack
from linalg_kernels.testing import check_grad, random_spd
from rmlr import carried, cholesky_translation, general_scores, parallel_transport, scores
from rmlr.congruence_trace import congruence_trace, reference
from rmlr.families import GeneralForm, form_of
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

FAMILIES = [
    LogEuclidean(), LogEuclidean(2.0, -0.1),
    AffineInvariant(), AffineInvariant(-0.5, 1.5, 0.3),
    PowerEuclidean(), PowerEuclidean(-0.5, 2.0, 0.2),
    LogCholesky(), LogCholesky(-0.7),
    BuresWasserstein(), BuresWasserstein(0.3),
    PowerCholesky(0.6), BuresWassersteinCholesky(-0.8, (0.5, 1.0, 2.0, 3.0)),
]  # fmt: skip
LIMITS = [AffineInvariant(0.004), PowerEuclidean(0.0), LogCholesky(0.0), LogCholesky(1e-3),
          BuresWasserstein(0.001), BuresWasserstein(0.0), PowerCholesky(0.0)]  # fmt: skip


def draw(seed=0, n=4, samples=5, classes=3, cond=20.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    S = random_spd(samples, n, cond=cond, generator=generator)
    P = random_spd(classes, n, cond=cond, generator=generator)
    A = torch.randn(classes, n, n, generator=generator, dtype=torch.float64)
    return tuple(T.to(dtype) for T in (S, P, A + A.mT))


def close(got, want, rtol=1e-11):
    assert got.shape == want.shape
    assert float((got - want).abs().max()) <= rtol * float(want.abs().max())


@pytest.mark.parametrize("metric", FAMILIES + LIMITS, ids=repr)
def test_closed_forms_are_the_general_formula(metric):
    S, P, A = (T.requires_grad_() for T in draw())
    got, want = scores(metric, S, P, A), general_scores(metric, S, P, A)
    close(got.detach(), want.detach())
    G = torch.randn(got.shape, generator=torch.Generator().manual_seed(1), dtype=got.dtype)
    for ours, general in zip(
        torch.autograd.grad((G * got).sum(), (S, P, A)),
        torch.autograd.grad((G * want).sum(), (S, P, A)),
        strict=True,
    ):
        close((ours + ours.mT) / 2, (general + general.mT) / 2, 1e-10)


@pytest.mark.parametrize("metric", FAMILIES, ids=repr)
def test_families_have_closed_forms(metric):
    assert not isinstance(form_of(metric), GeneralForm)


@pytest.mark.parametrize(
    "metric", [CholeskyLog(), CholeskyPower(0.7), CholeskyBuresWasserstein(1.3, 0.5)], ids=repr
)
def test_metrics_on_cholesky_factors(metric):
    S, P, A = draw()
    K, L, V = torch.linalg.cholesky(S), torch.linalg.cholesky(P), A.tril()
    close(scores(metric, K, L, V), general_scores(metric, K, L, V))


def test_metrics_without_a_closed_form():
    S, P, A = draw(n=3)
    weighted = GeneralizedBuresWasserstein(torch.eye(3))
    plain = general_scores(BuresWasserstein(), S, P, A, carry=parallel_transport)
    close(scores(weighted, S, P, A), plain, 1e-7)


@dataclass(frozen=True)
class Flat:
    """A user's geometry: symmetric matrices as they are, with a translation of its own."""

    def inner(self, P, V, W):
        return (V * W).sum((-2, -1)).expand(torch.broadcast_shapes(P.shape, V.shape)[:-2])

    def log(self, P, Q):
        return Q - P

    def left_translate(self, P, A):
        return 2 * A.expand(P.shape)


@dataclass(frozen=True)
class Derived(LogEuclidean):
    """A metric derived from a family is not that family."""

    @property
    def scale(self):
        return 3.0


def test_geometries_of_a_users_own():
    S, P, A = draw()
    close(scores(Flat(), S, P, A), 2 * scores(PowerEuclidean(), S, P, A))
    close(scores(Derived(), S, P, A), 3 * scores(LogEuclidean(), S, P, A))


@pytest.mark.parametrize("metric", FAMILIES, ids=repr)
def test_zero_at_the_point_and_linear_in_the_normal(metric):
    S, P, A = draw()
    size = scores(metric, S, P, A).abs().max()
    assert float(scores(metric, P, P, A).diagonal().abs().max()) < 1e-12 * float(size)
    twice = scores(metric, S, P, -2 * A)
    close(twice, -2 * scores(metric, S, P, A))


@pytest.mark.parametrize(
    "metric",
    [LogEuclidean(1.0, 0.2), AffineInvariant(0.5, 1.0, 0.2), PowerEuclidean(0.5)],
    ids=repr,
)
def test_rotations_leave_scores(metric):
    S, P, A = draw()
    Q, _ = torch.linalg.qr(draw(3)[2][0])
    turned = scores(metric, *(Q @ T @ Q.mT for T in (S, P, A)))
    close(turned, scores(metric, S, P, A))


def test_bures_wasserstein_is_invariant_by_transport_only():
    S, P, A = draw(n=3)
    Q, _ = torch.linalg.qr(draw(3, n=3)[2][0])
    for carry, invariant in ((parallel_transport, True), (cholesky_translation, False)):
        before = general_scores(BuresWasserstein(), S, P, A, carry=carry)
        after = general_scores(BuresWasserstein(), *(Q @ T @ Q.mT for T in (S, P, A)), carry=carry)
        change = float((after - before).abs().max() / before.abs().max())
        assert (change < 1e-7) if invariant else (change > 1e-2)


def test_log_cholesky_sees_the_order_of_variables():
    S, P, A = draw()
    Q, _ = torch.linalg.qr(draw(3)[2][0])
    before = scores(LogCholesky(), S, P, A)
    after = scores(LogCholesky(), *(Q @ T @ Q.mT for T in (S, P, A)))
    assert float((after - before).abs().max() / before.abs().max()) > 1e-2


def test_alpha_scales_scores():
    S, P, A = draw()
    for one, three in (
        (LogEuclidean(), LogEuclidean(3.0)),
        (AffineInvariant(0.5), AffineInvariant(0.5, 3.0)),
        (PowerEuclidean(0.5), PowerEuclidean(0.5, 3.0)),
    ):
        close(scores(three, S, P, A), 3 * scores(one, S, P, A))


def test_affine_invariant_is_log_euclidean_where_matrices_commute():
    S, P, A = draw()
    S, P = (torch.diag_embed(T.diagonal(dim1=-2, dim2=-1)) for T in (S, P))
    for theta in (-1.0, 0.5, 2.0):
        metric = AffineInvariant(theta, 1.0, 0.3)
        close(scores(metric, S, P, A), scores(LogEuclidean(1.0, 0.3), S, P, A))


def test_one_variable():
    s, p, a = (torch.tensor([x], dtype=torch.float64) for x in (3.0, 0.7, 1.9))
    ratio = torch.log(s / p) * a
    expected = {
        LogEuclidean(2.0, 0.5): 2.5 * ratio,
        AffineInvariant(0.4, 2.0, 0.5): 2.5 * ratio,
        LogCholesky(): ratio / 4,
        LogCholesky(-0.3): ratio / 4,
        BuresWasserstein(0.3): (p**0.3 * s**0.3 - p**0.6) * a / 1.2,
        PowerEuclidean(0.4): (s**0.4 - p**0.4) * a / 0.4,
        PowerCholesky(0.6): (s**0.3 - p**0.3) * a / 1.2,
    }
    for metric, want in expected.items():
        got = scores(metric, *(T.view(1, 1, 1) for T in (s, p, a)))
        close(got, want.view(1, 1), 1e-14)


@pytest.mark.parametrize(
    ("family", "order"), [(PowerEuclidean, 1), (AffineInvariant, 2), (LogCholesky, 1)]
)
def test_limits_of_small_theta(family, order):
    S, P, A = draw()
    logs = logm(S)[:, None] - logm(P)
    if family is LogCholesky:
        halves = torch.ones(4, 4, dtype=torch.float64).tril() - 0.5 * torch.eye(4)
        want = (halves * halves * logs * A).sum((-2, -1))
    else:
        want = scores(LogEuclidean(), S, P, A)
    errors = [
        float((scores(family(theta), S, P, A) - want).abs().max()) for theta in (0.08, 0.04, 0.0)
    ]
    assert errors[0] / errors[1] == pytest.approx(2**order, rel=0.2)
    assert errors[2] < 1e-12 * float(want.abs().max())


def test_bures_wasserstein_ends_in_a_quarter_of_log_euclidean():
    S, P, A = draw()
    close(scores(BuresWasserstein(0.0), S, P, A), scores(LogEuclidean(), S, P, A) / 4)


def in_unit(metric, S, P, A, unit):
    """Scores of (unit S, unit P) from those of (S, P): every family knows its own units."""
    plain = scores(metric, S, P, A)
    if isinstance(metric, PowerEuclidean):
        return unit**metric.theta * plain
    if isinstance(metric, BuresWasserstein):
        return unit ** (2 * metric.theta) * plain
    return plain


@pytest.mark.parametrize("unit", [1e-12, 1e-4, 1e6])
@pytest.mark.parametrize(
    "metric",
    [LogEuclidean(1.0, 0.1), AffineInvariant(0.5), PowerEuclidean(0.5), PowerEuclidean(-1.0),
     BuresWasserstein(), BuresWasserstein(0.25)],
    ids=repr,
)  # fmt: skip
def test_units(metric, unit):
    S, P, A = draw(cond=100.0)
    S, P, A = S.requires_grad_(), P.requires_grad_(), A.requires_grad_()
    want = in_unit(metric, S, P, A, unit)
    got = scores(metric, unit * S, unit * P, A)
    close(got.detach(), want.detach(), 1e-11)
    G = torch.ones_like(got)
    for ours, other in zip(
        torch.autograd.grad(got, (S, P, A), G), torch.autograd.grad(want, (S, P, A), G), strict=True
    ):
        close(ours, other, 1e-10)
    single = scores(metric, *((unit * T).detach().float() for T in (S, P)), A.detach().float())
    close(single.double(), want.detach(), 1e-4)


def test_log_cholesky_units():
    S, P, A = draw(cond=100.0)
    want = scores(LogCholesky(), S, P, A)
    for unit in (1e-12, 1e6):
        rest = scores(LogCholesky(), unit * S, unit * P, A)
        strict = scores(LogCholesky(), unit * S, unit * P, A - torch.diag_embed(
            A.diagonal(dim1=-2, dim2=-1)))  # fmt: skip
        close(strict / unit**0.5 + rest - strict, want)


@pytest.mark.parametrize("metric", FAMILIES[:10:2], ids=repr)
def test_gradients_where_eigenvalues_meet(metric):
    identity = torch.eye(3, dtype=torch.float64)
    S = torch.stack([2 * identity, torch.diag(torch.tensor([1.0, 1.0, 3.0])).double()])
    P = torch.stack([identity, draw(n=3)[1][0]])
    A = draw(n=3, classes=2)[2]
    check_grad(lambda S, P, A: scores(metric, *((T + T.mT) / 2 for T in (S, P, A))), (S, P, A))


def test_congruence_trace_is_its_reference():
    S, P, A = (T.requires_grad_() for T in draw())
    for f in (scalar.LOG, scalar.SQRT):
        close(congruence_trace(S, P, A, f).detach(), reference(S, P, A, f).detach())
        check_grad(lambda *T, f=f: congruence_trace(*((X + X.mT) / 2 for X in T), f), (S, P, A))
    small = [T.detach()[:2, :2, :2].clone().requires_grad_() for T in (S, P, A)]
    assert torch.autograd.gradgradcheck(
        lambda *T: congruence_trace(*((X + X.mT) / 2 for X in T), scalar.SQRT), small
    )


@pytest.mark.parametrize("wanted", list(product([True, False], repeat=3))[:-1], ids=str)
@pytest.mark.parametrize("block", [1, 1 << 22])
def test_gradients_of_some_are_those_of_all(wanted, block, monkeypatch):
    """Whatever is asked for, and in however many blocks."""
    monkeypatch.setattr("rmlr.congruence_trace._BLOCK_BYTES", block)
    G = torch.randn(len(draw()[0]), len(draw()[1]), dtype=torch.float64)
    inputs = [T.requires_grad_(asked) for T, asked in zip(draw(), wanted, strict=True)]
    got = torch.autograd.grad(
        congruence_trace(*inputs, scalar.LOG), [T for T in inputs if T.requires_grad], G
    )
    every = [T.requires_grad_() for T in draw()]
    want = torch.autograd.grad(reference(*every, scalar.LOG), every, G)
    want = [(T + T.mT) / 2 if i == 0 else T for i, T in enumerate(want)]
    for one, other in zip(
        got, [T for T, asked in zip(want, wanted, strict=True) if asked], strict=True
    ):
        close(one, other)


@pytest.mark.parametrize(
    "metric", [AffineInvariant(), LogEuclidean(), BuresWasserstein()], ids=repr
)
def test_transforms_of_functions(metric):
    S, P, A = draw()

    def loss(A, S):
        return scores(metric, S, P, A).square().sum()

    each = torch.func.vmap(torch.func.grad(loss), (None, 0))(A, S[:, None])
    whole = torch.func.grad(loss)(A, S)
    close(each.sum(0), whole, 1e-10)


@pytest.mark.parametrize(
    "metric", [AffineInvariant(), BuresWasserstein(), PowerEuclidean()], ids=repr
)
def test_batches_of_any_shape(metric):
    S, P, A = draw(samples=6)
    table = scores(metric, S, P, A)
    close(scores(metric, S.view(2, 3, 4, 4), P, A), table.view(2, 3, 3))
    close(scores(metric, S[0], P, A), table[0])
    assert scores(metric, S[:0], P, A).shape == (0, 3)


@pytest.mark.bad_input
def test_bad_input_is_named():
    S, P, A = draw()
    for metric in (LogEuclidean(), AffineInvariant(), LogCholesky(), BuresWasserstein(0.25)):
        bad = S.clone()
        bad[2] = -bad[2]
        with pytest.raises(LinAlgError, match=r"S\[2\]"):
            scores(metric, bad, P, A)
        bad = P.clone()
        bad[1] = -bad[1]
        with pytest.raises(LinAlgError, match=r"P\[1\]"):
            scores(metric, S, bad, A)
    bad = S.clone()
    bad[3, 0, 0] = torch.nan
    with pytest.raises(LinAlgError, match=r"S\[3\]"):
        scores(PowerEuclidean(), bad, P, A)
    bad = A.clone()
    bad[1, 0, 3] += 9
    with pytest.raises(ValueError, match=r"A\[1\] must be symmetric"):
        scores(LogEuclidean(), S, P, bad)
    with pytest.raises(ValueError, match=r"S must be \(..., n, n\) with n=4, got \(5, 4, 3\)"):
        scores(LogEuclidean(), S[..., :3], P, A)
    with pytest.raises(TypeError, match="S and P must have one dtype"):
        scores(LogEuclidean(), S.float(), P, A)
    with pytest.raises(ValueError, match=r"P must be \(classes, n, n\)"):
        scores(LogEuclidean(), S, P[0], A)
    with pytest.raises(ValueError, match="beta must exceed"):
        scores(LogEuclidean(1.0, -0.25), S, P, A)
    with pytest.raises(ValueError, match="weight of the metric must have 1 or n=4"):
        scores(BuresWassersteinCholesky(1.0, (1.0, 2.0)), S, P, A)
    with pytest.raises(TypeError, match="metric must be BuresWasserstein"):
        cholesky_translation(LogEuclidean(), P, A)


@pytest.mark.parametrize("metric", [AffineInvariant(), BuresWasserstein()], ids=repr)
@pytest.mark.parametrize("memory", [None, 1])
def test_a_pair_without_a_score_is_named(metric, memory):
    S, P, A = draw()
    form = form_of(metric)
    F = S.clone()
    F[3, 0, 0] = -1.0
    with pytest.raises(LinAlgError, match=r"S\[3\] seen from P\[0\] must be positive definite"):
        form.scores(F, form.place(P), pack(A), memory)


def test_points_are_carried_as_documented():
    _, P, A = draw()
    close(carried(Flat(), P, A), 2 * A)
    metric = AffineInvariant()
    close(carried(metric, P, A), parallel_transport(metric, P, A))
    roots = torch.linalg.cholesky(P)
    close(carried(BuresWasserstein(), P, A), roots @ A @ roots.mT)
    assert torch.equal(expm(torch.zeros(2, 2)), torch.eye(2))
