"""The scikit-learn estimator: the library's own checks, convexity, units, calibration."""

import warnings

import numpy as np
import pytest
import torch
from linalg_kernels import LinAlgError, logm, vech
from linalg_kernels.testing import random_spd
from rmlr.estimator import RiemannianLogisticRegression
from sklearn.exceptions import ConvergenceWarning, SkipTestWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.utils.estimator_checks import check_estimator
from sklearn.utils.validation import validate_data
from spd_metrics import (
    AffineInvariant,
    BuresWasserstein,
    LogCholesky,
    LogEuclidean,
    PowerCholesky,
    PowerEuclidean,
)


@pytest.fixture(scope="module")
def problem():
    """Three overlapping classes of 4 x 4 matrices, with unequal sizes."""
    generator = torch.Generator().manual_seed(0)
    centres = random_spd(3, 4, cond=5.0, generator=generator)
    y = (torch.rand(150, generator=generator) * 4).long().clamp(max=2)
    noise = 0.3 * torch.randn(150, 4, 4, generator=generator, dtype=torch.float64)
    L = torch.linalg.cholesky(centres)[y]
    X = L @ torch.linalg.matrix_exp(noise + noise.mT) @ L.mT
    return X.numpy(), np.array(["a", "b", "c"])[y.numpy()]


class OnVectors(RiemannianLogisticRegression):
    """Vectors x as matrices diag(exp(x/4)), for checks that can only make vectors."""

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        tags.input_tags.three_d_array = False
        return tags

    def _read(self, X, *, reset=False):
        X = validate_data(self, X, reset=reset, dtype=[np.float64, np.float32])
        return torch.diag_embed(torch.exp(torch.from_numpy(X.astype(np.float64)) / 4))


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("estimator", "least"), [(RiemannianLogisticRegression(), 1), (OnVectors(), 55)], ids=repr
)
def test_check_estimator(estimator, least):
    with warnings.catch_warnings():
        # It cannot make matrices, and says that it leaves most checks of matrices out.
        warnings.simplefilter("ignore", SkipTestWarning)
        warnings.simplefilter("ignore", ConvergenceWarning)
        results = check_estimator(estimator, on_fail=None)
    failed = {r["check_name"]: r["exception"] for r in results if r["status"] == "failed"}
    assert not failed
    assert sum(r["status"] == "passed" for r in results) >= least


def test_log_euclidean_is_scikit_learns_regression_on_logarithms(problem):
    X, y = problem
    ours = RiemannianLogisticRegression(C=0.3, tol=1e-9).fit(X, y)
    logs = vech(logm(torch.from_numpy(X / ours.scale_)), weighted=True).numpy()
    theirs = LogisticRegression(C=0.3, tol=1e-10, max_iter=5000).fit(logs, y)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(logs), atol=1e-6)
    np.testing.assert_allclose(np.exp(ours.predict_log_proba(X)), ours.predict_proba(X), rtol=1e-12)
    weights = np.linspace(0.1, 2, len(y))
    ours = RiemannianLogisticRegression(C=0.3, class_weight="balanced", tol=1e-9)
    ours.fit(X, y, sample_weight=weights)
    logs = vech(logm(torch.from_numpy(X / ours.scale_)), weighted=True).numpy()
    share = weights * (len(y) / 3 / np.array([(y == label).sum() for label in y]))
    theirs.fit(logs, y, sample_weight=share)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(logs), atol=1e-6)


@pytest.mark.parametrize(
    "metric",
    [LogEuclidean(), PowerEuclidean(0.5), PowerEuclidean(), LogCholesky(0.5), PowerCholesky(0.5)],
    ids=repr,
)
def test_flat_metrics_learn_the_same_in_every_unit(problem, metric):
    X, y = problem
    model = RiemannianLogisticRegression(metric, tol=1e-7).fit(X, y)
    assert model.score(X, y) > 0.8
    scaled = RiemannianLogisticRegression(metric, tol=1e-7).fit(1e-12 * X, y)
    np.testing.assert_allclose(scaled.predict_proba(1e-12 * X), model.predict_proba(X), atol=1e-4)


@pytest.mark.parametrize("metric", [AffineInvariant(), BuresWasserstein(0.25)], ids=repr)
def test_curved_metrics_learn_in_every_unit(problem, metric):
    X, y = problem
    for unit in (1.0, 1e-12):
        model = RiemannianLogisticRegression(metric, C=0.1, tol=1e-2).fit(unit * X, y)
        assert model.score(unit * X, y) > 0.8


def test_probabilities_are_calibrated():
    """Samples of the model's own kind: predicted probabilities are frequencies."""
    generator = torch.Generator().manual_seed(1)
    S = random_spd(4000, 3, cond=10.0, generator=generator)
    A = torch.randn(3, 3, 3, generator=generator, dtype=torch.float64)
    logits = (logm(S)[:, None] * (A + A.mT) / 2).sum((-2, -1))
    y = torch.multinomial(torch.softmax(logits, 1), 1, generator=generator)[:, 0].numpy()
    X = S.numpy()
    p = RiemannianLogisticRegression(C=100.0).fit(X[:2000], y[:2000]).predict_proba(X[2000:])
    for k in range(3):
        order = np.argsort(p[:, k])
        for some in np.array_split(order, 5):
            hits, expected = (y[2000:][some] == k).mean(), p[some, k].mean()
            spread = np.sqrt(expected * (1 - expected) / len(some)) + 1e-3
            assert abs(hits - expected) < 4 * spread
    truth = torch.softmax(logits, 1).numpy()[2000:]
    assert np.abs(p - truth).mean() < 0.03


def test_theta_by_grid_search(problem):
    X, y = problem
    grid = {"metric": [LogCholesky(theta) for theta in (0.5, 1.0, 1.5)], "C": [1.0]}
    search = GridSearchCV(RiemannianLogisticRegression(), grid, cv=3).fit(X, y)
    assert search.best_params_["metric"] in grid["metric"]
    assert search.best_score_ > 0.6


def test_two_classes(problem):
    X, y = problem
    X, y = X[y != "c"], y[y != "c"]
    model = RiemannianLogisticRegression().fit(X, y)
    decisions = model.decision_function(X)
    assert decisions.shape == (len(y),)
    assert ((decisions > 0) == (model.predict(X) == "b")).all()


def test_fitting_leaves_the_generator_alone(problem):
    X, y = problem
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    RiemannianLogisticRegression().fit(X, y)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.bad_input
def test_bad_input_is_named(problem):
    X, y = problem
    with pytest.raises(ValueError, match="C must be > 0"):
        RiemannianLogisticRegression(C=0.0).fit(X, y)
    with pytest.raises(ValueError, match="1 class"):
        RiemannianLogisticRegression().fit(X, np.zeros(len(y)))
    with pytest.raises(LinAlgError, match=r"X\[0\] must be positive definite"):
        RiemannianLogisticRegression().fit(-X, y)
    with pytest.warns(ConvergenceWarning, match="max_iter=2"):
        RiemannianLogisticRegression(max_iter=2).fit(X, y)
    with pytest.raises(ValueError, match="sample_weight must be > 0 somewhere in each class"):
        RiemannianLogisticRegression().fit(X, y, sample_weight=(y == "a").astype(float))
