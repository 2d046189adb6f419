"""The command on small folders of images and a torchvision model with weights from a file."""

import csv
import importlib
import json
import sys

import pytest
import torch
import torchvision
from PIL import Image
from rankfeat import RankFeat
from rankfeat.cli import main
from rankfeat.command import app
from rankfeat.protocols import PROTOCOLS
from rankfeat.sources import Preprocessing, load_data, load_model
from typer.testing import CliRunner


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Folders `id` (of two classes) and `ood`, and weights.pt of a small ShuffleNet."""
    folder = tmp_path_factory.mktemp("rankfeat")
    generator = torch.Generator().manual_seed(0)
    for name, count in (("id/a", 6), ("id/b", 5), ("ood", 7), ("other", 4)):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            pixels = torch.randint(256, (40, 50, 3), generator=generator, dtype=torch.uint8)
            if name == "ood":
                pixels = pixels // 4
            Image.fromarray(pixels.numpy()).save(folder / name / f"{index}.png")
    torch.manual_seed(0)
    net = torchvision.models.shufflenet_v2_x0_5(weights=None)
    torch.save(net.state_dict(), folder / "weights.pt")
    return folder


def run(place, command, *arguments, status=0):
    given = [command, "--model", "torchvision:shufflenet_v2_x0_5", "--weights",
             str(place / "weights.pt"), "--size", "64", *arguments]  # fmt: skip
    result = CliRunner().invoke(app, given)
    assert result.exit_code == status, result.output
    return result.output


def test_suggest(place):
    output = run(place, "suggest", "--id", str(place / "id"), "--agreement", "0")
    assert "11 images; suggested: conv5" in output
    assert "* conv5" in output


def test_calibrate_and_score(place, tmp_path):
    path = tmp_path / "detector.safetensors"
    output = run(place, "calibrate", "--id", str(place / "id"), "--layer", "stage4",
                 "--out", str(path), "--tpr", "0.8")  # fmt: skip
    assert "accepts 80 %" in output
    lines = run(place, "score", "--detector", str(path), "--data", str(place / "ood"))
    told = [json.loads(line) for line in lines.splitlines()]
    net = load_model("torchvision:shufflenet_v2_x0_5", str(place / "weights.pt"))
    data = load_data(str(place / "ood"), Preprocessing(64))
    x = torch.stack([data[i] for i in range(7)])
    detector = RankFeat.load(path, net)
    assert [one["score"] for one in told] == pytest.approx(detector.score(x).tolist(), rel=1e-4)
    assert [one["class"] for one in told] == net(x).argmax(1).tolist()
    assert [one["ood"] for one in told] == detector.predict(x).tolist()
    assert told[0]["image"].endswith("0.png")


def test_evaluate(place, tmp_path):
    files = [tmp_path / f"report.{ending}" for ending in ("csv", "json", "html")]
    output = run(
        place, "evaluate", "--id", str(place / "id"), "--ood", f"dark={place / 'ood'}",
        "--ood", f"other={place / 'other'}", "--near", "other", "--far", "dark",
        "--layer", "stage4", "--rank-weight", "conv5.0", "--penultimate", "conv5",
        "--head", "fc", "--fit", str(place / "id"), "--resamples", "20",
        *(part for path in files for part in ("--out", str(path))), status=2,
    )  # fmt: skip
    # KNN takes the 50th neighbour, and there are 11 images.
    assert "batches must hold at least k=50 samples, got 11" in output
    output = run(
        place, "evaluate", "--id", str(place / "id"), "--ood", f"dark={place / 'ood'}",
        "--ood", f"other={place / 'other'}", "--near", "other", "--far", "dark",
        "--layer", "stage4", "--rank-weight", "conv5.0", "--penultimate", "conv5",
        "--fit", str(place / "id"), "--resamples", "20",
        *(part for path in files for part in ("--out", str(path))),
    )  # fmt: skip
    assert "OOD positive" in output
    assert "ID positive" in output
    rows = list(csv.DictReader(files[0].read_text().splitlines()))
    names = ["MSP", "MaxLogit", "Energy", "RankFeat", "ASH-S", "ReAct", "RankWeight",
             "RankFeat+RankWeight"]  # fmt: skip
    assert list(dict.fromkeys(row["detector"] for row in rows)) == names
    assert {row["ood"] for row in rows} == {"dark", "other", "near", "far", "mean"}
    assert json.loads(files[1].read_text())["rows_percent"]
    assert "<table>" in files[2].read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--layer", "nowhere"], "has no layer 'nowhere'"),
        ([], "say --layer (see `rankfeat suggest`), or a --protocol"),
        (["--layer", "stage4", "--mean", "grey"], "mean and std must be numbers with commas"),
        (["--layer", "stage4", "--score", "odin"], "score must be one of energy, msp, maxlogit"),
        (["--protocol", "resnet"], "protocol must be one of bit, squeezenet, vit, swin, t2t"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(place, tmp_path, arguments, said):
    output = run(place, "calibrate", "--id", str(place / "id"), "--out",
                 str(tmp_path / "x"), *arguments, status=2)  # fmt: skip
    assert said in output
    assert "Traceback" not in output


def test_data_and_models(place, tmp_path):
    plain = Preprocessing(32)
    assert len(load_data("torchvision:FakeData:12", plain)) == 12
    x, label = load_data(str(place / "id"), plain, labelled=True)[0]
    assert (x.shape, label) == ((3, 32, 32), 0)
    assert load_data(str(place / "id"), Preprocessing(32, "crop"))[0].shape == (3, 32, 32)
    with pytest.raises(ValueError, match="holds no image"):
        load_data(str(tmp_path), plain)
    with pytest.raises(ValueError, match="torchvision has no data set 'Nothing'"):
        load_data("torchvision:Nothing:x", plain)
    with pytest.raises(ValueError, match="torchvision has no model 'nothing'"):
        load_model("torchvision:nothing", None)
    with pytest.raises(ValueError, match="model must be 'torchvision:NAME'"):
        load_model("squeezenet", None)
    with pytest.raises(
        ValueError, match=r"must fit torchvision:squeezenet1_1: missing \['features"
    ):
        load_model("torchvision:squeezenet1_1", str(place / "weights.pt"))
    with pytest.raises(ValueError, match=r"must fit torchvision:shufflenet_v2_x1_0: Error"):
        load_model("torchvision:shufflenet_v2_x1_0", str(place / "weights.pt"))
    with pytest.raises(ValueError, match="model must name a module that is there, got 'nowhere'"):
        load_model("nowhere:net", None)
    with pytest.raises(ValueError, match="model must name a function of 'torch', got 'nothing'"):
        load_model("torch:nothing", None)
    with pytest.raises(ValueError, match="model must be made by torch:Generator, got Generator"):
        load_model("torch:Generator", None)


def test_preprocessing_by_hand():
    image = Image.new("RGB", (20, 10), (255, 0, 51))
    x = Preprocessing(8, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)).transform()(image)
    assert x.shape == (3, 8, 8)
    assert x[:, 0, 0].tolist() == pytest.approx([1, -1, -0.6])


@pytest.mark.parametrize("name", ["squeezenet", "vit", "swin", "bit"])
def test_layers_of_the_protocols_are_there(name):
    protocol = PROTOCOLS[name]
    origin, _, model = str(protocol.model).partition(":")
    with torch.device("meta"):
        if origin == "timm":
            # Without the tag of the weights, which are not asked for.
            net = importlib.import_module("timm").create_model(model.partition(".")[0])
        else:
            net = torchvision.models.get_model(model, weights=None)
    modules = dict(net.named_modules())
    assert {*protocol.layers, *protocol.rank_weight, *protocol.with_rank_weight} <= set(modules)
    assert all(hasattr(modules[one], "weight") for one in protocol.rank_weight)


def test_without_the_extra_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "typer", None)
    monkeypatch.delitem(sys.modules, "rankfeat.command")
    with pytest.raises(SystemExit, match=r"typer is not installed: pip install 'rankfeat\[cli\]'"):
        main()
