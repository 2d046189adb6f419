"""Gyro structures from a metric's own operations, and the means they define.

P ⊕ Q = Exp_P(transport_{I→P} Log_I Q) and t ⊙ P = Exp_I(t Log_I P) make every metric with
transport from I a gyrogroup with multiplication by numbers (Nguyen and Yang 2023); metrics
offer them as `gyro_add`, `gyro_neg` and `gyro_scale`. Here are the operations made of these.
"""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from spd_metrics.metric import Metric


@runtime_checkable
class GyroMetric(Metric, Protocol):
    """A metric with gyro operations."""

    def gyro_add(
        self, P: Float[Tensor, "*#batch n n"], Q: Float[Tensor, "*#batch n n"], /
    ) -> Float[Tensor, "*batch n n"]:
        """P ⊕ Q."""
        ...

    def gyro_neg(self, P: Float[Tensor, "*batch n n"], /) -> Float[Tensor, "*batch n n"]:
        """⊖P."""
        ...

    def gyro_scale(
        self, t: Tensor | float, P: Float[Tensor, "*batch n n"], /
    ) -> Float[Tensor, "*batch n n"]:
        """t ⊙ P."""
        ...


def gyrate(
    metric: GyroMetric,
    P: Float[Tensor, "*#batch n n"],
    Q: Float[Tensor, "*#batch n n"],
    R: Float[Tensor, "*#batch n n"],
) -> Float[Tensor, "*batch n n"]:
    """gyr[P, Q] R = ⊖(P ⊕ Q) ⊕ (P ⊕ (Q ⊕ R)): how far ⊕ is from associative.

    The identity for flat metrics, a rotation of R for the affine-invariant one.
    """
    back = metric.gyro_neg(metric.gyro_add(P, Q))
    return metric.gyro_add(back, metric.gyro_add(P, metric.gyro_add(Q, R)))


def gyro_dist(
    metric: GyroMetric, P: Float[Tensor, "*#batch n n"], Q: Float[Tensor, "*#batch n n"]
) -> Float[Tensor, "*batch"]:
    """d(I, ⊖P ⊕ Q), the gyrodistance; the metric's own distance where ⊕ is an isometry."""
    identity = torch.eye(P.shape[-1], dtype=P.dtype, device=P.device)
    return metric.dist(identity, metric.gyro_add(metric.gyro_neg(P), Q))


def gyro_barycenter(
    metric: GyroMetric,
    X: Float[Tensor, "*batch b n n"],
    weights: Float[Tensor, "*#batch b"] | None = None,
) -> Float[Tensor, "*batch n n"]:
    """The point M that minimises Σ w_i d(I, ⊖M ⊕ X_i)²: the metric's Fréchet mean.

    Left gyrotranslations are isometries for every metric here whose gyro operations are
    defined on all of the manifold, so that the two sums agree term by term.
    """
    return metric.mean(X, weights)
