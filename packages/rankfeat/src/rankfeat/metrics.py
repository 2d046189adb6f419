"""AUROC, FPR95 and AUPR of two samples of scores, larger = more in-distribution.

Two conventions are in use and give different figures: that of the paper's code takes ID as
positive, the nearest recall and average precision; OpenOOD and pytorch-ood take OOD as positive,
the first recall of at least 95 % and the trapezoid rule. Tied scores are one threshold; counts
are integers, so the figures are exact to the rounding of their last divisions.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

Positive = Literal["id", "ood"]
Rule = Literal["nearest", "geq"]
Kind = Literal["ap", "trapezoid"]


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


def counted(
    id_scores: Float[Tensor, " n"], ood_scores: Float[Tensor, " m"]
) -> tuple[Int[Tensor, " thresholds"], Int[Tensor, " thresholds"]]:
    """ID and OOD samples at each distinct score, the largest score first.

    Raises:
        ValueError: A sample is empty, not one-dimensional or holds NaN.
    """
    one, other = _sample(id_scores, "id_scores"), _sample(ood_scores, "ood_scores")
    values, place = torch.unique(torch.cat([one, other.to(one.device)]), return_inverse=True)
    id_counts = torch.bincount(place[: len(one)], minlength=len(values))
    ood_counts = torch.bincount(place[len(one) :], minlength=len(values))
    return id_counts.flip(0), ood_counts.flip(0)


Counts = tuple[Int[Tensor, "*batch thresholds"], Int[Tensor, "*batch thresholds"]]


def _positive_first(counts: Counts, positive: Positive) -> Counts:
    """Positives and negatives, the most positive score first."""
    _choose(positive, ("id", "ood"), "positive")
    id_counts, ood_counts = counts
    return (
        (id_counts, ood_counts) if positive == "id" else (ood_counts.flip(-1), id_counts.flip(-1))
    )


def auroc_of(counts: Counts) -> Float[Tensor, "*batch"]:
    """AUROC of ID and OOD samples counted at each score, the largest score first."""
    hits, misses = counts
    below = misses.sum(-1, keepdim=True) - misses.cumsum(-1)
    twice = (hits * (2 * below + misses)).sum(-1)
    return twice.double() / (2 * hits.sum(-1) * misses.sum(-1)).double()


def fpr95_of(
    counts: Counts, positive: Positive = "id", rule: Rule = "nearest"
) -> Float[Tensor, "*batch"]:
    """As `fpr95`, of ID and OOD samples counted at each score, the largest score first."""
    _choose(rule, ("nearest", "geq"), "rule")
    found, wrong = _positive_first(counts, positive)
    hits, misses = found.cumsum(-1), wrong.cumsum(-1)
    recall = hits.double() / hits[..., -1:]
    if rule == "geq":
        place = (recall < 0.95).sum(-1, keepdim=True)
    else:
        # Of several thresholds of one recall only the one before the next positive counts, and
        # of those of recall 1 the first.
        distance = (recall - 0.95).abs()
        full = (hits < hits[..., -1:]).sum(-1, keepdim=True)
        steps = torch.arange(hits.shape[-1], device=hits.device)
        distance = torch.where(steps <= full, distance, torch.inf)
        place = hits.shape[-1] - 1 - distance.flip(-1).argmin(-1, keepdim=True)
    return misses.gather(-1, place)[..., 0].double() / misses[..., -1].double()


def aupr_of(
    counts: Counts, positive: Positive = "id", kind: Kind = "ap"
) -> Float[Tensor, "*batch"]:
    """As `aupr`, of ID and OOD samples counted at each score, the largest score first."""
    _choose(kind, ("ap", "trapezoid"), "kind")
    found, wrong = _positive_first(counts, positive)
    hits, misses = found.cumsum(-1), wrong.cumsum(-1)
    # Before the first sample, which a resample may leave out, there is no precision: 1, as at
    # recall 0.
    precision = hits.double() / (hits + misses).clamp_min(1)
    precision = torch.where(hits + misses == 0, 1, precision)
    if kind == "trapezoid":
        before = torch.cat([torch.ones_like(precision[..., :1]), precision[..., :-1]], -1)
        precision = (precision + before) / 2
    return (found * precision).sum(-1) / hits[..., -1]


def auroc(id_scores: Float[Tensor, " n"], ood_scores: Float[Tensor, " m"]) -> float:
    """Share of pairs in which the ID sample scores higher, ties counted half.

    The area under the ROC curve, the same in both conventions.

    Raises:
        ValueError: A sample is empty, not one-dimensional or holds NaN.
    """
    return float(auroc_of(counted(id_scores, ood_scores)))


def fpr95(
    id_scores: Float[Tensor, " n"],
    ood_scores: Float[Tensor, " m"],
    positive: Positive = "id",
    rule: Rule = "nearest",
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
    return float(fpr95_of(counted(id_scores, ood_scores), positive, rule))


def aupr(
    id_scores: Float[Tensor, " n"],
    ood_scores: Float[Tensor, " m"],
    positive: Positive = "id",
    kind: Kind = "ap",
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
    return float(aupr_of(counted(id_scores, ood_scores), positive, kind))


@dataclass(frozen=True)
class Convention:
    """Which sample is positive, and how thresholds and areas are taken."""

    name: str
    positive: Positive
    rule: Rule
    kind: Kind

    def figures(self, counts: Counts) -> dict[str, Float[Tensor, "*batch"]]:
        """fpr95, auroc, aupr_in (ID to be found) and aupr_out (OOD to be found), in [0, 1]."""
        return {
            "fpr95": fpr95_of(counts, self.positive, self.rule),
            "auroc": auroc_of(counts),
            "aupr_in": aupr_of(counts, "id", self.kind),
            "aupr_out": aupr_of(counts, "ood", self.kind),
        }


PAPER = Convention("paper (ID positive)", "id", "nearest", "ap")
"""That of the paper's tables."""
OPENOOD = Convention("OpenOOD (OOD positive)", "ood", "geq", "trapezoid")
"""That of OpenOOD 1.5 and pytorch-ood 0.4."""
