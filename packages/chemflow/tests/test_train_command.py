"""`chemflow train`, `surrogate` and `flow`, one after the other on a few molecules."""

import pytest
import torch
from chemflow.cli.app import app
from chemflow.flows import load_flow
from chemflow.molecules import encode
from chemflow.surrogate import load_surrogate
from chemflow.vae import load_model
from typer.testing import CliRunner

SMILES = [
    "".join(parts)
    for parts in [
        (a, b, c)
        for a in ("C", "N", "O", "CC", "c1ccccc1C")
        for b in ("C", "CC", "C(=O)", "C(F)", "CCO")
        for c in ("C", "N", "O", "Cl", "CC#N")
    ]
]


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    assert result.exit_code == 0, result.output + repr(result.exception)
    return result.output


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("walk")
    encode(SMILES).save(place / "data")
    said = run(
        "train", place / "data", "--out", place / "model", "--epochs", 2, "--batch", 20,
        "--prior-epochs", 1, "--held-out", 0.2,
    )  # fmt: skip
    assert "held-out molecules" in said
    said = run(
        "surrogate", place / "model", "qed", "--out", place / "qed", "--labels", 60, "--epochs", 2,
        "--members", 2, "--width", 8, "--depth", 1, "--batch", 20, "--data", place / "data",
    )  # fmt: skip
    assert "qed: held-out r" in said
    return place


def test_what_was_trained_is_read_again(folder):
    model = load_model(folder / "model")
    assert model.prior is not None
    surrogate = load_surrogate(folder / "qed", model)
    assert surrogate.quality is not None
    z = model.sample_codes(torch.arange(4), seed=0)
    assert surrogate.predict(z).shape == (4,)
    assert all(isinstance(one, str) for one in model.decode_smiles(z))


@pytest.mark.parametrize("equation", ["wave", "hj", "heat", "fp"])
def test_flows_of_a_property(folder, equation):
    out = folder / equation
    run(
        "flow", folder / "model", "--out", out, "--equation", equation, "--surrogate",
        folder / "qed", "--minimise", "--codes", 20, "--batch", 10, "--epochs", 1, "--hidden", 8,
        "--horizon", 2, "--step-size", 0.3,
    )  # fmt: skip
    drift = load_surrogate(folder / "qed", load_model(folder / "model"))
    flow, about = load_flow(out, drift=drift)
    assert about == {"equation": equation, "property": "qed", "minimise": True}
    z = torch.randn(3, 128)
    torch.testing.assert_close((flow.step(z, 0) - z).norm(dim=-1), torch.full((3,), 0.3))


def test_unsupervised_flows(folder):
    out = folder / "free"
    run(
        "flow", folder / "model", "--out", out, "--flows", 2, "--codes", 20, "--batch", 10,
        "--epochs", 1, "--hidden", 8, "--horizon", 2,
    )  # fmt: skip
    flow, about = load_flow(out)
    assert flow.sizes["flows"] == 2
    assert about["property"] is None


def test_a_second_run_goes_on_from_the_first(folder, tmp_path):
    arguments = ("--epochs", 2, "--batch", 20, "--prior-epochs", 0, "--seed", 1)
    run("train", folder / "data", "--out", tmp_path / "a", *arguments)
    run("train", folder / "data", "--out", tmp_path / "a", *arguments)
    run("train", folder / "data", "--out", tmp_path / "b", *arguments)
    a, b = (load_model(tmp_path / name).state_dict() for name in "ab")
    assert all(torch.equal(a[name], b[name]) for name in a)
    for changed in (("--epochs", 3), ("--beta", 0.5), ("--official-weight", 0.1)):
        other = ["train", folder / "data", "--out", tmp_path / "a", *arguments, *changed]
        result = CliRunner().invoke(app, [str(one) for one in other])
        assert isinstance(result.exception, ValueError)
        assert "expected a run of" in str(result.exception)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("surrogate", "{}/model", "shoe-size", "--out", "{}/x"), "shoe-size"),
        (("flow", "{}/model", "--out", "{}/x", "--equation", "fp"), "--surrogate must be given"),
        (("train", "{}/data", "--out", "{}/x", "--device", "toaster"), "--device must be"),
        (("train", "{}/model", "--out", "{}/x"), "vocabulary.json"),
    ],
)
def test_errors_say_what_is_wrong(folder, arguments, said):
    result = CliRunner().invoke(app, [one.format(folder) for one in arguments])
    assert result.exit_code != 0
    assert isinstance(result.exception, (ValueError, OSError))
    assert said in str(result.exception)
