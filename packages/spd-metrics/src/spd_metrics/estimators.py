"""scikit-learn estimators of covariance matrices under any metric (extra `sklearn`).

Input is (samples, n, n). Metrics are parameters: `GridSearchCV` may search over them.
"""

import numpy as np
import torch
from linalg_kernels import powm, unvech, vech
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.utils import assert_all_finite, check_array, check_consistent_length, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted
from torch import Tensor

from spd_metrics.affine_invariant import AffineInvariant
from spd_metrics.metric import Metric


class MatrixEstimator(BaseEstimator):
    """What estimators of matrices share: reading input."""

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        return tags

    def _read(self, X: ArrayLike, *, reset: bool = False) -> Tensor:
        array = check_array(
            X, allow_nd=True, ensure_2d=False, dtype=[np.float64, np.float32], input_name="X"
        )
        if array.ndim != 3 or array.shape[1] != array.shape[2]:
            raise ValueError(f"X must be (samples, n, n), got {array.shape}")
        if reset:
            self.n_features_in_ = array.shape[1]
        elif array.shape[1] != self.n_features_in_:
            raise ValueError(
                f"X has {array.shape[1]} features, but {type(self).__name__} is expecting "
                f"{self.n_features_in_} features as input"
            )
        # A copy: what joblib hands to its workers cannot be written to.
        return torch.from_numpy(np.array(array))

    def _weights(self, sample_weight: ArrayLike | None, X: Tensor) -> np.ndarray | None:
        if sample_weight is None:
            return None
        return _check_sample_weight(sample_weight, X.numpy(), dtype=X.numpy().dtype)


class MDM(ClassifierMixin, TransformerMixin, MatrixEstimator):
    """Minimum distance to mean: each class is its Fréchet mean, a matrix goes to the nearest.

    Equivalent to `pyriemann.classification.MDM` where that has the metric.

    Args:
        metric: Any metric on SPD matrices; None means `AffineInvariant()`.

    Attributes:
        classes_: Labels, sorted.
        means_: Means of the classes (classes, n, n).
        n_features_in_: n.
    """

    def __init__(self, metric: Metric | None = None) -> None:
        self.metric = metric

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> "MDM":
        """Mean of each class of X (samples, n, n) with labels y (samples,)."""
        matrices = self._read(X, reset=True)
        labels = column_or_1d(y, warn=True)
        assert_all_finite(labels, input_name="y")
        check_classification_targets(labels)
        check_consistent_length(matrices, labels)
        weights = self._weights(sample_weight, matrices)
        self.classes_ = np.unique(labels)
        metric = self._metric()
        means = []
        for label in self.classes_:
            own = torch.from_numpy(np.flatnonzero(labels == label))
            share = None if weights is None else torch.from_numpy(weights)[own]
            if share is not None and not bool((share > 0).any()):
                raise ValueError(
                    f"sample_weight must be > 0 somewhere in each class, not in {label!r}"
                )
            means.append(metric.mean(matrices[own], share))
        self.means_ = torch.stack(means).numpy()
        return self

    def transform(self, X: ArrayLike) -> np.ndarray:
        """Distances (samples, classes) to the means."""
        check_is_fitted(self)
        matrices = self._read(X)
        means = torch.from_numpy(self.means_).to(matrices.dtype)
        return self._metric().pairwise_dist(matrices, means).numpy()

    def predict(self, X: ArrayLike) -> np.ndarray:
        """The label of the nearest mean."""
        check_is_fitted(self)
        return self.classes_[self.transform(X).argmin(1)]

    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """softmax(-d²) over the classes."""
        return torch.softmax(-(torch.from_numpy(self.transform(X)) ** 2), 1).numpy()

    def _metric(self) -> Metric:
        return AffineInvariant() if self.metric is None else self.metric


class TangentSpace(TransformerMixin, MatrixEstimator):
    """Matrices as vectors (samples, n (n + 1)/2) of the tangent space at their mean.

    x = G^½ vech(Log_M X), where G is the inner product at the reference M in the basis of vech
    with entries off the diagonal times √2: Euclidean lengths of x are lengths of the metric.
    For `AffineInvariant()` this is pyRiemann's tangent space.

    Args:
        metric: Any metric on SPD matrices; None means `AffineInvariant()`.

    Attributes:
        reference_: The mean M (n, n) of what was fitted.
        n_features_in_: n.
    """

    def __init__(self, metric: Metric | None = None) -> None:
        self.metric = metric

    def fit(
        self,
        X: ArrayLike,
        y: object = None,  # noqa: ARG002
        sample_weight: ArrayLike | None = None,
    ) -> "TangentSpace":
        """The mean of X (samples, n, n)."""
        matrices = self._read(X, reset=True)
        weights = self._weights(sample_weight, matrices)
        share = None if weights is None else torch.from_numpy(weights)
        reference = self._metric().mean(matrices, share)
        self.reference_ = reference.numpy()
        self._gram = self._inner_product(reference).numpy()
        return self

    def transform(self, X: ArrayLike) -> np.ndarray:
        """Vectors (samples, n (n + 1)/2)."""
        check_is_fitted(self)
        matrices = self._read(X)
        reference = torch.from_numpy(self.reference_).to(matrices.dtype)
        logs = vech(self._metric().log(reference, matrices), weighted=True, check=False)
        return (logs @ self._root(0.5, matrices)).numpy()

    def inverse_transform(self, X: ArrayLike) -> np.ndarray:
        """Matrices (samples, n, n) of vectors (samples, n (n + 1)/2)."""
        check_is_fitted(self)
        x = torch.from_numpy(check_array(X, dtype=[np.float64, np.float32], input_name="X"))
        if x.shape[1] != len(self._gram):
            raise ValueError(f"X must be (samples, {len(self._gram)}), got {tuple(x.shape)}")
        reference = torch.from_numpy(self.reference_).to(x.dtype)
        V = unvech(x @ self._root(-0.5, x), weighted=True)
        return self._metric().exp(reference, V).numpy()

    def _metric(self) -> Metric:
        return AffineInvariant() if self.metric is None else self.metric

    def _root(self, p: float, like: Tensor) -> Tensor:
        # Relative to its size, as G is the inverse square of the matrices' unit.
        gram = torch.from_numpy(self._gram)
        return powm(gram, p, nonpos="raise").to(like.dtype)

    def _inner_product(self, reference: Tensor) -> Tensor:
        """G, column by column: the gradient of ⟨V, V⟩/2 at each vector of the basis."""
        M = reference.double()
        count = M.shape[-1] * (M.shape[-1] + 1) // 2
        basis = unvech(torch.eye(count, dtype=M.dtype), weighted=True)
        V = basis.requires_grad_()
        half = self._metric().inner(M, V, V).sum() / 2
        (gradient,) = torch.autograd.grad(half, V)
        gram = vech((gradient + gradient.mT) / 2, weighted=True, check=False)
        return (gram + gram.mT) / 2
