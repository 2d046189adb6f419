"""Metrics of sets against their definitions, by loops and by other libraries."""

import math
from collections import Counter

import numpy as np
import pytest
from chemflow.describe import describe, scaffold
from chemflow.metrics import (
    MOSES_TRAIN,
    ChemNet,
    cosine,
    evaluate,
    fcd,
    frechet,
    internal_diversity,
    kl_score,
    nearest,
    table,
)
from chemflow.standardise import parse
from rdkit.Chem import rdFingerprintGenerator
from rdkit.DataStructs import TanimotoSimilarity

A = ["CCO", "c1ccccc1O", "CC(=O)Oc1ccccc1C(=O)O", "Cn1c(=O)c2c(ncn2C)n(C)c1=O", "CCO",
     "c1ccc2[nH]ccc2c1", "CCCCN"]  # fmt: skip
B = ["CCN", "Cc1ccccc1O", "c1ccc2[nH]ccc2c1", "O=C(O)c1ccccc1", "c1ccc2ncccc2c1"]


def similarities(a, b):
    make = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=1024).GetFingerprint
    one, other = [[make(parse(s)) for s in x] for x in (a, b)]
    return np.array([[TanimotoSimilarity(x, y) for y in other] for x in one])


def test_diversity_and_nearest_by_loops():
    told, ref = describe(A), describe(B)
    inner = similarities(A, A)
    assert internal_diversity(told.fingerprints) == pytest.approx(1 - inner.mean(), abs=1e-7)
    assert internal_diversity(told.fingerprints, 2) == pytest.approx(
        1 - math.sqrt((inner**2).mean()), abs=1e-7
    )
    want = similarities(A, B).max(1).mean()
    assert nearest(told.fingerprints, ref.fingerprints) == pytest.approx(want, abs=1e-7)


def test_cosine_by_hand():
    assert cosine(Counter(a=1, b=2), Counter(b=3, c=4)) == pytest.approx(6 / (math.sqrt(5) * 5))
    assert cosine(Counter(a=2), Counter(a=7)) == 1
    assert math.isnan(cosine(Counter(), Counter(a=1)))


def test_scaffolds_and_fragments():
    assert scaffold(parse("Cc1ccc2[nH]ccc2c1")) == "c1ccc2[nH]ccc2c1"
    assert scaffold(parse("Cc1ccccc1")) == ""  # one ring does not count
    told = describe(["CC(=O)Oc1ccccc1C(=O)O", "bad"])
    assert told.asked == 2
    assert sorted(told.fragments[0]) == sorted(
        ["[1*]C(C)=O", "[3*]O[3*]", "[16*]c1ccccc1[16*]", "[6*]C(=O)O"]
    )


def test_filters():
    # A PAINS alert: rhodanine with an ene.
    assert describe(["O=C1NC(=S)SC1=Cc1ccccc1", "CCO"]).clean == [False, True]
    assert describe(["CCO", "CCN"], filters=["[NX3;H2]"]).clean == [True, False]
    with pytest.raises(ValueError, match="filters must be SMARTS"):
        describe(["CCO"], filters=["[[["])


def test_all_figures():
    found = evaluate([*A, "bad", ""], B, train=["CCO", "CCCC"], scaffolds=B[:3], fcd=False)
    assert found["valid"].value == 7 / 9
    assert (found["valid"].generated, found["IntDiv"].generated) == (9, 7)
    assert found["unique@1000"].value == 6 / 7
    assert found["novelty"].value == 5 / 6
    assert (found["novelty"].generated, found["novelty"].reference) == (6, 2)
    assert found["SNN/Test"].reference == 5
    assert found["SNN/TestSF"].reference == 3
    # Indole alone has two rings in A, indole and quinoline in B.
    assert found["Scaf/Test"].value == pytest.approx(1 / math.sqrt(2) / math.sqrt(2))
    weights = [np.sort(describe(x).values["weight"]) for x in (A, B)]
    grid = np.sort(np.concatenate(weights))
    steps = [np.searchsorted(w, grid[:-1], "right") / len(w) for w in weights]
    assert found["W1 weight"].value == pytest.approx(
        (np.abs(steps[0] - steps[1]) * np.diff(grid)).sum()
    )
    assert set(MOSES_TRAIN) - {name for name in MOSES_TRAIN if "FCD" in name} <= set(found)
    assert "of 7 and 5" in table(found)
    with pytest.raises(ValueError, match="generated must have molecules"):
        evaluate(["bad"], B, fcd=False)
    with pytest.raises(ValueError, match="the set of Test must have"):
        evaluate(A, ["bad"], fcd=False)


def test_kl_score_of_a_set_with_itself_is_one():
    told, ref = describe(A), describe(B)
    assert kl_score(told, told) == pytest.approx(1)
    assert 0 < kl_score(ref, told) < 1
    assert math.isnan(kl_score(describe(["CC"]), told))


@pytest.mark.parametrize(("n", "m", "d"), [(40, 50, 6), (5, 7, 12), (2, 2, 3)])
def test_frechet_is_that_of_the_covariances(n, m, d):
    from scipy.linalg import eigh, sqrtm

    rng = np.random.default_rng(n)
    a, b = rng.standard_normal((n, d)), 2 * rng.standard_normal((m, d)) + 1
    first, second = np.cov(a.T), np.cov(b.T)
    # tr (Σ₁Σ₂)^½ by the symmetric square root, which is right for singular ones too.
    values, vectors = eigh(first)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    inner = np.sqrt(np.clip(eigh(root @ second @ root, eigvals_only=True), 0, None)).sum()
    if min(n, m) > d:
        assert inner == pytest.approx(np.trace(sqrtm(first @ second)).real, rel=1e-8)
    difference = a.mean(0) - b.mean(0)
    want = difference @ difference + np.trace(first) + np.trace(second) - 2 * inner
    assert frechet(a, b) == pytest.approx(want, rel=1e-6)
    assert frechet(a, a) == pytest.approx(0, abs=1e-9 * np.trace(first))
    with pytest.raises(ValueError, match="at least 2"):
        frechet(a[:1], b)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`row_stack`")  # of fcd-torch
def test_fcd_is_that_of_fcd_torch():
    from fcd_torch import FCD

    theirs = FCD()
    np.testing.assert_allclose(
        ChemNet()(A), theirs.get_predictions(A).astype(float), rtol=0, atol=1e-5
    )
    found = fcd([*A, "bad"], B)
    assert (found.generated, found.reference) == (7, 5)
    assert found.value == pytest.approx(frechet(ChemNet()(A), ChemNet()(B)))
