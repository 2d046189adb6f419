"""The scorer: each molecule once, in any number of processes, and none without an account."""

import numpy as np
import pytest
from chemflow.oracles import LOGP, QED, SA, Property
from chemflow.scoring import Scorer, tanimoto
from rdkit.DataStructs import CreateFromBinaryText, TanimotoSimilarity

SMILES = ["CCO", "OCC", "", "C1CC", "c1ccccc1O", "CCO", "CC(=O)Oc1ccccc1C(=O)O"]


def test_values_and_account():
    scorer = Scorer([QED, SA])
    found = scorer(SMILES)
    assert found.canonical == ["CCO", "CCO", "", "", "Oc1ccccc1", "CCO", "CC(=O)Oc1ccccc1C(=O)O"]
    assert found.valid.tolist() == [True, True, False, False, True, True, True]
    np.testing.assert_array_equal(found.values[:, 0], QED(SMILES))
    np.testing.assert_array_equal(found.values[:, 1], SA(SMILES))
    assert (scorer.asked, scorer.invalid, scorer.evaluated) == (7, 2, 4)
    scorer(SMILES)
    assert (scorer.asked, scorer.invalid, scorer.evaluated) == (14, 4, 4)
    assert scorer([]).values.shape == (0, 2)


def test_it_asks_the_oracle_once_for_each_spelling_that_it_remembers():
    calls = []
    oracle = Property("count", lambda mol: calls.append(mol.GetNumAtoms()) or 1.0)
    scorer = Scorer([oracle], remember=2)
    scorer(["C", "C", "CC", "CCC"])
    assert sorted(calls) == [1, 2, 3]
    scorer(["CC", "CCC"])  # remembered
    assert len(calls) == 3
    scorer(["C"])  # forgotten
    assert len(calls) == 4
    # What was asked for last is forgotten last.
    scorer = Scorer([oracle], remember=2)
    scorer(["C", "CC"])
    scorer(["C"])
    scorer(["CCC"])
    calls.clear()
    scorer(["C"])
    assert calls == []


def test_processes_give_the_same():
    one = Scorer([QED, LOGP])(SMILES)
    with Scorer([QED, LOGP], workers=2) as scorer:
        two = scorer(SMILES)
    assert one.canonical == two.canonical
    np.testing.assert_array_equal(one.values, two.values)
    np.testing.assert_array_equal(one.fingerprints, two.fingerprints)


def test_names_differ_and_values_are_as_many_as_molecules():
    with pytest.raises(ValueError, match="different names"):
        Scorer([QED, QED])

    class Short:
        name, maximise, spelling = "short", True, False

        def values(self, mols):
            return np.zeros(len(mols) - 1)

    with pytest.raises(ValueError, match="short gave 1 values for 2 molecules"):
        Scorer([Short()])(["C", "CC"])


def test_tanimoto_is_rdkits():
    packed = Scorer([])(["CCO", "c1ccccc1O", "CC(=O)Oc1ccccc1C(=O)O", ""]).fingerprints
    bits = [CreateFromBinaryText(one.tobytes()) for one in packed[:3]]
    for i in range(3):
        for j in range(3):
            assert tanimoto(packed[i], packed[j]) == TanimotoSimilarity(bits[i], bits[j])
    assert tanimoto(packed[3], packed[3]) == 1
