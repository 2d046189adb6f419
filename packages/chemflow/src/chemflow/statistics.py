"""Intervals: of a share, and of a figure over seeds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % interval; `count` is how many observations or seeds it rests on."""

    mean: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def wilson(successes: int, count: int) -> Interval:
    """Of a share by Wilson's score, right also at 0 and at all. NaN for a count of 0."""
    if not 0 <= successes <= count:
        raise ValueError(f"successes must be in 0 … {count}, got {successes}")
    if count == 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    z = 1.959963984540054
    share = successes / count
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    spread = share * (1 - share) / count + z * z / (4 * count * count)
    half = z / (1 + z * z / count) * math.sqrt(spread)
    # At the ends the bound is the end itself, which rounding may miss.
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == count else centre + half
    return Interval(share, low, high, count)


def of_seeds(values: Sequence[float]) -> Interval:
    """Of the mean over seeds, by Student's t; without a width for one seed.

    Seeds without the figure (NaN) make it NaN. Needs the extra `metrics` for two seeds and more.
    """
    count = len(values)
    if count == 0:
        raise ValueError("values must be of at least one seed")
    mean = math.fsum(values) / count
    if count == 1 or math.isnan(mean):
        return Interval(mean, math.nan, math.nan, count)
    from scipy.special import stdtrit

    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    half = float(stdtrit(count - 1, 0.975)) * math.sqrt(variance / count)
    return Interval(mean, mean - half, mean + half, count)


def over_seeds(figures: Sequence[Mapping[str, float]]) -> dict[str, Interval]:
    """Each figure over seeds, from the `figures()` of one result a seed.

    Raises ValueError where seeds have different figures.
    """
    names = [tuple(one) for one in figures]
    if len(set(names)) > 1:
        raise ValueError(f"seeds must have the same figures, got {sorted(set(names))}")
    return {name: of_seeds([one[name] for one in figures]) for name in (names[0] if names else ())}
