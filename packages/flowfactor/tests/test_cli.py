"""The command, from images to a report."""

import json
import sys

import numpy as np
import pytest
import torch
from flowfactor import Trainer
from flowfactor.cli import main
from flowfactor.pictures import picture, save_gif, strips
from flowfactor.report import Page
from PIL import Image, ImageSequence
from safetensors.torch import load_file


@pytest.fixture
def images(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "images.npz"
    np.savez(path, images=rng.integers(0, 256, (12, 8, 8), dtype=np.uint8))
    return str(path)


def train(images, folder, *more):
    small = ["--iterations", "3", "--batch", "4", "--dim", "4", "--steps", "2"]
    return main(["train", images, "--out", str(folder), *small, *more])


@pytest.mark.parametrize("labels", [[], ["--unlabelled"]])
def test_train_evaluate_traverse(images, tmp_path, capsys, labels):
    run = tmp_path / "run"
    assert train(images, run, "--held-out", "0.5", *labels) == 0
    assert "ELBO" in capsys.readouterr().out
    assert main(["evaluate", str(run), "--samples", "4", "--beyond", "1"]) == 0
    shown = capsys.readouterr().out
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["sequences"] == 6
    for name in ("scale", "rotation", "hue"):
        found = metrics[name]
        for answer in ("flow", "repeat frame 0", "re-encode"):
            assert len(found["per step"][answer]) == 3
            total = found["equivariance error"][answer]
            assert total == pytest.approx(sum(found["per step"][answer][:2]))
            assert f"{total:.1f}" in shown
    assert ("right flow inferred" in metrics) == bool(labels)
    page = (run / "report.html").read_text()
    assert page.count("<svg") == 3
    assert page.count("data:image/png;base64,") == 3
    assert "http" not in page
    assert main(["traverse", str(run)]) == 0
    assert main(["traverse", str(run), "--flow", "rotation,scale", "--steps", "3"]) == 0
    with Image.open(run / "traverse-rotation-scale.png") as sheet:
        assert sheet.size == (7 * 8 * 2, 8 * 2)
    with Image.open(run / "traverse-hue.gif") as animation:
        assert len(list(ImageSequence.Iterator(animation))) == 4


def test_a_run_goes_on(images, tmp_path, capsys):
    run = tmp_path / "run"
    assert train(images, run) == 0
    first = load_file(run / "model.safetensors")
    assert train(images, run) == 0
    assert "going on after iteration 3" in capsys.readouterr().out
    # Not the bytes: safetensors writes the metadata of its head in any order.
    again = load_file(run / "model.safetensors")
    assert again.keys() == first.keys()
    assert all(torch.equal(again[name], first[name]) for name in first)
    assert train(images, run, "--seed", "1") == 2
    assert "--out must be a run with the same options" in capsys.readouterr().err


def test_an_interrupted_run_goes_on(images, tmp_path, capsys, monkeypatch):
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert train(images, whole) == 0
    updates = Trainer.updates

    def interrupted(self, until=None):
        for progress in updates(self, until):
            if progress.iteration == 3:
                raise KeyboardInterrupt
            yield progress

    monkeypatch.setattr(Trainer, "updates", interrupted)
    assert train(images, run, "--save-every", "2") == 130
    assert "goes on from what it last saved" in capsys.readouterr().err
    assert not (run / "model.safetensors").exists()
    monkeypatch.undo()
    assert train(images, run, "--save-every", "2") == 0
    assert "going on after iteration 2" in capsys.readouterr().out
    one, other = (load_file(folder / "model.safetensors") for folder in (whole, run))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_synthetic_scenes(tmp_path):
    run = tmp_path / "run"
    assert train("sprites", run) == 0
    assert main(["evaluate", str(run), "--samples", "2", "--rows", "3"]) == 0
    assert "orientation" in json.loads((run / "metrics.json").read_text())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--transformations", "scale,melt"], "transformations must be among .*'melt'"),
        (["--held-out", "1.5"], "held_out must be between 0 and 1"),
    ],
)
def test_wrong_arguments(images, tmp_path, capsys, arguments, words):
    import re

    assert train(images, tmp_path / "run", *arguments) == 2
    assert re.search(words, capsys.readouterr().err)


def test_wrong_files(tmp_path, capsys):
    path = tmp_path / "images.npz"
    np.savez(path, pictures=np.zeros(3))
    assert train(str(path), tmp_path / "run") == 2
    assert "expected an array `images`, got ['pictures']" in capsys.readouterr().err
    np.savez(path, images=np.zeros((3, 8, 8)))
    assert train(str(path), tmp_path / "run") == 2
    assert "images must be uint8" in capsys.readouterr().err
    assert main(["evaluate", str(tmp_path)]) == 2
    assert "model.safetensors" in capsys.readouterr().err


def test_wrong_traversals(images, tmp_path, capsys):
    run = tmp_path / "run"
    train(images, run)
    capsys.readouterr()
    assert main(["traverse", str(run), "--flow", "shear"]) == 2
    assert "--flow must be among ['scale', 'rotation', 'hue'], got 'shear'" in (
        capsys.readouterr().err
    )
    assert main(["traverse", str(run), "--row", "99"]) == 2
    assert "--row must be in 0" in capsys.readouterr().err


def test_pictures(tmp_path):
    frames = torch.rand(4, 3, 5, 6)
    image = picture(frames[0], zoom=2)
    assert image.size == (12, 10)
    assert image.getpixel((3, 5)) == tuple((255 * frames[0, :, 2, 1]).round().int().tolist())
    assert picture(frames[0, :1]).mode == "L"
    sheet = strips([frames, frames[:2]])
    assert sheet.size == (24, 10)
    assert sheet.getpixel((6, 5)) == picture(frames[1]).getpixel((0, 0))
    save_gif(tmp_path / "a.gif", frames)
    with Image.open(tmp_path / "a.gif") as animation:
        assert len(list(ImageSequence.Iterator(animation))) == 6
    with pytest.raises(ValueError, match=r"values in 0 … 1, got 0 … 1\.5"):
        picture(torch.tensor([[[0.0, 1.5]]]))
    with pytest.raises(ValueError, match="1 or 3 channels, got 2"):
        picture(torch.zeros(2, 3, 3))


def test_pages_escape_what_they_show(tmp_path):
    page = Page("a < b")
    page.text("<script>")
    page.table(["<x>"], [["&", 1.23456]])
    page.curves("t", "x", {"<y>": [1.0, 2.0]})
    page.write(tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert "<script>" not in text
    assert "<x>" not in text
    assert "<y>" not in text
    assert "1.235" in text
    assert "a &lt; b" in text


def test_the_command_says_what_it_needs(monkeypatch, capsys):
    """None in sys.modules is what an absent module looks like."""
    for name in [one for one in sys.modules if one.startswith(("flowfactor.cli.", "typer"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "typer", None)
    assert main(["train"]) == 2
    assert "typer is not installed: pip install 'flowfactor[cli]'" in capsys.readouterr().err
