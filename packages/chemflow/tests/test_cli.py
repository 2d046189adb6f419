"""The command from molecules to pictures, on a model that learnt next to nothing."""

import json

import pytest
from chemflow.cli import main
from chemflow.cli.app import app
from rdkit import Chem
from typer.testing import CliRunner

SMILES = [
    "CC(=O)Oc1ccccc1C(=O)O", "Cn1c(=O)c2c(ncn2C)n(C)c1=O", "CCO", "CCN", "Cc1ccccc1O",
    "c1ccc2[nH]ccc2c1", "O=C(O)c1ccccc1", "CCCCN", "CC(C)O", "c1ccncc1", "CC(=O)N", "CCOC(=O)C",
]  # fmt: skip


def call(*arguments):
    found = CliRunner().invoke(app, [str(one) for one in arguments])
    assert found.exit_code == 0, f"{found.output}\n{found.exception!r}"
    return found.output


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    (folder / "molecules.smi").write_text("\n".join([*SMILES, "C1CC", "OCC", "C.C"]))
    told = call("data", folder / "molecules.smi", "--out", folder / "data", "--workers", 1)
    assert "15 molecules read, 12 kept" in told
    assert "1 fragments, as C.C" in told
    assert not (folder / "data" / "pieces").exists()
    call(
        "train", folder / "data", "--out", folder / "model", "--epochs", 30, "--batch", 8,
        "--held-out", 0, "--prior-epochs", 0,
    )  # fmt: skip
    call(
        "surrogate", folder / "model", "logp", "--out", folder / "logp", "--labels", 60,
        "--members", 2, "--width", 4, "--depth", 1, "--epochs", 1, "--batch", 16,
    )  # fmt: skip
    return folder


def test_optimise_and_draw(trained, tmp_path):
    arguments = [
        "optimize", trained / "model", "--out", tmp_path, "--property", "logp", "--also", "sa",
        "--surrogate", trained / "logp", "--count", 10, "--steps", 3, "--batch", 4, "--workers", 1,
        "--trajectories",
    ]  # fmt: skip
    told = call(*arguments)
    assert "10 rows, seed 0, 3 steps; 40 decoded" in told
    found = json.loads((tmp_path / "optimization.json").read_text())
    assert found["settings"]["steps"] == 3
    assert found["steps"][3]["predicted"]["logp"] is not None
    assert "<svg" in (tmp_path / "report.html").read_text()
    best = found["best"][0]["smiles"]
    assert Chem.CanonSmiles(best) == best
    (tmp_path / "batch-000001.json").unlink()
    assert call(*arguments).splitlines()[1:] == told.splitlines()[1:]

    out = tmp_path / "drawn"
    row = found["best"][0]["row"]
    told = call("draw", tmp_path, "--out", out, "--sdf", "--row", row, "--format", "png")
    assert (out / f"row-{row}.png").read_bytes().startswith(b"\x89PNG")
    mols = [mol for mol in Chem.SDMolSupplier(str(out / "trajectories.sdf")) if mol is not None]
    assert f"{len(mols)} molecules" in told
    assert mols
    assert {path.name for path in out.glob("*.svg")} == {
        "density-logp.svg", "density-sa.svg", "running-best.svg",
    }  # fmt: skip
    call("draw", tmp_path)
    assert list(tmp_path.glob("row-*.svg"))


def test_several_properties_from_molecules_and_seeds(trained, tmp_path):
    told = call(
        "optimize", trained / "model", "--out", tmp_path, "--property", "qed", "--property", "sa",
        "--range", "0,1", "--range", "1,10", "--weight", 1, "--weight", 2, "--combine",
        "sequential", "--navigator", "random", "--molecules", trained / "molecules.smi", "--steps",
        2, "--seeds", 2, "--workers", 1, "--threshold", 0, "--threshold", 0.4,
    )  # fmt: skip
    assert "over 2 seeds" in told
    found = json.loads((tmp_path / "seed-1" / "optimization.json").read_text())
    assert found["size"] == 15
    assert {smiles for _, smiles, _ in found["lost"]} == {"C1CC"} | {
        smiles for _, smiles, why in found["lost"] if why != "no molecule"
    }
    assert {one["reference"] for one in found["improvements"]} == {"input", "start"}
    assert found["front"]


@pytest.mark.parametrize("navigator", ["linear", "random-1d", "adam", "langevin"])
def test_manipulate(trained, tmp_path, navigator):
    told = call(
        "manipulate", trained / "model", "--out", tmp_path, "--property", "logp", "--navigator",
        navigator, "--surrogate", trained / "logp", "--count", 6, "--steps", 2, "--workers", 1,
        "--reference", trained / "molecules.smi", "--labels", 40,
    )  # fmt: skip
    assert "6 paths of 3 molecules; strict success" in told
    found = json.loads((tmp_path / "manipulation.json").read_text())
    assert found["strict"]["mean"] <= found["relaxed"]["mean"]
    assert found["settings"]["epsilon"] > 0


def test_evaluate(trained, tmp_path):
    told = call(
        "evaluate", trained / "molecules.smi", trained / "molecules.smi", "--no-fcd",
        "--workers", 1, "--train", trained / "molecules.smi", "--out", tmp_path,
    )  # fmt: skip
    assert "valid" in told
    figures = json.loads((tmp_path / "metrics.json").read_text())
    assert figures["novelty"]["value"] == 0
    assert figures["SNN/Test"] == {"value": 1, "generated": 14, "reference": 14}
    told = call(
        "evaluate", trained / "model", trained / "molecules.smi", "--no-fcd", "--workers", 1,
        "--samples", 20,
    )  # fmt: skip
    assert "of 20" in told


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["data", "nowhere.smi", "--out", "OUT"], "No such file"),
        (["data", "moses:valid", "--out", "OUT"], "moses: must be of train, test"),
        (["optimize", "MODEL", "--out", "OUT", "--property", "mass"], "property must be one of"),
        (["optimize", "MODEL", "--out", "OUT", "--property", "docking"], "needs --receptor"),
        (
            ["optimize", "MODEL", "--out", "OUT", "--property", "qed", "--range", "1"],
            "--range must be LOW,HIGH",
        ),
        (["optimize", "MODEL", "--out", "OUT", "--property", "qed"], "surrogate"),
        (
            ["optimize", "MODEL", "--out", "OUT", "--property", "qed", "--surrogate", "LOGP"],
            "no --property asks for it",
        ),
        (["manipulate", "MODEL", "--out", "OUT", "--property", "qed"], "one of --epsilon"),
        (["draw", "OUT"], "neither a result nor trajectories"),
    ],
)
def test_errors_are_one_sentence(trained, tmp_path, capsys, monkeypatch, arguments, told):
    names = {"MODEL": trained / "model", "OUT": tmp_path, "LOGP": trained / "logp"}
    given = [str(names.get(one, one)) for one in arguments]
    if given[0] != "draw":
        given += ["--workers", "1"]
    monkeypatch.setattr("sys.argv", ["chemflow", *given])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    shown = capsys.readouterr().err
    assert told in shown
    assert "Traceback" not in shown
