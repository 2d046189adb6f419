"""What batch normalisation asks of a Lie group: the protocol that every group here meets.

A group is given in coordinates: `chart` takes matrices into them once, `chart_inverse` back
once, and everything between works on coordinates X, `(*batch, n, n)`. Left translations are
prepared once (`translation`: a Cholesky factor, say) and applied to whole batches (`act`).
"""

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from liebn.pool import Pool


@runtime_checkable
class Polar(Protocol):
    """A batch seen from a point, in polar form at the neutral element E: what scaling needs."""

    def dist2(self) -> Float[Tensor, "*batch"]:
        """Squared distances to E."""
        ...

    def moved(
        self, factor: Float[Tensor, "..."], forth: Float[Tensor, "..."]
    ) -> Float[Tensor, "*batch n n"]:
        """Exp_E(factor · Log_E), translated by `forth`; `factor` broadcasts with (*batch, 1, 1)."""
        ...


@runtime_checkable
class LieGroup(Protocol):
    """A Lie group (or gyrogroup) of matrices with a left-invariant metric, in coordinates."""

    def chart(self, P: Float[Tensor, "*batch n n"], name: str = "X") -> Float[Tensor, "*batch n n"]:
        """Coordinates of the matrices P. Errors call them `name` and name the element."""
        ...

    def chart_inverse(self, X: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
        """The matrices of coordinates X."""
        ...

    def neutral(self, n: int) -> Float[Tensor, "n n"]:
        """Coordinates of the neutral element E."""
        ...

    def exp(self, V: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
        """Exp_E(V)."""
        ...

    def log(self, X: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
        """Log_E(X)."""
        ...

    def translation(self, X: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
        """What `act` takes to translate by X."""
        ...

    def inverse_translation(self, X: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
        """What `act` takes to translate by the inverse of X."""
        ...

    def act(self, A: Float[Tensor, "..."], X: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The translation of X prepared in A. Batch shapes broadcast."""
        ...

    def lift(self, Z: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
        """A translation from any matrix Z, smooth and onto; Z = 0 gives the identity."""
        ...

    def lift_inverse(self, X: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
        """A Z whose lift is the translation by X."""
        ...

    def polar(
        self, back: Float[Tensor, "..."], X: Float[Tensor, "*batch n n"], *, constant: bool
    ) -> Polar:
        """act(back, X) in polar form. Errors name the element of X that is not in the group.

        With `constant`, `back` and the distances are constants to autograd.
        """
        ...

    def geodesic(
        self, X: Float[Tensor, "*batch n n"], Y: Float[Tensor, "*batch n n"], t: float
    ) -> Float[Tensor, "*batch n n"]:
        """The point at time t of the geodesic from X to Y: how running means move."""
        ...

    def mean(
        self, X: Float[Tensor, "*batch n n"], pool: Pool, steps: int | None
    ) -> Float[Tensor, "*sets n n"]:
        """The Fréchet mean of the sets that `pool` tells apart.

        Means without a closed form take `steps` Karcher steps; None iterates to convergence.
        """
        ...


def compose(
    group: LieGroup, X: Float[Tensor, "*#batch n n"], Y: Float[Tensor, "*#batch n n"]
) -> Float[Tensor, "*batch n n"]:
    """X ⊙ Y."""
    return group.act(group.translation(X), Y)


def inverse(group: LieGroup, X: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
    """The Y with Y ⊙ X = E."""
    return group.act(group.inverse_translation(X), _neutral(group, X).expand(X.shape))


def dist2(group: LieGroup, X: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch"]:
    """d²(X, E)."""
    back = group.translation(_neutral(group, X))
    return group.polar(back, X, constant=False).dist2()


def _neutral(group: LieGroup, X: Tensor) -> Tensor:
    return group.neutral(X.shape[-1]).to(dtype=X.dtype, device=X.device)
