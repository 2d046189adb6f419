"""What groups that are vector spaces in their coordinates share: translation is addition."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from linalg_kernels.transforms import needs_rule
from torch import Tensor

from liebn.pool import Pool

Matrix = Float[Tensor, "*batch n n"]


def squares(X: Matrix) -> Float[Tensor, "*batch"]:
    """‖X‖_F²."""
    if needs_rule(X):
        return X.square().sum((-2, -1))
    # In one pass over X. The derivatives of a norm are another matter: it has none at 0.
    return torch.linalg.vector_norm(X, dim=(-2, -1)).square()


@dataclass(frozen=True)
class FlatPolar:
    """Vectors, and the group whose norm measures them."""

    group: "Flat"
    X: Tensor
    constant: bool

    def dist2(self) -> Float[Tensor, "*batch"]:
        """‖X‖²."""
        return self.group.norm2(self.X.detach() if self.constant else self.X)

    def moved(self, factor: Float[Tensor, "..."], forth: Float[Tensor, "..."]) -> Matrix:
        """forth + factor · X."""
        return torch.addcmul(forth, factor, self.X)


class Flat:
    """X ⊙ Y = X + Y, E = 0, Exp and Log at E the identity, means and geodesics straight."""

    def norm2(self, X: Matrix) -> Float[Tensor, "*batch"]:
        """‖X‖² of the metric at E."""
        raise NotImplementedError

    def neutral(self, n: int) -> Float[Tensor, "n n"]:
        """0."""
        return torch.zeros(n, n)

    def exp(self, V: Matrix) -> Matrix:
        """V."""
        return V

    def log(self, X: Matrix) -> Matrix:
        """X."""
        return X

    def translation(self, X: Matrix) -> Matrix:
        """X."""
        return X

    def inverse_translation(self, X: Matrix) -> Matrix:
        """-X."""
        return -X

    def act(
        self, A: Float[Tensor, "*#batch n n"], X: Float[Tensor, "*#batch n n"]
    ) -> Float[Tensor, "*batch n n"]:
        """A + X."""
        return X + A

    def polar(self, back: Float[Tensor, "..."], X: Matrix, *, constant: bool) -> FlatPolar:
        """X + back itself."""
        return FlatPolar(self, X + back, constant)

    def geodesic(self, X: Matrix, Y: Matrix, t: float) -> Matrix:
        """(1 - t) X + t Y."""
        return torch.lerp(X, Y, t)

    def mean(self, X: Matrix, pool: Pool, steps: int | None) -> Float[Tensor, "*sets n n"]:  # noqa: ARG002
        """The arithmetic mean."""
        return pool.mean(X)
