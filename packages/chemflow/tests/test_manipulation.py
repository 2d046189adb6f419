"""Steady paths: strict and relaxed success by hand, and that one implies the other."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from chemflow.manipulation import manipulate, success, tolerance
from chemflow.oracles import Property
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

CARBONS = Property("carbons", lambda mol: sum(a.GetSymbol() == "C" for a in mol.GetAtoms()))
HEAVY = Property("heavy", lambda mol: mol.GetNumAtoms(), maximise=False)

RISES, FALLS = [1.0, 2, 2, 3], [1.0, 2, 1.9, 3]
AWAY, BACK = [1.0, 0.8, 0.8, 0.5], [1.0, 0.6, 0.65, 0.5]


@pytest.mark.parametrize(
    ("values", "similarity", "molecules", "options", "fails"),
    [
        (RISES, AWAY, [0, 1, 2, 3], {}, []),
        (RISES, AWAY, [0, 1, 1, 2], {}, []),
        (RISES, AWAY, [0, 1, 0, 1], {}, ["diversity"]),
        (FALLS, AWAY, [0, 1, 2, 3], {}, ["property"]),
        (FALLS, AWAY, [0, 1, 2, 3], {"epsilon": 0.11}, []),
        (FALLS, AWAY, [0, 1, 2, 3], {"epsilon": 0.09}, ["property"]),
        (RISES, BACK, [0, 1, 2, 3], {}, ["similarity"]),
        (RISES, BACK, [0, 1, 2, 3], {"gamma": 0.1}, []),
        (RISES, AWAY, [0, 1, 2, 3], {"maximise": False}, ["property"]),
        (RISES[::-1], AWAY, [0, 1, 2, 3], {"maximise": False}, []),
        ([1, math.nan, 2, 3], AWAY, [0, 1, 2, 3], {"epsilon": 9.0}, ["invalid"]),
        (FALLS, BACK, [0, 0, 0, 1], {}, ["property", "similarity", "diversity"]),
        (RISES, AWAY, [0, 1, 2, 3], {"distinct": 5}, ["diversity"]),
    ],
)
def test_success_by_hand(values, similarity, molecules, options, fails):
    found = success(
        np.array([values], float), np.array([similarity]), np.array([molecules]), **options
    )
    reasons = ("invalid", "property", "similarity", "diversity")
    assert [name for name in reasons if getattr(found, name)[0]] == fails
    assert found.success[0] == (not fails)


# Few different numbers, so that equal neighbours, rises and falls are all frequent.
numbers = st.sampled_from([0.0, 0.1, 0.2, 0.5, 1.0, math.nan])


@given(
    values=arrays(np.float64, (6, 4), elements=numbers),
    similarity=arrays(np.float64, (6, 4), elements=numbers),
    molecules=arrays(np.int64, (6, 4), elements=st.integers(0, 3)),
    epsilon=st.floats(0, 1),
    gamma=st.floats(0, 1),
    maximise=st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_strict_implies_relaxed(values, similarity, molecules, epsilon, gamma, maximise):
    strict = success(values, similarity, molecules, maximise=maximise)
    relaxed = success(
        values, similarity, molecules, maximise=maximise, epsilon=epsilon, gamma=gamma
    )
    assert not (strict.success & ~relaxed.success).any()
    reasons = strict.invalid | strict.property | strict.similarity | strict.diversity
    assert np.array_equal(strict.success, ~reasons)


def test_no_paths():
    none = np.zeros((0, 4))
    assert success(none, none, none.astype(np.int64)).success.shape == (0,)
    with pytest.raises(ValueError, match="epsilon and gamma"):
        success(none, none, none.astype(np.int64), epsilon=-1.0)


def test_the_papers_tolerance():
    assert tolerance(np.array([1.0, 5.0, math.nan, 3.0])) == pytest.approx(0.2)
    with pytest.raises(ValueError, match="at least one"):
        tolerance(np.array([math.nan]))


def test_paths_of_chains(chains, towards):
    start = torch.tensor([[2.0, -1, 0, 0], [2.0, -1, 5.0, 0], [6.0, 1, 0, 0]])
    found = manipulate(
        chains, towards(1.0, 0.0, 0.1, 0.0), CARBONS, epsilon=0.0, start=start, steps=4,
    )  # fmt: skip
    # The second path ends in a broken SMILES after its first step.
    assert [one["strict"] for one in found.records] == [True, False, True]
    assert found.records[0]["molecules"] == ["CC", "CCC", "CCCC", "CCCCC", "CCCCCC"]
    assert found.records[0]["values"] == [2, 3, 4, 5, 6]
    assert found.strict.mean == found.relaxed.mean == 2 / 3
    assert 0 < found.strict.low < 2 / 3 < found.strict.high < 1
    assert found.failures["invalid"] == 1 / 3
    # Over the paths that are molecules: all three at first, then the first and the third.
    assert found.mean == pytest.approx((10 / 3, 5, 6, 7, 8))
    falling = manipulate(chains, towards(1.0, 0.0, 0.0, 0.0), HEAVY, epsilon=0.0, start=start[:1])
    assert falling.strict.mean == 0
    assert falling.failures["property"] == 1
    relaxed = manipulate(chains, towards(1.0, 0.0, 0.0, 0.0), HEAVY, epsilon=1.0, start=start[:1])
    assert (relaxed.strict.mean, relaxed.relaxed.mean) == (0, 1)
    assert "strict success 0.00 %" in relaxed.table()


def test_lost_molecules_are_failures(chains, towards):
    found = manipulate(
        chains, towards(1.0, 0.0, 0.0, 0.0), CARBONS, epsilon=0.0, start=["CCN", "CC"], steps=4
    )
    assert found.strict.mean == 0.5
    assert found.failures["no code"] == 0.5


def test_a_run_goes_on(chains, towards, tmp_path):
    go = towards(0.4, 0.3, 0.1, 0.0)
    arguments: dict[str, Any] = {"epsilon": 0.5, "start": 12, "steps": 3, "batch": 4}
    want = manipulate(chains, go, CARBONS, **arguments)
    manipulate(chains, go, CARBONS, **arguments, folder=tmp_path)
    (tmp_path / "batch-000001.json").unlink()
    calls, decode = [], chains.decode_smiles
    chains.decode_smiles = lambda z: calls.append(1) or decode(z)
    found = manipulate(chains, go, CARBONS, **arguments, folder=tmp_path)
    assert len(calls) == 4
    assert found.records == want.records
    with pytest.raises(ValueError, match="another run: gamma"):
        manipulate(chains, go, CARBONS, **arguments, folder=tmp_path, gamma=0.2)
