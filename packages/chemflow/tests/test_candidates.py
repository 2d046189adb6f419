"""The best different molecules, fronts, and intervals."""

import math
import random

import numpy as np
import pytest
from chemflow.candidates import Best, Candidate, Front, undominated
from chemflow.statistics import of_seeds, over_seeds, wilson


def candidate(smiles, score, row=0, step=0, **values):
    return Candidate(smiles, score, values, 0, row, step)


def test_the_best_are_different_molecules():
    best = Best(3)
    best.add(candidate("A", 5.0, row) for row in range(10))
    best.add([candidate("B", 3.0), candidate("C", 4.0), candidate("D", 1.0)])
    best.add([candidate("E", math.nan)])
    assert [one.smiles for one in best.list()] == ["A", "C", "B"]
    assert best.list()[0].row == 0
    with pytest.raises(ValueError, match="size"):
        Best(0)


def test_the_order_of_finding_does_not_matter():
    rng = random.Random(0)
    kinds = [rng.randrange(60) for _ in range(400)]
    # A molecule has one score; several molecules share it.
    many = [candidate(f"M{kind}", float(kind % 17), row) for row, kind in enumerate(kinds)]
    lists = []
    for size in (1, 7, 400):
        rng.shuffle(many)
        best = Best(5)
        for start in range(0, 400, size):
            best.add(many[start : start + size])
        lists.append(best.list())
    assert lists[0] == lists[1] == lists[2]


def test_undominated_by_brute_force():
    points = np.random.default_rng(0).integers(0, 5, (60, 3)).astype(float)
    want = [not any((q >= p).all() and (q > p).any() for q in points) for p in points]
    assert undominated(points).tolist() == want
    assert undominated(points[:0]).shape == (0,)


def test_front():
    rng = np.random.default_rng(1)
    values = rng.standard_normal((50, 2))
    values[3] = math.nan
    front = Front(("a", "b"), np.array([1.0, -1.0]))
    for start in range(0, 50, 10):
        part = values[start : start + 10]
        worth = front.worth(part)
        front.add(
            candidate(f"M{start + i}", 0.0, start + i, a=float(a), b=float(b))
            for i, (a, b) in enumerate(part)
            if worth[i]
        )
    signed = values * [1, -1]
    want = {
        f"M{i}"
        for i, p in enumerate(signed)
        if np.isfinite(p).all() and not any((q >= p).all() and (q > p).any() for q in signed)
    }
    assert {one.smiles for one in front.list()} == want
    assert front.list()[0].values["a"] == max(one.values["a"] for one in front.list())


def test_wilson():
    found = wilson(8, 10)
    # Of statsmodels' proportion_confint(8, 10, method="wilson").
    assert (found.mean, found.low, found.high) == pytest.approx((0.8, 0.490162, 0.943318), abs=1e-5)
    assert wilson(0, 10).low == 0
    assert wilson(10, 10).high == 1
    assert math.isnan(wilson(0, 0).mean)
    with pytest.raises(ValueError, match="successes"):
        wilson(3, 2)


def test_over_seeds():
    found = of_seeds([1.0, 2.0, 3.0])
    # t(2; 0.975) = 4.302653
    assert (found.mean, found.low, found.high) == pytest.approx(
        (2, 2 - 4.302653 / math.sqrt(3), 2 + 4.302653 / math.sqrt(3)), abs=1e-5
    )
    assert math.isnan(of_seeds([1.0]).low)
    assert math.isnan(of_seeds([1.0, math.nan]).mean)
    assert over_seeds([{"a": 1.0}, {"a": 3.0}])["a"].mean == 2
    with pytest.raises(ValueError, match="same figures"):
        over_seeds([{"a": 1.0}, {"b": 3.0}])
    with pytest.raises(ValueError, match="at least one"):
        of_seeds([])
