"""Navigators for several properties, made of one for each.

`length` makes every step of every row as long, so that methods can be compared at equal paths.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from chemflow.protocol import Navigator


@dataclass
class _Several:
    navigators: Sequence[Navigator]
    length: float | None = None

    def __post_init__(self) -> None:
        if not self.navigators:
            raise ValueError("navigators must not be empty")
        if self.length is not None and not self.length > 0:
            raise ValueError(f"length must be positive, got {self.length}")

    @property
    def oracle_calls(self) -> int:
        """Of all of them."""
        return sum(one.oracle_calls for one in self.navigators)

    def reset(self) -> None:
        """All of them."""
        for one in self.navigators:
            one.reset()

    def _moved(self, z: Float[Tensor, "b d"], by: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        """z + by, or a step of `length` in that direction; rows that do not move stay."""
        if self.length is None:
            return z + by
        norm = by.norm(dim=-1, keepdim=True)
        return z + self.length * by / torch.where(norm > 0, norm, 1.0)

    def _moves(
        self, z: Float[Tensor, "b d"], t: int, rows: Int64[Tensor, " b"] | None
    ) -> Float[Tensor, "k b d"]:
        return torch.stack([one.step(z, t, rows) - z for one in self.navigators])


@dataclass
class Weighted(_Several):
    """The weighted mean of all steps from the same code (the paper's Sec. 4.2: the average).

    Attributes:
        weights: Positive, one each; equal if empty.
    """

    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        self.weights = self.weights or (1.0,) * len(self.navigators)
        if len(self.weights) != len(self.navigators) or min(self.weights) <= 0:
            raise ValueError(
                f"weights must be {len(self.navigators)} positive numbers, got {self.weights}"
            )

    def step(
        self, z: Float[Tensor, "b d"], t: int, rows: Int64[Tensor, " b"] | None = None
    ) -> Float[Tensor, "b d"]:
        """z + Σ wᵢ dᵢ / Σ wᵢ."""
        weights = torch.tensor(self.weights, dtype=z.dtype, device=z.device)
        moves = self._moves(z, t, rows)
        return self._moved(z, torch.einsum("k,kbd->bd", weights / weights.sum(), moves))


@dataclass
class Sequential(_Several):
    """One step after the other (the official code: their sum, each from where the last ended)."""

    def step(
        self, z: Float[Tensor, "b d"], t: int, rows: Int64[Tensor, " b"] | None = None
    ) -> Float[Tensor, "b d"]:
        """All steps in their order."""
        end = z
        for one in self.navigators:
            end = one.step(end, t, rows)
        return end if self.length is None else self._moved(z, end - z)


@dataclass
class MinNorm(_Several):
    """The shortest convex combination of all steps: it goes back for none of them.

    Multiple-gradient descent (Désidéri 2012), by Frank and Wolfe's method with exact line search
    (Sener and Koltun 2018). Where the steps oppose one another the row stays: it is Pareto-
    stationary. For two steps it is exact.

    Attributes:
        iterations: For more than two.
    """

    iterations: int = 50

    def step(
        self, z: Float[Tensor, "b d"], t: int, rows: Int64[Tensor, " b"] | None = None
    ) -> Float[Tensor, "b d"]:
        """z + argmin over convex combinations of the norm."""
        moves = self._moves(z, t, rows)
        point = moves[0].clone()
        order = range(1, 2) if len(moves) == 2 else range(self.iterations)
        for _ in order if len(moves) > 1 else ():
            # The vertex that points back most, and the shortest point on the way to it.
            inner = torch.einsum("kbd,bd->kb", moves, point)
            vertex = torch.take_along_dim(moves, inner.argmin(0)[None, :, None], 0)[0]
            way = vertex - point
            square = (way * way).sum(-1)
            share = -(point * way).sum(-1) / torch.where(square > 0, square, 1.0)
            point = point + share.clamp(0, 1)[:, None] * way
        # What is left of steps that cancel is rounding, and no direction.
        floor = 16 * torch.finfo(z.dtype).eps * moves.norm(dim=-1).amax(0)
        stays = point.norm(dim=-1) <= floor
        return self._moved(z, point.masked_fill(stays[:, None], 0.0))
