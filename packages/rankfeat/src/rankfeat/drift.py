"""Does the threshold still hold? New in-distribution data against those of the calibration."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from rankfeat.bootstrap import Interval
from rankfeat.calibration import Calibration
from rankfeat.detector import ModelDetector, inputs_of

# 95 % of a normal distribution.
_Z = 1.959963984540054


@dataclass(frozen=True)
class Drift:
    """How new scores lie to those of the calibration."""

    samples: int
    accepted: float
    """Share of the new samples that the threshold accepts."""
    interval: Interval
    """Wilson's 95 % interval of it."""
    expected: float
    """The share of its own samples that the calibration accepts."""
    distance: float
    """Kolmogorov and Smirnov's: the largest difference of the two distribution functions."""
    p_value: float
    """Of that distance, if nothing had changed (asymptotic)."""

    @property
    def drifted(self) -> bool:
        """Whether the expected share is outside the interval, or p < 0.01."""
        outside = not self.interval.low <= self.expected <= self.interval.high
        return outside or self.p_value < 0.01


def _kolmogorov(t: float) -> float:
    """P(sup |Brownian bridge| > t) = 2 Σ (-1)^(k-1) exp(-2 k² t²)."""
    if t < 0.2:
        return 1.0
    terms = ((-1) ** (k - 1) * math.exp(-2 * k * k * t * t) for k in range(1, 101))
    return min(1.0, max(0.0, 2 * sum(terms)))


def drift_of(calibration: Calibration, scores: Float[Tensor, " n"]) -> Drift:
    """Compare scores of new in-distribution data with the calibration.

    Raises:
        ValueError: There are no scores, or one is NaN.
    """
    if scores.ndim != 1 or len(scores) == 0:
        raise ValueError(f"scores must be (n,) with n >= 1, got {tuple(scores.shape)}")
    if bool(scores.isnan().any()):
        raise ValueError(f"scores[{int(scores.isnan().nonzero()[0])}] is NaN")
    old, new = (
        calibration.id_scores.double().sort().values,
        scores.detach().double().cpu().sort().values,
    )
    n, m = len(new), len(old)
    accepted = float((new >= calibration.threshold).double().mean())
    expected = float((old >= calibration.threshold).double().mean())
    centre = (accepted + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * math.sqrt(accepted * (1 - accepted) / n + (_Z / (2 * n)) ** 2)
    everywhere = torch.cat([old, new])
    below = [
        torch.searchsorted(one, everywhere, right=True).double() / len(one) for one in (old, new)
    ]
    distance = float((below[0] - below[1]).abs().max())
    root = math.sqrt(n * m / (n + m))
    # Stephens' correction for small samples.
    p_value = _kolmogorov((root + 0.12 + 0.11 / root) * distance)
    ends = Interval(centre - half, centre + half)
    return Drift(n, accepted, ends, expected, distance, p_value)


def check_drift(detector: ModelDetector, batches: Iterable[Any]) -> Drift:
    """Score new in-distribution data and compare with the detector's calibration.

    Raises:
        RuntimeError: The detector is not calibrated.
        ValueError: There are no data, or a score is NaN.
    """
    calibration = detector.require_calibrated()
    scores = []
    for batch in batches:
        args, kwargs = inputs_of(batch)
        scores.append(detector.score(*args, **kwargs).double().cpu())
    return drift_of(calibration, torch.cat(scores) if scores else torch.zeros(0))
