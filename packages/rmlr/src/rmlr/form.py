"""What a closed form of the scores of one metric is, and what forms share."""

from typing import Protocol, runtime_checkable

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

    def place(self, P: Classes) -> Float[Tensor, "c ..."]:
        """What is needed of each point."""
        ...

    def place_of(self, z: Float[Tensor, "c m"]) -> Float[Tensor, "c ..."]:
        """`place` of the points with the unconstrained numbers z."""
        ...

    def scores(
        self,
        F: Samples,
        X: Float[Tensor, "c ..."],
        a: Float[Tensor, "c m"],
        memory: int | None = None,
    ) -> Float[Tensor, "b c"]:
        """Scores from `features`, `place` and normals at the identity, packed."""
        ...


def matrix_power(S: Matrices, theta: Theta, name: str) -> Matrices:
    """S^theta."""
    if isinstance(theta, Tensor):
        return powm(S, theta.to(S.dtype), nonpos="raise", name=name)
    return power(theta)(S, name)


def is_small(theta: Theta) -> bool:
    """Whether θ is fixed and so small that 1/θ would take digits off."""
    return not isinstance(theta, Tensor) and abs(theta) < SMALL_THETA
