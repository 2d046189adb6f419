"""From SMILES to numbers and back, and the account of what fell away."""

import json
import random

import numpy as np
import pytest
import selfies
import torch
from chemflow.files import read_smiles
from chemflow.molecules import Molecules, encode, to_selfies
from chemflow.standardise import MoleculeError, Standardiser, canonical, parse
from chemflow.vocabulary import Vocabulary, from_selfies
from rdkit import Chem

DRUGS = {
    "aspirin": "CC(=O)Oc1ccccc1C(=O)O",
    "caffeine": "Cn1c(=O)c2c(ncn2C)n(C)c1=O",
    "nicotine": "CN1CCC[C@H]1c1cccnc1",
    "sildenafil": "CCCc1nn(C)c2c(=O)[nH]c(-c3cc(S(=O)(=O)N4CCN(C)CC4)ccc3OCC)nc12",
    "morphine": "CN1CC[C@]23c4c5ccc(O)c4O[C@H]2[C@@H](O)C=C[C@H]3[C@H]1C5",
}


@pytest.mark.parametrize("smiles", DRUGS.values(), ids=DRUGS)
def test_the_round_trip_is_the_molecule(smiles):
    text = to_selfies(canonical(smiles))
    assert canonical(from_selfies(text)) == canonical(smiles)
    found = encode([smiles], verify=True)
    assert found.smiles() == [canonical(smiles)]


def test_the_account():
    source = [
        "CCO",  # 0
        "OCC",  # the same
        "C1CC",  # no molecule
        "",
        "CCO.Cl",
        "C",  # too short
        "c1ccccc1" * 6,  # too long
        "CCN",
        "FS(F)(F)(F)(F)(F)F",  # a valence that SELFIES refuses
    ]
    seen = []
    found = encode(source, min_tokens=2, max_tokens=30, progress=seen.append)
    assert found.report.rejected == {
        "duplicate": 1, "unparsable": 2, "empty": 1, "fragments": 1, "too short": 1,
        "too long": 1,
    }  # fmt: skip
    assert found.report.examples["fragments"] == ["CCO.Cl"]
    assert (found.report.read, found.report.kept) == (9, 2)
    assert found.rows.tolist() == [0, 7]
    assert found.rejected[0].tolist() == [1, 2, 3, 4, 5, 6, 8]
    assert found.rejected[1][3] == "fragments"
    assert found.smiles() == ["CCO", "CCN"]
    assert seen == [9]
    assert "9 molecules read, 2 kept" in str(found.report)


def test_selfies_refusals_are_counted():
    # RDKit takes five bonds of iodine, the constraints of SELFIES do not.
    found = encode(["O=I(=O)c1ccccc1", "CC"])
    assert found.report.rejected == {"selfies": 1}
    assert found.rows.tolist() == [1]


def test_repairs_before_selfies():
    nitro = "CN(=O)=O"
    with pytest.raises(selfies.EncoderError):
        selfies.encoder(nitro)
    assert encode([nitro], verify=True).smiles() == ["C[N+](=O)[O-]"]
    with pytest.raises(MoleculeError, match="selfies"):
        to_selfies("O=I(=O)c1ccccc1")


def test_what_selfies_cannot_kekulise_rdkit_can(monkeypatch):
    given = []

    def encoder(smiles):
        given.append(smiles)
        if any(letter in smiles for letter in "cno"):
            raise selfies.EncoderError
        return "[C]"

    monkeypatch.setattr(selfies, "encoder", encoder)
    assert to_selfies("c1ccccc1O") == "[C]"
    assert canonical(given[1]) == canonical(given[0])


def test_vocabulary_order_and_padding():
    found = encode(["CCO", "C=N", "CC"])
    assert found.vocabulary.tokens == ("[nop]", "[=N]", "[C]", "[O]")
    assert found.ids.dtype == np.uint8
    assert found.ids.tolist() == [[2, 2, 3], [2, 1, 0], [2, 2, 0]]
    again = encode(["OCC", "CO"], found.vocabulary, max_tokens=4)
    assert again.ids.tolist() == [[2, 2, 3, 0], [2, 3, 0, 0]]


