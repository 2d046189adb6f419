"""Docking: failures are heard, scores are kept, and Vina itself docks."""

import importlib.util
import math
import pickle

import numpy as np
import pytest
from chemflow.docking import BOXES, Box, Docking, DockingError, dissociation_constant, prepare

# The number of letters: a score that can be told by hand.
CALLS: list[str] = []


def letters(ligand, docking):  # noqa: ARG001
    CALLS.append(ligand)
    return -float(len(ligand)) / 1000


def broken(ligand, docking):  # noqa: ARG001
    raise RuntimeError("out of the box")


def silent(ligand, docking):  # noqa: ARG001
    return math.nan


@pytest.fixture
def receptor(tmp_path):
    """A cup of carbons around the origin."""
    rng = np.random.default_rng(0)
    directions = rng.standard_normal((60, 3))
    places = 7 * directions / np.linalg.norm(directions, axis=1, keepdims=True)
    lines = [
        f"ATOM  {i:>5}  C   ALA A{i:>4}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00    +0.000 C "
        for i, (x, y, z) in enumerate(places, 1)
    ]
    path = tmp_path / "receptor.pdbqt"
    path.write_text("\n".join(lines) + "\n")
    return str(path)


BOX = Box((0.0, 0.0, 0.0), (10.0, 10.0, 10.0))


def test_scores_are_kept_by_inchikey(receptor, tmp_path):
    CALLS.clear()
    dock = Docking(receptor, BOX, cache=str(tmp_path / "kept"), engine=letters)
    first = dock(["CCO", "OCC", "", "C1CC"])
    assert first[0] == first[1] < 0
    assert np.isnan(first[2:]).all()
    assert len(CALLS) == 1
    kept = list((tmp_path / "kept").rglob("*.json"))
    assert [path.name for path in kept] == ["LFQSCWFLJHTTHZ-UHFFFAOYSA-N.json"]
    again = Docking(receptor, BOX, cache=str(tmp_path / "kept"), engine=broken)
    with pytest.raises(DockingError, match="CCO was not docked"):
        again(["CCO"])  # of another engine
    assert pickle.loads(pickle.dumps(dock))(["CCO"])[0] == first[0]
    assert len(CALLS) == 1
    # Another box, seed or receptor is another score.
    Docking(receptor, BOX, cache=str(tmp_path / "kept"), engine=letters, seed=7)(["CCO"])
    assert len(CALLS) == 2


@pytest.mark.parametrize(("engine", "told"), [(broken, "out of the box"), (silent, "gave nan")])
def test_failures_are_no_scores(receptor, tmp_path, engine, told):
    dock = Docking(receptor, BOX, cache=str(tmp_path / "kept"), engine=engine)
    with pytest.raises(DockingError, match=told):
        dock(["CCO"])
    quiet = Docking(receptor, BOX, cache=str(tmp_path / "kept"), engine=engine, failures="nan")
    with pytest.warns(RuntimeWarning, match="CCO was not docked"):
        assert np.isnan(quiet(["CCO"])).all()
    assert not list(tmp_path.rglob("*.json"))


def test_a_molecule_that_cannot_be_prepared(receptor, monkeypatch):
    monkeypatch.setattr("chemflow.docking.rdDistGeom.EmbedMolecule", lambda *_, **__: -1)
    with pytest.raises(DockingError, match="no conformer"):
        Docking(receptor, BOX, engine=letters)(["CCO"])


def test_settings():
    with pytest.raises(ValueError, match="receptor must be"):
        Docking("nowhere.pdbqt", BOX)
    with pytest.raises(ValueError, match="box must be"):
        Box((0.0, 0.0, 0.0), (1.0, -1.0, 1.0))
    assert BOXES["2IIK"].size == (42 * 0.375, 42 * 0.375, 36 * 0.375)
    # -1.3643 kcal/mol are a factor of ten at 298.15 K.
    assert dissociation_constant(-1.36427) == pytest.approx(0.1, rel=1e-4)


def test_ligands_are_pdbqt():
    text = prepare("CC(=O)Oc1ccccc1C(=O)O")
    assert text.startswith("REMARK SMILES")
    assert "TORSDOF" in text


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("vina") is None, reason="no wheel of vina here")
def test_vina_docks_reproducibly(receptor):
    dock = Docking(receptor, BOX, exhaustiveness=1)
    first, second = dock(["CCO", "c1ccccc1"]), dock(["CCO", "c1ccccc1"])
    assert (first < 0).all()
    assert first[1] < first[0]  # more contacts in a cup of carbon
    np.testing.assert_array_equal(first, second)
