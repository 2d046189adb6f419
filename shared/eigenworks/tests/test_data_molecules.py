"""Files of SMILES: the real splits, and one sentence for what is wrong."""

import gzip
import lzma

import pytest
from eigenworks.data import MOSES, ZINC250K, DataError, DataSet
from eigenworks.data.molecules import SIZES, read_molecules


def test_moses_has_its_splits() -> None:
    assert isinstance(MOSES, DataSet)
    assert MOSES.available()
    smiles = MOSES.load("test")
    assert len(smiles) == SIZES["test"] == 176_074
    assert smiles[0] == "CC1C2CCC(C2)C1CN(CCO)C(=O)c1ccc(Cl)cc1"


@pytest.mark.bad_input
def test_a_split_that_is_none() -> None:
    with pytest.raises(DataError, match="split must be one of train, test"):
        MOSES.load("valid")  # ty: ignore[invalid-argument-type]


def test_zinc_from_the_development_folder(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("EIGENWORKS_DATA", str(tmp_path))
    assert not ZINC250K.available()
    (tmp_path / "chem").mkdir()
    with lzma.open(tmp_path / "chem" / "zinc250k.smi.xz", "wt") as file:
        file.write("CCO\nc1ccccc1\n")
    assert ZINC250K.available()
    with pytest.raises(DataError, match="expected 249,455 molecules, got 2"):
        ZINC250K.load()


def test_what_is_no_file_of_smiles(tmp_path) -> None:
    plain = tmp_path / "plain.txt"
    plain.write_text("CCO name\n\nC[N+](C)C\t3.5\n")
    assert read_molecules(plain) == ["CCO", "C[N+](C)C"]
    plain.write_text("CCO\n<html>\n")
    with pytest.raises(DataError, match="molecule 1 is no SMILES: '<html>'"):
        read_molecules(plain)
    cut = tmp_path / "cut.csv.gz"
    cut.write_bytes(gzip.compress(b"SMILES\n" + b"CCO\n" * 1000)[:30])
    with pytest.raises(DataError, match="not a whole file"):
        read_molecules(cut)
    other = tmp_path / "other.csv"
    other.write_text("weight\n3\n")
    with pytest.raises(DataError, match="first column 'SMILES'"):
        read_molecules(other, header="SMILES")
