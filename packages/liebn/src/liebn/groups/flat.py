"""What groups that are vector spaces in their coordinates share: translation is addition."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from liebn.pool import Pool

Matrix = Float[Tensor, "*batch n n"]


@dataclass(frozen=True)
class FlatRadial:
    """A vector, and the group whose norm measures it."""

    group: "Flat"
    X: Tensor

    def dist2(self) -> Float[Tensor, "*batch"]:
        """‖X‖²."""
        return self.group.norm2(self.X)

    def scaled(self, factor: Float[Tensor, "..."]) -> Matrix:
        """factor · X."""
        return factor * self.X


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

    def radial(self, X: Matrix, name: str = "X") -> FlatRadial:  # noqa: ARG002
        """X itself."""
        return FlatRadial(self, X)

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

    def geodesic(self, X: Matrix, Y: Matrix, t: float) -> Matrix:
        """(1 - t) X + t Y."""
        return torch.lerp(X, Y, t)

    def mean(self, X: Matrix, pool: Pool, steps: int | None) -> Float[Tensor, "*sets n n"]:  # noqa: ARG002
        """The arithmetic mean."""
        return pool.mean(X)
