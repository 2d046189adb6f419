"""Intervals: Student's t over seeds, Wilson's over a test set."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

Real = int | float
"""What a number may be: a type checker takes an int for a float, a run-time checker does not."""


@dataclass(frozen=True)
class Interval:
    """A confidence interval low..high and, in words, what it is over.

    `kind` reads after the number: "95 % Wilson, 720 windows", "95 % t over 5 seeds".
    """

    low: Real
    high: Real
    kind: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "low", float(self.low))
        object.__setattr__(self, "high", float(self.high))
        if not self.low <= self.high:
            raise ValueError(f"an interval needs low <= high, got {self.low} and {self.high}")


def wilson(
    successes: int, trials: int, *, scale: Real = 1.0, of: str = "trials", level: float = 0.95
) -> Interval:
    """Wilson's score interval of a proportion successes/trials, times `scale`.

    (p + z²/2n ± z sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n). It treats the trials as
    independent; neighbouring windows of one recording are not quite. `scale=100` gives
    per cent. Raises ValueError unless 0 <= successes <= trials and trials > 0.
    Source: Wilson, J. Am. Stat. Assoc. 22 (1927).
    """
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"need 0 <= successes <= trials > 0, got {successes} of {trials}")
    from statistics import NormalDist

    z = NormalDist().inv_cdf(0.5 + level / 2)
    p, n = successes / trials, trials
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # At p = 0 and p = 1 one bound is exact in theory and off by rounding in practice.
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == trials else centre + half
    return Interval(scale * low, scale * high, f"{100 * level:g} % Wilson, {trials} {of}")


def student(values: Sequence[Real], *, level: float = 0.95) -> Interval | None:
    """Student's t interval of the mean over seeds; None for fewer than two values.

    mean ± t(n-1, (1+level)/2) s / sqrt(n), s with n - 1 degrees of freedom. It supposes that
    the values of the seeds are independent and about normal.
    """
    n = len(values)
    if n < 2:
        return None
    mean = math.fsum(values) / n
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = student_quantile(0.5 + level / 2, n - 1) * spread / math.sqrt(n)
    return Interval(mean - half, mean + half, f"{100 * level:g} % t over {n} seeds")


def student_quantile(p: float, degrees: int) -> float:
    """The quantile of Student's t distribution. Equivalent to `scipy.stats.t.ppf(p, degrees)`.

    The distribution function for whole degrees of freedom is a finite sum in
    θ = atan(t/sqrt(ν)) (Abramowitz and Stegun 26.7.3 and 26.7.4), inverted by bisection in θ.
    Raises ValueError unless 0 < p < 1 and degrees >= 1.
    """
    if not 0 < p < 1 or degrees < 1:
        raise ValueError(f"need 0 < p < 1 and degrees >= 1, got {p} and {degrees}")
    low, high = -math.pi / 2, math.pi / 2
    while True:
        middle = (low + high) / 2
        if middle in (low, high):
            return math.sqrt(degrees) * math.tan(middle)
        if 0.5 + _central(middle, degrees) / 2 < p:
            low = middle
        else:
            high = middle


def _central(theta: float, degrees: int) -> float:
    """P(-t < T < t) with its sign, for t = sqrt(ν) tan θ."""
    sine, cosine = math.sin(theta), math.cos(theta)
    if degrees % 2:
        total, term = 0.0, cosine
        for k in range(1, degrees - 1, 2):
            total += term
            term *= cosine * cosine * (k + 1) / (k + 2)
        return 2 / math.pi * (theta + sine * total)
    total, term = 0.0, 1.0
    for k in range(0, degrees, 2):
        total += term
        term *= cosine * cosine * (k + 1) / (k + 2)
    return sine * total
