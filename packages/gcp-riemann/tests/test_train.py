"""Training: configurations, data sets, going on after an interruption, two processes."""

import json
import os
import socket
import subprocess
import sys

import pytest
import torch
from gcp_riemann import data, train
from gcp_riemann.data import CUB, Generated, View
from PIL import Image
from torch.utils.data import TensorDataset


@pytest.mark.parametrize("name", train.CONFIGS)
def test_configurations_are_those_of_the_paper(name):
    config = train.CONFIGS[name]
    assert config.data == name
    assert max(config.decay_at) < config.epochs
    published = {
        "aircraft": (100, 5e-3, 8, 5),
        "cub": (200, 5e-2, 10, 10),
        "cars": (196, 5e-2, 10, 10),
    }
    if name in published:
        assert (config.classes, config.lr, config.batch, config.factor) == published[name]
        assert (config.backbone, config.view.crop) == ("resnet50", 448)


def test_classifier_has_its_own_learning_rate():
    config = train.CONFIGS["generated"]
    network = train.build(config, "pow-emlr", {})
    groups = train.optimiser(network, train.replace(config, factor=10.0)).param_groups
    assert [group["lr"] for group in groups] == [config.lr, 10.0 * config.lr]
    assert {id(p) for p in groups[1]["params"]} == {id(p) for p in network.head.parameters()}
    learned = [p for p in network.parameters() if p.requires_grad]
    assert len(groups[0]["params"]) + len(groups[1]["params"]) == len(learned)


def test_only_training_images_are_flipped():
    pixels = Image.new("RGB", (40, 40))
    pixels.paste((255, 255, 255), (0, 0, 20, 40))
    views = {part: View(32, 32).transform(part) for part in (True, False)}
    found = {part: {round(float(view(pixels)[0, 0, 0])) for _ in range(40)}
             for part, view in views.items()}  # fmt: skip
    assert len(found[True]) == 2
    assert len(found[False]) == 1
    assert View(32, 16, random_crop=True).transform(True)(pixels).shape == (3, 16, 16)


def test_cub_in_its_own_lists(tmp_path):
    (tmp_path / "images" / "1.A").mkdir(parents=True)
    for name in ("a", "b"):
        Image.new("RGB", (8, 8)).save(tmp_path / "images" / "1.A" / f"{name}.jpg")
    (tmp_path / "images.txt").write_text("1 1.A/a.jpg\n2 1.A/b.jpg\n")
    (tmp_path / "image_class_labels.txt").write_text("1 1\n2 200\n")
    (tmp_path / "train_test_split.txt").write_text("1 1\n2 0\n")
    view = View(8, 8)
    trained, tested = (data.load("cub", tmp_path, view, 200, train=t) for t in (True, False))
    assert isinstance(trained, CUB)
    assert isinstance(tested, CUB)
    assert len(trained) == len(tested) == 1
    assert trained[0][1] == 0
    assert tested[0][1] == 199
    assert tested[0][0].shape == (3, 8, 8)
    with pytest.raises(FileNotFoundError, match=r"images\.txt"):
        CUB(tmp_path / "absent", True, view.transform(True))


def test_folders(tmp_path):
    for part in ("train", "test"):
        (tmp_path / part / "x").mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / part / "x" / "1.png")
    images = data.load("folder", tmp_path, View(8, 8), 1, train=False)
    assert images[0][0].shape == (3, 8, 8)


@pytest.mark.bad_input
def test_unknown_data():
    with pytest.raises(ValueError, match="name must be one of imagenet, aircraft"):
        data.load("birds", None, View(8, 8), 1, train=True)  # ty: ignore[invalid-argument-type]


def test_generated_images_are_the_same_every_time():
    one, other = Generated(8, 4, 16, 0), Generated(8, 4, 16, 0)
    assert torch.equal(one[5][0], other[5][0])
    assert not torch.equal(one[5][0], Generated(8, 4, 16, 1)[5][0])
    assert [label for _, label in (one[i] for i in range(8))] == [0, 1, 2, 3, 0, 1, 2, 3]


def test_accuracy_counts():
    x = torch.eye(4).reshape(4, 4, 1, 1)
    loader = torch.utils.data.DataLoader(TensorDataset(x, torch.tensor([0, 1, 2, 0])), 3)
    found = train.accuracy(torch.nn.Flatten(), loader, torch.device("cpu"))
    assert found["top1"] == found["top1_flip"] == 75.0
    assert found["top5"] == 100.0


def test_goes_on_where_it_stopped(tmp_path):
    config = train.CONFIGS["generated"]
    whole = train.train(config, "pow-emlr", tmp_path, tmp_path / "whole", workers=0)
    half = train.replace(config, epochs=1)
    first = train.train(half, "pow-emlr", tmp_path, tmp_path / "parts", workers=0)
    assert len(first) == 1
    both = train.train(config, "pow-emlr", tmp_path, tmp_path / "parts", workers=0)
    assert both == whole
    lines = (tmp_path / "parts" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2]
    with pytest.raises(ValueError, match="out holds a run of head 'pow-emlr', got head 'cho-tmlr'"):
        train.train(config, "cho-tmlr", tmp_path, tmp_path / "parts", workers=0)


def test_two_processes(tmp_path):
    """Each has half of every batch; their network and log are one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "gcp_riemann.train", "generated", "--workers", "0"]
    command += ["--out", str(tmp_path), "--head", "cho-tmlr"]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    shared |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    processes = [
        subprocess.Popen(
            command,
            env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [entry["epoch"] for entry in log] == [1, 2]
    assert log[1]["loss"] < log[0]["loss"]
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert not any(name.startswith("module.") for name in state["network"])
