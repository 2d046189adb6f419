"""How far a step goes and where codes may be: the same for every navigator that is compared.

Property, invalid molecules and distance from the start all change with the length of a path and
with ‖z‖ alone. A comparison of directions means something only at equal length.
"""

import dataclasses
import math
from types import FunctionType, MethodType
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from .checkpoint import digest

Norm = Literal["unit", "relative"]


@dataclasses.dataclass(frozen=True)
class Pace:
    """Length of steps, and control of ‖z‖.

    Args:
        step: α. With "unit" the length of every step; with "relative" what a velocity is
            multiplied with, as in the released code, where paths have lengths of their own.
        norm: See there.
        radius: Codes beyond this norm are put back on it after the step, which shortens the step
            then; None leaves them. `math.sqrt(D)` is where codes of a VAE lie.
        pull: λ of -λ z, added to the velocity: of a standard normal prior's log density for λ = 1.

    Raises ValueError unless step and radius are positive and pull is not negative.
    """

    step: float = 0.1
    norm: Norm = "unit"
    radius: float | None = None
    pull: float = 0.0

    def __post_init__(self) -> None:
        if not (self.step > 0 and math.isfinite(self.step)):
            raise ValueError(f"step must be positive and finite, got {self.step}")
        if self.norm not in ("unit", "relative"):
            raise ValueError(f"norm must be 'unit' or 'relative', got {self.norm!r}")
        if self.radius is not None and not self.radius > 0:
            raise ValueError(f"radius must be positive, got {self.radius}")
        if not self.pull >= 0:
            raise ValueError(f"pull must not be negative, got {self.pull}")

    def move(
        self,
        z: Float[Tensor, "b d"],
        velocity: Float[Tensor, "b d"],
        noise: Float[Tensor, "b d"] | None = None,
    ) -> Float[Tensor, "b d"]:
        """One step: α v (+ noise), or α of its direction. A row without a direction stays.

        Args:
            z: Codes.
            velocity: v, in units of its own.
            noise: Added to α v; the direction is that of the sum.

        Raises FloatingPointError naming the first row whose step is not finite.
        """
        change = self.step * (velocity - self.pull * z if self.pull else velocity)
        if noise is not None:
            change = change + noise
        if self.norm == "unit":
            change = self.step * unit(change)
        moved = z + change
        bad = ~moved.isfinite().all(-1)
        if bool(bad.any()):
            raise FloatingPointError(f"the step of row {int(bad.nonzero()[0])} is not finite")
        if self.radius is None:
            return moved
        size = moved.norm(dim=-1, keepdim=True)
        return torch.where(size > self.radius, moved * (self.radius / size), moved)


def unit(v: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
    """v / ‖v‖, and 0 for a row of zeros; NaN stays NaN."""
    # Scaled by the largest entry first: squares of small numbers vanish, of large ones overflow.
    largest = v.abs().amax(-1, keepdim=True)
    scaled = v / torch.where(largest == 0, 1.0, largest)
    size = scaled.norm(dim=-1, keepdim=True)
    return scaled / torch.where(size == 0, 1.0, size)


def row_numbers(z: Float[Tensor, "b d"], rows: Tensor | None) -> Tensor:
    """`rows`, or 0 … b-1. ValueError unless there is one for each code."""
    if rows is None:
        return torch.arange(len(z), device=z.device)
    if rows.shape != z.shape[:1]:
        raise ValueError(f"rows must be ({len(z)},), got {tuple(rows.shape)}")
    return rows.to(z.device)


def told(thing: object) -> str:
    """`Name(setting=value, …)` of all public settings, without addresses."""
    settings = ", ".join(
        f"{name}={_setting(value)}"
        for name, value in vars(thing).items()
        if not name.startswith("_") and name != "oracle_calls"
    )
    return f"{type(thing).__name__}({settings})"


def _setting(value: object) -> str:
    if isinstance(value, Tensor):
        return f"<{tuple(value.shape)} {digest({'': value})}>"
    if type(value).__repr__ is object.__repr__ or isinstance(value, FunctionType | MethodType):
        kind = value if isinstance(value, FunctionType | MethodType) else type(value)
        return f"<{kind.__qualname__}>"
    return repr(value)
