"""scikit-learn estimators: the library's own checks, pyRiemann's answers, every metric."""

import pickle
import warnings

import numpy as np
import pytest
import torch
from linalg_kernels.testing import random_spd
from pyriemann import classification, tangentspace
from sklearn.base import clone
from sklearn.exceptions import NotFittedError, SkipTestWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
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
from spd_metrics.estimators import MDM, TangentSpace

METRICS = [
    AffineInvariant(),
    LogEuclidean(),
    LogCholesky(),
    PowerEuclidean(0.5),
    BuresWasserstein(),
    PowerCholesky(0.5),
]


@pytest.fixture(scope="module")
def problem():
    generator = torch.Generator().manual_seed(0)
    centres = random_spd(3, 4, cond=30.0, generator=generator)
    y = torch.arange(60) % 3
    noise = 0.4 * torch.randn(60, 4, 4, generator=generator, dtype=torch.float64)
    L = torch.linalg.cholesky(centres)[y]
    X = L @ torch.linalg.matrix_exp(noise + noise.mT) @ L.mT
    return X.numpy(), np.array(["a", "b", "c"])[y.numpy()]


class _OnVectors:
    """Vectors x as matrices diag(exp(x)), for checks that can only make vectors."""

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()  # ty: ignore[missing-attribute]
        tags.input_tags.two_d_array = True
        tags.input_tags.three_d_array = False
        return tags

    def _read(self, X, *, reset=False):
        X = validate_data(self, X, reset=reset, dtype=[np.float64, np.float32])
        return torch.diag_embed(torch.exp(torch.from_numpy(X.copy()) / 4))


class VectorMDM(_OnVectors, MDM):
    pass


class VectorTangentSpace(_OnVectors, TangentSpace):
    pass


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("estimator", "least"),
    [(MDM(), 1), (TangentSpace(), 1), (VectorMDM(), 45), (VectorTangentSpace(), 35)],
    ids=repr,
)
def test_check_estimator(estimator, least):
    with warnings.catch_warnings():
        # It cannot make matrices, and says that it leaves most checks of matrices out.
        warnings.simplefilter("ignore", SkipTestWarning)
        results = check_estimator(estimator, on_fail=None)
    failed = {r["check_name"]: r["exception"] for r in results if r["status"] == "failed"}
    assert not failed
    assert sum(r["status"] == "passed" for r in results) >= least


@pytest.mark.parametrize(
    ("metric", "name"),
    [(AffineInvariant(), "riemann"), (LogEuclidean(), "logeuclid"), (LogCholesky(), "logchol"),
     (BuresWasserstein(), "wasserstein"), (PowerEuclidean(), "euclid")],
)  # fmt: skip
def test_pyriemanns_mdm(problem, metric, name):
    X, y = problem
    weights = np.linspace(1, 2, len(y))
    ours = MDM(metric).fit(X, y, sample_weight=weights)
    theirs = classification.MDM(metric=name).fit(X, y, sample_weight=weights)
    # pyRiemann stops its iterations at 1e-8 (Karcher) and 1e-9.
    np.testing.assert_allclose(ours.means_, theirs.covmeans_, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(ours.transform(X), theirs.transform(X), rtol=1e-5, atol=1e-6)
    assert (ours.predict(X) == theirs.predict(X)).all()
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), rtol=1e-3, atol=1e-6)


def test_pyriemanns_tangent_space(problem):
    X, _ = problem
    ours, theirs = TangentSpace().fit(X), tangentspace.TangentSpace(metric="riemann").fit(X)
    np.testing.assert_allclose(ours.reference_, theirs.reference_, rtol=1e-6, atol=1e-6)
    # pyRiemann lists the upper triangle row by row, we the lower one.
    rows, columns = np.triu_indices(4)
    order = np.lexsort((rows, columns))
    np.testing.assert_allclose(
        ours.transform(X), theirs.transform(X)[:, order], rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("metric", METRICS, ids=repr)
def test_tangent_vectors_have_the_metrics_lengths(problem, metric):
    X, _ = problem
    space = TangentSpace(metric).fit(X)
    vectors = space.transform(X)
    M = torch.from_numpy(space.reference_)
    lengths = metric.dist(M, torch.from_numpy(X)).numpy()
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), lengths, rtol=1e-8)
    np.testing.assert_allclose(vectors.mean(0), 0, atol=1e-7 * lengths.max())
    np.testing.assert_allclose(space.inverse_transform(vectors), X, rtol=1e-7, atol=1e-8)


def test_volts_squared(problem):
    X, y = problem
    small, large = MDM().fit(1e-12 * X, y), MDM().fit(X, y)
    np.testing.assert_allclose(small.transform(1e-12 * X), large.transform(X), rtol=1e-9)
    vectors = TangentSpace().fit_transform(1e-12 * X)
    np.testing.assert_allclose(vectors, TangentSpace().fit_transform(X), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("metric", METRICS, ids=repr)
def test_every_metric_classifies(problem, metric):
    X, y = problem
    assert MDM(metric).fit(X[:45], y[:45]).score(X[45:], y[45:]) > 0.8
    pipeline = make_pipeline(TangentSpace(metric), LogisticRegression())
    assert pipeline.fit(X[:45], y[:45]).score(X[45:], y[45:]) > 0.8


def test_search_over_metrics(problem):
    X, y = problem
    search = GridSearchCV(MDM(), {"metric": [None, *METRICS]}, cv=3).fit(X, y)
    assert search.best_score_ > 0.8
    assert clone(search.best_estimator_).get_params()["metric"] == search.best_params_["metric"]


def test_fitted_estimators_pickle(problem):
    X, y = problem
    for estimator in (MDM(LogEuclidean()).fit(X, y), TangentSpace().fit(X)):
        again = pickle.loads(pickle.dumps(estimator))
        np.testing.assert_array_equal(again.transform(X), estimator.transform(X))


def test_single_precision(problem):
    X, y = problem
    model = MDM().fit(X.astype(np.float32), y)
    assert model.means_.dtype == np.float32
    assert (model.predict(X.astype(np.float32)) == MDM().fit(X, y).predict(X)).mean() > 0.95


def test_errors(problem):
    X, y = problem
    with pytest.raises(NotFittedError):
        MDM().predict(X)
    with pytest.raises(ValueError, match=r"X must be \(samples, n, n\), got \(60, 16\)"):
        MDM().fit(X.reshape(60, 16), y)
    with pytest.raises(ValueError, match="X has 3 features, but MDM is expecting 4"):
        MDM().fit(X, y).predict(X[:, :3, :3])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        MDM().fit(X, y[:-1])
    with pytest.raises(ValueError, match="NaN"):
        TangentSpace().fit(np.full((3, 2, 2), np.nan))
    with pytest.raises(ValueError, match=r"X must be \(samples, 10\), got \(2, 9\)"):
        TangentSpace().fit(X).inverse_transform(np.zeros((2, 9)))
