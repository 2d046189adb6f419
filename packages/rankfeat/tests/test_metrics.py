"""AUROC, FPR95 and AUPR against pairs and thresholds counted one by one."""

from fractions import Fraction

import pytest
import torch
from rankfeat import aupr, auroc, fpr95

# Five values only, so that most scores are tied.
GENERATOR = torch.Generator().manual_seed(0)
ID = torch.randint(1, 5, (30,), generator=GENERATOR).double()
OOD = torch.randint(0, 4, (23,), generator=GENERATOR).double()


def thresholds(positive):
    """(recall, false positive rate, precision) at each distinct score, as fractions."""
    ones, others = (ID, OOD) if positive == "id" else (-OOD, -ID)
    rows = []
    for t in sorted({*ones.tolist(), *others.tolist()}, reverse=True):
        tp, fp = int((ones >= t).sum()), int((others >= t).sum())
        rows.append((Fraction(tp, len(ones)), Fraction(fp, len(others)), Fraction(tp, tp + fp)))
    return rows


def test_auroc_counts_pairs_and_half_the_ties():
    pairs = sum(Fraction(1 if a > b else 0) + Fraction(int(a == b), 2) for a in ID for b in OOD)
    assert auroc(ID, OOD) == float(pairs / (len(ID) * len(OOD)))
    assert auroc(OOD, ID) == pytest.approx(1 - auroc(ID, OOD), abs=1e-15)


@pytest.mark.parametrize("positive", ["id", "ood"])
def test_fpr_and_aupr_against_thresholds_one_by_one(positive):
    rows = thresholds(positive)
    level = Fraction(95, 100)
    geq = next(fp for recall, fp, _ in rows if recall >= level)
    # Thresholds below the first of recall 1 do not count; the higher recall comes first.
    first = next(i for i, row in enumerate(rows) if row[0] == 1)
    nearest = min(rows[first::-1], key=lambda row: abs(row[0] - level))[1]
    assert fpr95(ID, OOD, positive, "geq") == float(geq)
    assert fpr95(ID, OOD, positive, "nearest") == float(nearest)

    before = [(Fraction(0), None, Fraction(1)), *rows]
    steps = list(zip(before, rows, strict=False))
    ap = sum((b[0] - a[0]) * b[2] for a, b in steps)
    trapezoid = sum((b[0] - a[0]) * (a[2] + b[2]) / 2 for a, b in steps)
    assert aupr(ID, OOD, positive, "ap") == pytest.approx(float(ap), rel=1e-14)
    assert aupr(ID, OOD, positive, "trapezoid") == pytest.approx(float(trapezoid), rel=1e-14)


def test_the_nearest_recall_can_lie_below_95_percent():
    # 16 of 17 found is nearer to 0.95 than all are.
    ones, others = torch.arange(17.0), torch.zeros(2)
    assert fpr95(ones, others, rule="nearest") == 0
    assert fpr95(ones, others, rule="geq") == 1
    # Of the thresholds of one recall it is the lowest.
    assert fpr95(ones, others + 0.5, rule="nearest") == 1


def test_only_the_order_matters():
    def squash(x):
        return torch.atan(3 * x) - 7

    assert auroc(squash(ID), squash(OOD)) == auroc(ID, OOD)
    assert fpr95(squash(ID), squash(OOD)) == fpr95(ID, OOD)
    assert aupr(squash(ID), squash(OOD)) == aupr(ID, OOD)


def test_perfect_and_constant():
    low, high = torch.zeros(4), torch.ones(6)
    assert (auroc(high, low), fpr95(high, low), aupr(high, low)) == (1.0, 0.0, 1.0)
    assert (auroc(low, low), fpr95(low, low)) == (0.5, 1.0)


@pytest.mark.parametrize("metric", [auroc, fpr95, aupr])
def test_bad_samples(metric):
    with pytest.raises(ValueError, match=r"ood_scores must be .* both ID and OOD.* got \(0,\)"):
        metric(ID, OOD[:0])
    with pytest.raises(ValueError, match=r"id_scores\[2\] is NaN"):
        metric(torch.tensor([1.0, 2.0, torch.nan]), OOD)


@pytest.mark.bad_input
def test_wrong_arguments():
    with pytest.raises(ValueError, match=r"id_scores must be .* got \(2, 15\)"):
        auroc(ID.reshape(2, 15), OOD)
    with pytest.raises(TypeError, match="id_scores must be a floating point tensor, got list"):
        auroc([1.0], OOD)  # ty: ignore[invalid-argument-type]
    with pytest.raises(ValueError, match="positive must be one of 'id', 'ood', got 'in'"):
        fpr95(ID, OOD, "in")  # ty: ignore[invalid-argument-type]
    with pytest.raises(ValueError, match="rule must be one of"):
        fpr95(ID, OOD, rule="first")  # ty: ignore[invalid-argument-type]
    with pytest.raises(ValueError, match="kind must be one of"):
        aupr(ID, OOD, kind="area")  # ty: ignore[invalid-argument-type]