def test_unknown_tokens_are_never_left_out():
    vocabulary = Vocabulary.of(["[C]", "[O]"])
    found = encode(["CCO", "CCN"], vocabulary)
    assert found.report.rejected == {"unknown token": 1}
    with pytest.raises(MoleculeError, match=r"unknown token \[N\]"):
        encode(["CCO", "CCN"], vocabulary, unknown="raise")
    with pytest.raises(MoleculeError, match=r"unknown token \[N\]"):
        vocabulary.encode("[C][N]")
    with pytest.raises(MoleculeError, match="too long"):
        vocabulary.encode("[C][C][C]", 2)
    assert vocabulary.encode("[C][O]", 3) == [1, 2, 0]


def test_decoding_leaves_out_padding_anywhere():
    vocabulary = Vocabulary.of(["[C]", "[O]"])
    ids = torch.tensor([[1, 0, 1, 2], [0, 0, 0, 0], [2, 0, 0, 0]])
    assert vocabulary.decode(ids) == ["CCO", "", "O"]
    assert vocabulary.decode(ids[:0]) == []
    with pytest.raises(ValueError, match="ids must be in 0 … 2, got 1 … 3"):
        vocabulary.decode(np.array([[1, 3]]))


def test_any_tokens_decode_to_a_molecule_or_to_nothing():
    tokens = sorted({token for one in DRUGS.values() for token in
                     selfies.split_selfies(to_selfies(canonical(one)))})  # fmt: skip
    vocabulary = Vocabulary.of([*tokens, "[#N]", "[=S]", "[Ring2]", "[Branch2]", "[NH1+1]"])
    rng = np.random.default_rng(0)
    rows = rng.integers(0, len(vocabulary), (300, 30))
    for smiles in vocabulary.decode(rows):
        assert smiles == "" or Chem.MolFromSmiles(smiles) is not None


def test_pieces_are_kept_and_gone_on_from(tmp_path, monkeypatch):
    source = ["C" * n for n in range(1, 9)] + ["CC", "bad"]
    monkeypatch.setattr("chemflow.molecules._PIECE", 3)
    want = encode(source)

    def interrupted():
        yield from source[:7]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode(interrupted(), folder=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "piece-000000.json", "piece-000001.json",
    ]  # fmt: skip
    done = json.loads((tmp_path / "piece-000000.json").read_text())
    done["encoded"][0] = ["[O]", ""]
    (tmp_path / "piece-000000.json").write_text(json.dumps(done))
    found = encode(source, folder=tmp_path)
    assert found.smiles() == ["O", *want.smiles()[1:]]  # it really read the piece
    # Of another source, or encoded otherwise, it is done again.
    assert encode(["O", *source[1:]], folder=tmp_path).smiles()[0] == "O"
    other = encode(source, folder=tmp_path, standardiser=Standardiser(stereo=False))
    assert other.smiles() == want.smiles()
    assert other.report == want.report


@pytest.mark.parametrize("workers", [2])
def test_processes_give_the_same(workers, monkeypatch):
    monkeypatch.setattr("chemflow.molecules._PIECE", 2)
    source = [*DRUGS.values(), "bad", "CCO", "OCC"]
    one, two = encode(source), encode(source, workers=workers)
    assert np.array_equal(one.ids, two.ids)
    assert one.report == two.report
    assert one.vocabulary == two.vocabulary


