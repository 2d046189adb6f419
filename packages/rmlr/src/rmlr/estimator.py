"""Multinomial logistic regression of covariance matrices for scikit-learn (extra `sklearn`)."""

import warnings
from collections.abc import Callable

import numpy as np
import torch
from linalg_kernels import logdet
from numpy.typing import ArrayLike
from scipy.optimize import minimize
from sklearn.base import ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import assert_all_finite, check_consistent_length, column_or_1d
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted
from spd_metrics import LogEuclidean, Metric
from spd_metrics.estimators import MatrixEstimator
from torch import Tensor

from rmlr.flat import Flat
from rmlr.mlr import RiemannianMLR


class RiemannianLogisticRegression(ClassifierMixin, MatrixEstimator):
    """Multinomial logistic regression under a metric, fitted by L-BFGS.

    Minimises Σ_i weight_i log-loss_i/Σ_i weight_i + ‖A‖²/(2 C Σ_i weight_i) over the normals A
    and, for a flat metric, a bias: a convex problem, whose answer does not depend on the start.
    For a curved metric points start at the Fréchet mean, and their unconstrained numbers
    (`RiemannianMLR.location`) are drawn to those of the mean by the same penalty. Matrices are
    first divided by their geometric mean size, exp of the mean of log det/n, so that C has one
    meaning in every unit.

    Args:
        metric: Any metric on SPD matrices; None means `LogEuclidean()`. `GridSearchCV` may
            search over metrics, and so over θ: {"metric": [LogCholesky(t) for t in (0.5, 1)]}.
        C: Inverse strength of the penalty, > 0.
        class_weight: None, "balanced" or a dictionary {label: weight}, as in scikit-learn.
        max_iter: Of L-BFGS. `ConvergenceWarning` says when it did not suffice.
        tol: Largest entry of the gradient at the end.

    Attributes:
        classes_: Labels, sorted.
        model_: The fitted `RiemannianMLR`, for matrices divided by `scale_`.
        scale_: What matrices are divided by.
        n_features_in_: Size of the matrices.
        n_iter_: Iterations of L-BFGS.
    """

    def __init__(
        self,
        metric: Metric | None = None,
        C: float = 1.0,
        class_weight: str | dict | None = None,
        max_iter: int = 1000,
        tol: float = 1e-5,
    ) -> None:
        self.metric = metric
        self.C = C
        self.class_weight = class_weight
        self.max_iter = max_iter
        self.tol = tol

    def fit(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> "RiemannianLogisticRegression":
        """Fit matrices X (samples, n, n) with labels y (samples,)."""
        if not self.C > 0:
            raise ValueError(f"C must be > 0, got {self.C}")
        matrices = self._read(X, reset=True)
        labels = column_or_1d(y, warn=True)
        assert_all_finite(labels, input_name="y")
        check_classification_targets(labels)
        check_consistent_length(matrices, labels)
        self.classes_, targets = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y must have at least 2 classes, got 1 class: {self.classes_[0]!r}")
        weights = _check_sample_weight(sample_weight, matrices.numpy(), dtype=np.float64)
        used = weights > 0
        if len(np.unique(targets[used])) < len(self.classes_):
            raise ValueError("sample_weight must be > 0 somewhere in each class of y")
        share = torch.from_numpy(weights[used])
        S = matrices[torch.from_numpy(used)]
        logs = logdet(S, name="X") / S.shape[-1]
        self.scale_ = float(torch.exp((share * logs).sum() / share.sum()))
        by_class = compute_sample_weight(self.class_weight, labels[used])
        share = share * torch.from_numpy(by_class)
        self._minimise(S / self.scale_, torch.from_numpy(targets[used]), share)
        return self

    def _minimise(self, S: Tensor, targets: Tensor, share: Tensor) -> None:
        metric = LogEuclidean() if self.metric is None else self.metric
        n, c = S.shape[-1], len(self.classes_)
        # The random start of the normals is not used: it would need a generator of its own.
        with torch.random.fork_rng(devices=[]):
            model = RiemannianMLR(n, c, metric, dtype=torch.float64)
            flat = isinstance(model.form, Flat)
            if flat:
                model = RiemannianMLR(n, c, metric, bias="scalar", dtype=torch.float64)
        with torch.no_grad():
            model.normal.zero_()
            if flat:
                model.bias.zero_()
            else:
                model.P = metric.mean(S, share).expand(c, n, n)
            features = model.features(S)
        start = None if flat else model.location.detach().clone()
        parameters = list(model.parameters())
        penalty = 1 / (self.C * float(share.sum()))

        def objective() -> Tensor:
            logits = model.logits(features)
            loss = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
            size = model.A.square().sum()
            if start is not None:
                # Else points could run away and take the place of larger normals.
                size = size + (model.location - start).square().sum()
            return (share * loss).sum() / share.sum() + penalty / 2 * size

        found = minimize(
            _on_vectors(objective, parameters),
            torch.nn.utils.parameters_to_vector(parameters).detach().numpy(),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": self.max_iter, "gtol": self.tol, "ftol": 0.0, "maxcor": 20},
        )
        _assign(found.x, parameters)
        self.n_iter_ = int(found.nit)
        if found.status == 1:
            warnings.warn(
                f"L-BFGS did not converge in max_iter={self.max_iter} iterations; raise it",
                ConvergenceWarning,
                stacklevel=3,
            )
        self.model_ = model.requires_grad_(False)

    def _read(self, X: ArrayLike, *, reset: bool = False) -> Tensor:
        return super()._read(X, reset=reset).double()

    def _scores(self, X: ArrayLike) -> Tensor:
        check_is_fitted(self)
        return self.model_(self._read(X) / self.scale_)

    def decision_function(self, X: ArrayLike) -> np.ndarray:
        """Logits (samples, classes); for two classes the difference of the two (samples,)."""
        logits = self._scores(X)
        return (logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits).numpy()

    def predict(self, X: ArrayLike) -> np.ndarray:
        """The most probable label of each matrix."""
        chosen = self._scores(X).argmax(1).numpy()
        return self.classes_[chosen]

    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """Probabilities (samples, classes): softmax of the logits."""
        return torch.softmax(self._scores(X), 1).numpy()

    def predict_log_proba(self, X: ArrayLike) -> np.ndarray:
        """Logarithms of the probabilities."""
        return torch.log_softmax(self._scores(X), 1).numpy()


def _assign(x: np.ndarray, parameters: list[torch.nn.Parameter]) -> None:
    torch.nn.utils.vector_to_parameters(torch.from_numpy(x.copy()), parameters)


def _on_vectors(
    objective: Callable[[], Tensor], parameters: list[torch.nn.Parameter]
) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
    """Value and gradient as functions of one vector, as scipy calls them."""

    def call(x: np.ndarray) -> tuple[float, np.ndarray]:
        _assign(x, parameters)
        with torch.enable_grad():
            value = objective()
            gradients = torch.autograd.grad(value, parameters)
        vector = torch.cat([g.flatten() for g in gradients])
        return float(value.detach()), vector.numpy()

    return call
