"""Several navigators as one, and directions matched to properties."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from chemflow.matching import correlation, match_directions
from chemflow.multi_objective import MinNorm, Sequential, Weighted
from chemflow.objective import Objective, weighted
from chemflow.oracles import QED, SA, Property
from chemflow.protocol import Navigator

CARBONS = Property("carbons", lambda mol: sum(a.GetSymbol() == "C" for a in mol.GetAtoms()))
OXYGENS = Property("oxygens", lambda mol: sum(a.GetSymbol() == "O" for a in mol.GetAtoms()))
FEW = Property("few carbons", CARBONS.function, maximise=False)


class Doubles:
    oracle_calls = 3

    def step(self, z, t, rows=None):  # noqa: ARG002
        return 2 * z

    def reset(self):
        self.was_reset = True


def test_sums_and_means(towards):
    z = torch.tensor([[1.0, 2.0], [0.0, 0.0]])
    a, b = towards(1.0, 0.0), Doubles()
    assert torch.equal(Weighted([a, b]).step(z, 0), z + (torch.tensor([1.0, 0.0]) + z) / 2)
    assert torch.equal(
        Weighted([a, b], weights=(3.0, 1.0)).step(z, 0), z + (3 * torch.tensor([1.0, 0.0]) + z) / 4
    )
    assert torch.equal(Sequential([a, b]).step(z, 0), 2 * (z + torch.tensor([1.0, 0.0])))
    for kind in (Weighted, Sequential, MinNorm):
        several = kind([a, b], length=0.5)
        assert isinstance(several, Navigator)
        moved = several.step(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), 0)
        np.testing.assert_allclose((moved - torch.tensor([[1.0, 2.0], [3.0, 4.0]])).norm(dim=-1),
                                   0.5, rtol=1e-6)  # fmt: skip
        assert several.oracle_calls == 3
        several.reset()
        assert b.was_reset
    with pytest.raises(ValueError, match="navigators"):
        Weighted([])
    with pytest.raises(ValueError, match="weights"):
        Weighted([a], weights=(-1.0,))
    with pytest.raises(ValueError, match="length"):
        Sequential([a], length=0.0)


def test_the_shortest_combination(towards):
    z = torch.zeros(1, 2)
    # Perpendicular steps of lengths 1 and 2: the foot of the perpendicular, (0.8, 0.4).
    found = MinNorm([towards(1.0, 0.0), towards(0.0, 2.0)]).step(z, 0)
    torch.testing.assert_close(found, torch.tensor([[0.8, 0.4]]))
    # The shorter one itself, where the other only adds to it.
    found = MinNorm([towards(3.0, 1.0), towards(1.0, 0.0)]).step(z, 0)
    torch.testing.assert_close(found, torch.tensor([[1.0, 0.0]]))
    # Opposite ones: the row stays, also at a fixed length.
    for length in (None, 0.5):
        found = MinNorm([towards(0.3, 0.1), towards(-0.6, -0.2)], length=length).step(z, 0)
        assert torch.equal(found, z)


def test_it_goes_back_for_none():
    generator = torch.Generator().manual_seed(0)
    for count in (2, 3, 5):
        steps = torch.randn(count, 8, generator=generator) + 0.5

        class Fixed:
            oracle_calls = 0

            def __init__(self, by):
                self.by = by

            def step(self, z, t, rows=None):  # noqa: ARG002
                return z + self.by

            def reset(self):
                pass

        found = MinNorm([Fixed(one) for one in steps], iterations=500).step(torch.zeros(4, 8), 0)
        inner = found @ steps.T
        # At the minimum d·dᵢ >= d·d for all i.
        assert (inner >= (found * found).sum(-1, keepdim=True) - 2e-2).all()


def test_objectives():
    goal = weighted([QED, SA], weights=[1.0, 3.0], ranges=[(0.0, 1.0), (1.0, 10.0)])
    values = np.array([[0.5, 4.0], [math.nan, 4.0]])
    score = goal.score(values)
    assert score[0] == pytest.approx(0.5 - 3 * 3 / 9)
    assert math.isnan(score[1])
    assert goal.name == "qed + sa"
    wrongs: list[Any] = [
        ((QED,), (0.0,), ((0.0, 1.0),)),
        ((QED,), (1.0,), ((1.0, 1.0),)),
        ((), (), ()),
    ]
    for wrong in wrongs:
        with pytest.raises(ValueError, match=r"weights|ranges|oracles"):
            Objective(*wrong)


def test_correlation_with_time():
    rows = np.array([[1.0, 2, 3], [3, 2, 1], [1, 1, 1], [1, math.nan, 2], [0, 1, 0], [0.1] * 3])
    found = correlation(rows)
    np.testing.assert_allclose(found[[0, 1, 4]], [1, -1, 0], atol=1e-15)
    assert np.isnan(found[[2, 3, 5]]).all()
    walk = np.random.default_rng(0).standard_normal((5, 10))
    want = [np.corrcoef(row, np.arange(10))[0, 1] for row in walk]
    np.testing.assert_allclose(correlation(walk), want, rtol=1e-12)


def test_directions_find_their_properties(chains, towards):
    start = torch.tensor([[3.0, -1.9, 0, 0], [4.0, -0.9, 0, 0]])
    directions = [
        towards(0.0, 0.0, 0.0, 1.0), towards(1.0, 0.0, 0.0, 0.0), towards(0.0, 1.0, 0.0, 0.0),
        towards(-0.5, 0.0, 0.0, 0.0),
    ]  # fmt: skip
    for batch in (1, 2):
        found = match_directions(
            chains, directions, [CARBONS, OXYGENS, FEW], start=start, steps=3, batch=batch
        )
        best = [found.best(name) for name in ("carbons", "oxygens", "few carbons")]
        assert best == [1, 2, 3]
        assert found.correlation[1, 0] == pytest.approx(1)
        assert found.undefined[0].tolist() == [1, 1, 1]
        assert found.correlation[0].tolist() == [0, 0, 0]
    assert "carbons: direction 1, r = 1.000" in found.table()
    with pytest.raises(ValueError, match="property must be"):
        found.best("qed")
