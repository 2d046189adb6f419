"""What is to be improved: one property, or several weighed against one another."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from chemflow.oracles import Oracle
from chemflow.runs import fingerprint


@dataclass(frozen=True)
class Objective:
    """A score, more is better: Σ wᵢ (vᵢ - lowᵢ)/(highᵢ - lowᵢ), minimised properties with -wᵢ.

    One property without a range is itself the score, or its negative. The paper weighs two
    properties equally, each on the scale of its range (Sec. 4.2).

    Attributes:
        oracles: The properties.
        weights: Positive, one each.
        ranges: (low, high) of each, in its units.
    """

    oracles: tuple[Oracle, ...]
    weights: tuple[float, ...]
    ranges: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        count = len(self.oracles)
        if not count or len(self.weights) != count or len(self.ranges) != count:
            raise ValueError(
                f"oracles, weights and ranges must be as many, at least one, got {count}, "
                f"{len(self.weights)} and {len(self.ranges)}"
            )
        if not all(weight > 0 and math.isfinite(weight) for weight in self.weights):
            raise ValueError(f"weights must be positive and finite, got {self.weights}")
        if not all(low < high for low, high in self.ranges):
            raise ValueError(f"ranges must be (low, high) with low < high, got {self.ranges}")

    @property
    def signs(self) -> Float64[np.ndarray, " k"]:
        """1 where more is better, -1 where less is."""
        return np.array([1.0 if oracle.maximise else -1.0 for oracle in self.oracles])

    @property
    def name(self) -> str:
        """That of the one property, or all of them."""
        return " + ".join(oracle.name for oracle in self.oracles)

    def score(self, values: Float64[np.ndarray, "n k"]) -> Float64[np.ndarray, " n"]:
        """Of the oracles' values, in their order; NaN where any is."""
        low, high = np.array(self.ranges).T
        scaled = (values - low) / (high - low)
        return scaled @ (self.signs * np.array(self.weights))

    def settings(self) -> dict[str, object]:
        """For the provenance of a run."""
        return {
            "properties": [fingerprint(oracle) for oracle in self.oracles],
            "weights": list(self.weights),
            "ranges": [list(one) for one in self.ranges],
        }


def weighted(
    oracles: Sequence[Oracle],
    weights: Sequence[float] | None = None,
    ranges: Sequence[tuple[float, float]] | None = None,
) -> Objective:
    """Several properties: equal weights if none are given, ranges (0, 1) if none are."""
    count = len(oracles)
    return Objective(
        tuple(oracles),
        tuple(float(one) for one in (weights if weights is not None else [1.0] * count)),
        tuple(
            (float(low), float(high))
            for low, high in (ranges if ranges is not None else [(0.0, 1.0)] * count)
        ),
    )


def as_objective(given: Oracle | Objective) -> Objective:
    """One property as an objective in its own units."""
    return given if isinstance(given, Objective) else weighted([given])