def test_files(tmp_path):
    found = encode([*DRUGS.values(), "bad", "C.C"])
    found.save(tmp_path / "set")
    again = Molecules.load(tmp_path / "set")
    assert np.array_equal(again.ids, found.ids)
    assert again.report == found.report
    assert again.rejected[1] == found.rejected[1]
    assert again.vocabulary == found.vocabulary
    (tmp_path / "v.json").write_text('{"format": "other", "tokens": []}')
    with pytest.raises(ValueError, match="expected the format"):
        Vocabulary.load(tmp_path / "v.json")
    encode(["CC"]).save(tmp_path / "other")
    (tmp_path / "other" / "molecules.npz").replace(tmp_path / "set" / "molecules.npz")
    with pytest.raises(ValueError, match="does not belong"):
        Molecules.load(tmp_path / "set")


def test_no_molecules():
    found = encode([])
    assert found.ids.shape == (0, 0)
    assert found.vocabulary.tokens == ("[nop]",)


@pytest.mark.parametrize(
    ("standardiser", "smiles", "want"),
    [
        (Standardiser(), "OCC", "CCO"),
        (Standardiser(fragments="largest"), "CC(=O)[O-].[Na+]", "CC(=O)[O-]"),
        (Standardiser(fragments="largest", neutralise=True), "CC(=O)[O-].[Na+]", "CC(=O)O"),
        (Standardiser(), "C[C@H](N)O", "C[C@H](N)O"),
        (Standardiser(stereo=False), "C[C@H](N)O", "CC(N)O"),
        (Standardiser(stereo=False), "C/C=C/C", "CC=CC"),
        (Standardiser(isotopes=False), "[2H]C([2H])O", "CO"),
        (Standardiser(), "[13CH4]", "[13CH4]"),
        (Standardiser(), "[H]C([H])O", "CO"),
        (Standardiser(), "CS(C)=O", "CS(C)=O"),
        (Standardiser(normalise=True), "CS(C)=O", "C[S+](C)[O-]"),
    ],
)
def test_standardiser(standardiser, smiles, want):
    found = standardiser(smiles)
    assert found == Chem.CanonSmiles(want)
    assert standardiser(found) == found


def test_it_says_why_a_molecule_is_none():
    for smiles, reason in {"": "empty", "C1": "unparsable", "C.C": "fragments"}.items():
        with pytest.raises(MoleculeError) as caught:
            Standardiser()(smiles)
        assert caught.value.reason == reason
    with pytest.raises(MoleculeError):
        parse("x")
    assert canonical("x") == ""


def test_standardising_twice_is_once_for_drugs_in_any_spelling():
    random.seed(0)
    for smiles in DRUGS.values():
        mol = parse(smiles)
        spelt = {Standardiser()(Chem.MolToSmiles(mol, doRandom=True)) for _ in range(4)}
        assert spelt == {canonical(smiles)}


def test_files_of_smiles(tmp_path):
    (tmp_path / "a.smi").write_text("# comment\nCCO ethanol\n\nCC\n")
    assert list(read_smiles(tmp_path / "a.smi")) == ["CCO", "CC"]
    (tmp_path / "a.csv").write_text('id,SMILES\n1,"CCO"\n2,CC\n')
    assert list(read_smiles(tmp_path / "a.csv")) == ["CCO", "CC"]
    assert list(read_smiles(tmp_path / "a.csv", column="id")) == ["1", "2"]
    with pytest.raises(ValueError, match="expected a column 'mol'"):
        list(read_smiles(tmp_path / "a.csv", column="mol"))
    (tmp_path / "cut.csv").write_text("id,smiles\n1\n")
    with pytest.raises(ValueError, match="line 2 has 1 columns"):
        list(read_smiles(tmp_path / "cut.csv"))
    (tmp_path / "b.smi.gz").write_bytes(b"nothing zipped")
    with pytest.raises(OSError, match="gzip"):
        list(read_smiles(tmp_path / "b.smi.gz"))
    (tmp_path / "c.smi").write_bytes(b"\xff\xfe\x00C")
    with pytest.raises(ValueError, match="not a whole file of text"):
        list(read_smiles(tmp_path / "c.smi"))
