"""AUROC, FPR95 and AUPR of two samples of scores, larger = more in-distribution.

Two conventions are in use and give different figures: that of the paper's code takes ID as
positive, the nearest recall and average precision; OpenOOD and pytorch-ood take OOD as positive,
the first recall of at least 95 % and the trapezoid rule. Tied scores are one threshold; counts
are integers, so the figures are exact to the rounding of their last divisions.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

Positive = Literal["id", "ood"]


def _sample(scores: Tensor, name: str) -> Tensor:
    if not isinstance(scores, Tensor) or not scores.is_floating_point():
        got = scores.dtype if isinstance(scores, Tensor) else type(scores).__name__
        raise TypeError(f"{name} must be a floating point tensor, got {got}")
    if scores.ndim != 1 or len(scores) == 0:
        raise ValueError(
            f"{name} must be (n,) with n >= 1, for both ID and OOD are needed,"
            f" got {tuple(scores.shape)}"
        )
    scores = scores.detach().double()
    nan = scores.isnan()
    if bool(nan.any()):
        raise ValueError(f"{name}[{int(nan.nonzero()[0])}] is NaN")
    return scores


def _choose(value: str, allowed: tuple[str, ...], name: str) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")


def _counts(
    id_scores: Float[Tensor, " n"], ood_scores: Float[Tensor, " m"], positive: Positive
) -> tuple[Int[Tensor, " thresholds"], Int[Tensor, " thresholds"]]:
    """Positives and negatives at each distinct score, the most positive score first."""
    _choose(positive, ("id", "ood"), "positive")
    one, other = _sample(id_scores, "id_scores"), _sample(ood_scores, "ood_scores")
    values, place = torch.unique(torch.cat([one, other.to(one.device)]), return_inverse=True)
    id_counts = torch.bincount(place[: len(one)], minlength=len(values))
    ood_counts = torch.bincount(place[len(one) :], minlength=len(values))
    return (id_counts.flip(0), ood_counts.flip(0)) if positive == "id" else (ood_counts, id_counts)


def auroc(id_scores: Float[Tensor, " n"], ood_scores: Float[Tensor, " m"]) -> float:
    """Area under the ROC curve, P(ID > OOD) + P(ID = OOD) / 2, the same in both conventions.

    Raises:
        ValueError: A sample is empty, not one-dimensional or holds NaN.
    """
    hits, misses = _counts(id_scores, ood_scores, "id")
    below = misses.sum() - misses.cumsum(0)
    twice = (hits * (2 * below + misses)).sum()
    return int(twice) / (2 * int(hits.sum()) * int(misses.sum()))


def fpr95(
    id_scores: Float[Tensor, " n"],
    ood_scores: Float[Tensor, " m"],
    positive: Positive = "id",
    rule: Literal["nearest", "geq"] = "nearest",
) -> float:
    """Share of negatives taken for positive at the threshold where 95 % of positives are found.

    Args:
        id_scores, ood_scores: Larger = more in-distribution.
        positive: Which sample is to be found. "ood" reads the scores from the other end.
        rule: "geq" is the first threshold of recall >= 0.95, as in OpenOOD and pytorch-ood.
            "nearest" is the one of smallest |recall - 0.95| in double precision, of several the
            one with most negatives, as in the official code and so in the paper's tables; with
            few positives its recall can lie below 0.95.

    Raises:
        ValueError: A sample is empty, not one-dimensional or holds NaN; an unknown convention.
    """
    _choose(rule, ("nearest", "geq"), "rule")
    hits, misses = (c.cumsum(0) for c in _counts(id_scores, ood_scores, positive))
    recall = hits.double() / hits[-1]
    full = int((hits < hits[-1]).sum())  # the first threshold of recall 1
    if rule == "geq":
        place = int((recall < 0.95).sum())
    else:
        place = full - int((recall[: full + 1].flip(0) - 0.95).abs().argmin())
    return int(misses[place]) / int(misses[-1])


def aupr(
    id_scores: Float[Tensor, " n"],
    ood_scores: Float[Tensor, " m"],
    positive: Positive = "id",
    kind: Literal["ap", "trapezoid"] = "ap",
) -> float:
    """Area under precision over recall, of the sample that is positive.

    Args:
        id_scores, ood_scores: Larger = more in-distribution.
        positive: Which sample is to be found.
        kind: "ap" is average precision Σ (R_k - R_{k-1}) P_k, as in the official code;
            "trapezoid" is Σ (R_k - R_{k-1}) (P_k + P_{k-1}) / 2 from the point R = 0, P = 1, as
            in OpenOOD and pytorch-ood. It interpolates where precision does not, and is higher
            on ties.

    Raises:
        ValueError: A sample is empty, not one-dimensional or holds NaN; an unknown convention.
    """
    _choose(kind, ("ap", "trapezoid"), "kind")
    found, wrong = _counts(id_scores, ood_scores, positive)
    hits, misses = found.cumsum(0), wrong.cumsum(0)
    precision = hits.double() / (hits + misses)
    if kind == "trapezoid":
        before = torch.cat([precision.new_ones(1), precision[:-1]])
        precision = (precision + before) / 2
    return float((found * precision).sum() / hits[-1])
