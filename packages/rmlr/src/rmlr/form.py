"""What a closed form of the scores of one metric is, and what forms share."""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from linalg_kernels import powm
from spd_metrics.charts import SMALL_THETA, power
from spd_metrics.inputs import Kind
from torch import Tensor

from rmlr.parametrize import Trivialisation

Theta = float | Tensor
Matrices = Float[Tensor, "*batch n n"]
Samples = Float[Tensor, "b n n"]
Classes = Float[Tensor, "c n n"]


@runtime_checkable
class Form(Protocol):
    """Scores of one metric."""

    @property
    def kind(self) -> Kind:
        """What tangent vectors are."""
        ...

    @property
    def trivialisation(self) -> Trivialisation:
        """How unconstrained numbers become points."""
        ...

    def features(self, S: Matrices) -> Matrices:
        """What is needed of each sample."""
        ...

    def place(self, P: Classes) -> Classes:
        """What is needed of each point."""
        ...

    def place_of(self, z: Float[Tensor, "c m"]) -> Classes:
        """`place` of the points with the unconstrained numbers z."""
        ...

    def scores(
        self, F: Samples, X: Classes, A: Classes, memory: int | None = None
    ) -> Float[Tensor, "b c"]:
        """Scores from `features` (b, n, n), `place` (c, n, n) and normals A (c, n, n)."""
        ...


def trace_weights(A: Classes, alpha: float, beta: float) -> Classes:
    """alpha A + beta tr(A) I, with which a Frobenius product is the one of alpha and beta."""
    n = A.shape[-1]
    if not alpha + n * beta > 0:
        raise ValueError(
            f"beta must exceed -alpha/n = {-alpha / n:.4g} for n={n} and alpha={alpha:g}, "
            f"got {beta:g}"
        )
    A = A if alpha == 1 else alpha * A
    if beta == 0:
        return A
    trace = beta / alpha * A.diagonal(dim1=-2, dim2=-1).sum(-1)
    return A + trace[..., None, None] * torch.eye(n, dtype=A.dtype, device=A.device)


def matrix_power(S: Matrices, theta: Theta, name: str) -> Matrices:
    """S^theta."""
    if isinstance(theta, Tensor):
        return powm(S, theta.to(S.dtype), nonpos="raise", name=name)
    return power(theta)(S, name)


def is_small(theta: Theta) -> bool:
    """Whether θ is fixed and so small that 1/θ would take digits off."""
    return not isinstance(theta, Tensor) and abs(theta) < SMALL_THETA


