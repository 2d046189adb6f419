"""Properties against tables made by the official functions, and against RDKit's own."""

import csv
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
from chemflow.oracles import (
    LOGP,
    LOGP_MINUS_SA,
    MPO,
    NORMALISATION,
    QED,
    SA,
    Desirability,
    Oracle,
    Property,
    Similarity,
    longest_cycle,
    named,
    penalised_logp,
    plogp,
)
from chemflow.scoring import Scorer, tanimoto
from chemflow.standardise import parse
from rdkit import Chem

DATA = Path(__file__).parent / "data"
TABLE = list(csv.DictReader((DATA / "props50.csv").read_text().splitlines()))
SMILES = [row["smiles"] for row in TABLE]


@pytest.mark.parametrize(
    ("column", "oracle"),
    [
        ("logp", LOGP),
        ("sa", SA),
        ("qed", QED),
        ("plogp_normalised_official", plogp()),
        ("plogp_normalised_sssr", plogp(cycles="sssr")),
        ("plogp_raw_longest_ring", plogp("raw", "sssr")),
        ("plogp_raw_limo", plogp("count")),
    ],
)
def test_fifty_molecules_have_the_official_values(column, oracle):
    want = np.array([float(row[column]) for row in TABLE])
    # The table has ten digits.
    np.testing.assert_allclose(oracle(SMILES), want, rtol=0, atol=1e-8)


def test_rings_of_both_kinds():
    for row in TABLE:
        mol = parse(row["smiles"])
        assert longest_cycle(mol) == int(row["max_cycle_basis"])
        assert longest_cycle(mol, "sssr") == int(row["max_ring_sssr"])
    assert longest_cycle(parse("CCO")) == 0


def test_tanimoto_of_fifty_molecules():
    packed = Scorer([])(SMILES).fingerprints
    want = np.load(DATA / "tanimoto50.npz")["tanimoto"]
    assert np.array_equal(tanimoto(packed[:, None], packed[None]), want)
    for place in (0, 17):
        assert np.array_equal(Similarity(SMILES[place])(SMILES), want[place])


def test_qed_is_rdkits_also_with_hydrogens():
    from rdkit.Chem import QED as RDKIT

    with_hydrogens = [Chem.AddHs(parse(one)) for one in SMILES[:5]]
    isotope = parse("[2H]C([2H])([2H])c1ccncc1")
    for mol in (*with_hydrogens, isotope, *map(parse, SMILES)):
        assert QED.values([mol])[0] == RDKIT.qed(Chem.Mol(mol))


def test_no_molecule_has_no_value():
    bad = ["", "C1CC", "c1cccc1", "C(C)(C)(C)(C)C"]
    for oracle in (QED, SA, LOGP, plogp(), Similarity("CCO")):
        values = oracle([*bad, "CCO"])
        assert np.isnan(values[:-1]).all()
        assert math.isfinite(values[-1])
    assert QED([]).shape == (0,)


def test_the_normalisation_is_of_zinc():
    aspirin = parse("CC(=O)Oc1ccccc1C(=O)O")
    by_hand = (
        (LOGP.values([aspirin])[0] - NORMALISATION["logP"][0]) / NORMALISATION["logP"][1]
        + (-SA.values([aspirin])[0] - NORMALISATION["-SA"][0]) / NORMALISATION["-SA"][1]
        + (0 - NORMALISATION["-ring"][0]) / NORMALISATION["-ring"][1]
    )
    assert penalised_logp(aspirin) == pytest.approx(by_hand, abs=1e-12)
    # A ring of eight costs two ring atoms, and by counting one ring.
    ring = parse("C1CCCCCCC1")
    assert penalised_logp(ring, "raw") == pytest.approx(LOGP_MINUS_SA.function(ring) - 2)
    assert penalised_logp(ring, "count") == pytest.approx(LOGP_MINUS_SA.function(ring) - 1)


@pytest.mark.bad_input
def test_conventions_that_are_none():
    with pytest.raises(ValueError, match="convention must be"):
        plogp("official")  # ty: ignore[invalid-argument-type]
    with pytest.raises(ValueError, match="cycles"):
        longest_cycle(parse("C1CC1"), "rings")  # ty: ignore[invalid-argument-type]


def test_a_molecule_has_one_value_however_it_is_spelt():
    morphine = next(row for row in TABLE if row["name"].startswith("morphine"))
    mol = parse(morphine["smiles"])
    spellings = [Chem.MolToSmiles(mol, doRandom=True) for _ in range(6)] + [morphine["smiles"]]
    assert len(set(plogp()(spellings).tolist())) > 1
    scored = Scorer([plogp(), plogp(cycles="sssr")])(spellings)
    assert len(set(scored.canonical)) == 1
    assert np.ptp(scored.values, axis=0).max() == 0


def test_desirabilities_and_their_means():
    up, down = Desirability(QED, 0.4, 0.8), Desirability(SA, 5.0, 3.0, weight=2.0)
    assert up.of(np.array([0.2, 0.5, 0.9])).tolist() == pytest.approx([0, 0.25, 1])
    assert down.of(np.array([6.0, 3.5, 2.0])).tolist() == pytest.approx([0, 0.75, 1])
    parts = np.stack([up.of(QED(SMILES)), down.of(SA(SMILES))])
    arithmetic = MPO("both", (up, down), mean="arithmetic")(SMILES)
    np.testing.assert_allclose(arithmetic, (parts[0] + 2 * parts[1]) / 3)
    np.testing.assert_allclose(
        MPO("both", (up, down))(SMILES), (parts[0] * parts[1] ** 2) ** (1 / 3), atol=1e-15
    )
    assert MPO("both", (Desirability(plogp(), 0.0, 1.0),)).spelling
    assert not MPO("both", (up,)).spelling
    with pytest.raises(ValueError, match="low and high"):
        Desirability(QED, 0.5, 0.5)
    with pytest.raises(ValueError, match="parts"):
        MPO("none", ())


def test_names_of_the_command():
    for text, name in {
        "qed": "qed",
        "plogp": "plogp-normalised-basis",
        "plogp-raw-sssr": "plogp-raw-sssr",
        "plogp-count": "plogp-count",
        "similarity:CCO": "similarity(CCO)",
    }.items():
        found = named(text)
        assert isinstance(found, Oracle)
        assert found.name == name
        assert pickle.loads(pickle.dumps(found)).name == name
    assert not named("sa").maximise
    with pytest.raises(ValueError, match="property must be one of qed"):
        named("weight")
    with pytest.raises(ValueError, match="unparsable"):
        named("similarity:C1C")


def test_an_error_says_of_which_molecule():
    def fails(mol):
        if mol.GetNumAtoms() == 2:
            raise RuntimeError("no")
        return 1.0

    oracle = Property("mine", fails)
    assert oracle(["C"]).tolist() == [1]
    with pytest.raises(RuntimeError) as caught:
        oracle(["C", "CO"])
    assert caught.value.__notes__ == ["while mine was scoring CO"]
