"""What experiments compare, each with as many configurations to choose from as the others."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from linalg_kernels import chol_log, expm
from linalg_kernels.packed import pack, symmetric
from spd_metrics import (
    AffineInvariant,
    BuresWasserstein,
    BuresWassersteinCholesky,
    LogCholesky,
    LogEuclidean,
    Metric,
    PowerCholesky,
    PowerEuclidean,
)
from torch import Tensor, nn

from rmlr.families import form_of
from rmlr.log_eig import LogEigMLR
from rmlr.mlr import RiemannianMLR

BASELINE = "LogEig"
RATES = (1e-2, 3e-2, 1e-1)
RATE = 3e-2


@runtime_checkable
class Classifier(Protocol):
    """Logits in two steps, so that features of fixed samples are computed once."""

    def features(self, S: Tensor) -> Tensor: ...
    def logits(self, F: Tensor) -> Tensor: ...


class GyroMLR(nn.Module):
    """Logits of Nguyen and Yang 2023: normals are points W of the gyrovector space.

    They equal those of `scores` with A = log W (log-Euclidean, affine-invariant) and with
    A_½ = φ(W), φ the log-Cholesky chart (log-Cholesky), at θ = 1: what differs is how normals
    are parametrised and where they start. P = exp(Z), W = exp(Y), Z = 0 and entries of Y
    N(0, 2/(n (n + 1))) at the start.
    """

    def __init__(self, n: int, classes: int, metric: Metric) -> None:
        super().__init__()
        m = n * (n + 1) // 2
        self.form = form_of(metric)
        self.by_factor = isinstance(metric, LogCholesky)
        self.location = nn.Parameter(torch.zeros(classes, m, dtype=torch.float64))
        spread = math.sqrt(1 / m)
        self.normal = nn.Parameter(spread * torch.randn(classes, m, dtype=torch.float64))

    def features(self, S: Tensor) -> Tensor:
        return self.form.features(S)

    def logits(self, F: Tensor) -> Tensor:
        a = self.normal
        if not self.by_factor:
            X = self.form.place_of(self.location)
        else:
            X = self.form.place(expm(symmetric(self.location)))
            phi = chol_log(expm(symmetric(a)))
            a = pack(phi + phi.mT)
        return self.form.scores(F, X, a)

    def forward(self, S: Tensor) -> Tensor:
        return self.logits(self.features(S))


@dataclass(frozen=True)
class Configuration:
    """One way to run a method: its classifier and the step size of its optimiser."""

    label: str
    make: Callable[[int, int], nn.Module]
    rate: float = RATE


def _of_metrics(metrics: Mapping[str, Callable[[int], Metric]]) -> tuple[Configuration, ...]:
    def make(metric: Callable[[int], Metric]) -> Callable[[int, int], nn.Module]:
        return lambda n, c: RiemannianMLR(n, c, metric(n), dtype=torch.float64)

    return tuple(Configuration(label, make(metric)) for label, metric in metrics.items())


def _with_theta(
    metric: Callable[[float], Metric], thetas: tuple[float, ...]
) -> tuple[Configuration, ...]:
    def fixed(theta: float) -> Callable[[int], Metric]:
        return lambda _n: metric(theta)

    return _of_metrics({f"θ={theta:g}": fixed(theta) for theta in thetas})


def _with_rates(make: Callable[[int, int], nn.Module]) -> tuple[Configuration, ...]:
    return tuple(Configuration(f"rate {rate:g}", make, rate) for rate in RATES)


def _gyro(metric: Metric) -> tuple[Configuration, ...]:
    return _with_rates(lambda n, c: GyroMLR(n, c, metric))


METHODS: dict[str, tuple[Configuration, ...]] = {
    BASELINE: _with_rates(lambda n, c: LogEigMLR(n, c, dtype=torch.float64)),
    "Gyro log-Euclidean": _gyro(LogEuclidean()),
    "Gyro affine-invariant": _gyro(AffineInvariant()),
    "Gyro log-Cholesky": _gyro(LogCholesky()),
    "log-Euclidean": _of_metrics(
        {
            "β=0": lambda _: LogEuclidean(),
            "β=1/n²": lambda n: LogEuclidean(1.0, 1 / n**2),
            "β=1": lambda _: LogEuclidean(1.0, 1.0),
        }
    ),
    "affine-invariant": _with_theta(AffineInvariant, (0.5, 1.0, 1.5)),
    "power-Euclidean": _with_theta(PowerEuclidean, (0.25, 0.5, 1.0)),
    "log-Cholesky": _with_theta(LogCholesky, (0.5, 1.0, 1.5)),
    "Bures-Wasserstein": _with_theta(BuresWasserstein, (0.25, 0.5, 0.75)),
    "power-Cholesky": _with_theta(PowerCholesky, (0.5, 1.0, 1.5)),
    "Bures-Wasserstein-Cholesky": _with_theta(BuresWassersteinCholesky, (0.5, 1.0, 1.5)),
}
"""Three configurations each. Which of them is used is decided on validation data."""
