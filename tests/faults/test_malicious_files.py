"""Files that try to run something: every loader refuses them in words, and nothing runs."""

import builtins
import contextlib
import functools
import importlib
import logging
import operator
import os
import pathlib
import pickle
import runpy
import shutil
import sqlite3
import subprocess
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from eigenworks.data import DataError
from torch import nn


class Attack:
    """Pickles as a call of `function`."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def attacks(marker: Path) -> dict[str, Attack]:
    """Calls that leave the file `marker` behind where they run."""
    mark = str(marker)
    code = f"open({mark!r}, 'w').close()"
    marker.with_name("script.py").write_text(code, "utf-8")
    return {
        "os.system": Attack(os.system, f"touch {mark}"),
        "eval": Attack(builtins.eval, code),
        "exec": Attack(builtins.exec, code),
        "open": Attack(builtins.open, mark, "w"),
        "subprocess": Attack(subprocess.call, ["touch", mark]),
        "runpy": Attack(runpy.run_path, str(marker.with_name("script.py"))),
        "partial": Attack(functools.partial(builtins.open, mark, "w")),
        "methodcaller": Attack(operator.methodcaller("touch"), pathlib.PosixPath(mark)),
        "Path.touch": Attack(pathlib.Path.touch, pathlib.PosixPath(mark)),
        "FileHandler": Attack(logging.FileHandler, mark),
        "copyfile": Attack(shutil.copyfile, __file__, mark),
        "sqlite3": Attack(sqlite3.connect, mark),
        "ZipFile": Attack(zipfile.ZipFile, mark, "w"),
        "memmap": Attack(np.memmap, mark, "u1", "w+", 0, 1),
        "tofile": Attack(np.ndarray.tofile, np.zeros(1), mark),
        "torch.save": Attack(torch.save, 0, mark),
    }


@dataclass(frozen=True)
class Loader:
    """What reads files of one kind: where the file goes, in which container, and how to read."""

    file: str
    container: str
    read: Callable[[Path], Any]


def into(container: str, path: Path, attack: Attack) -> None:
    """Writes the attack as a file of that kind would carry it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if container == "pickle":
        path.write_bytes(pickle.dumps({"G_ema": attack, "G": attack}, protocol=2))
    elif container == "torch":
        torch.save({"g_ema": attack, "format": attack, "weights": attack}, path)
    elif container == "npz":
        arrays = {name: np.array([attack], dtype=object) for name in ("P", "label", "images")}
        np.savez(path, allow_pickle=True, **arrays)
    elif container == "npy":
        np.save(path, np.array(attack, dtype=object), allow_pickle=True)


def _gan(path: Path) -> None:
    from householder_gan import StyleGAN2, householderize
    from householder_gan.finetune import FineTuner, Recipe
    from householder_gan.generators.discriminator import Discriminator

    widths = {4: 8, 8: 8, 16: 6}
    G = StyleGAN2(16, 8, 2, widths)
    householderize(G, rank=3)
    FineTuner(G, Discriminator(16, widths), Recipe()).load(path)


def _flow(path: Path) -> None:
    from flowfactor import Config, Options, Rotation, Trainer, TransformedImages
    from flowfactor.checkpoint import load_run

    images = TransformedImages(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), [Rotation()], steps=2)
    model = Config(shape=(1, 8, 8), flows=1, dim=4, hidden=(8,)).build()
    load_run(path, Trainer(model, images, Options(iterations=1, batch=2)))


def _covariance_run(path: Path) -> None:
    from gcp_riemann.train import read_checkpoint

    read_checkpoint(path, torch.device("cpu"))


def _late(module: str, name: str, *more: Any) -> Callable[[Path], Any]:
    """`module.name(path, *more)`, imported when it is called."""
    return lambda path: getattr(importlib.import_module(module), name)(path, *more)


def _rankfeat_weights(path: Path) -> None:
    from rankfeat.sources import load_model

    load_model("torchvision:squeezenet1_0", str(path))


LOADERS = {
    "householder_gan.load_nvlabs": Loader(
        "G.pkl", "pickle", _late("householder_gan", "load_nvlabs")
    ),
    "householder_gan.load_rosinality": Loader(
        "G.pt", "torch", _late("householder_gan", "load_rosinality")
    ),
    "householder_gan.load_generator": Loader(
        "G.safetensors", "pickle", _late("householder_gan", "load_generator")
    ),
    "householder_gan.FineTuner.load": Loader("state.pt", "torch", _gan),
    "flowfactor.load_run": Loader("run.pt", "torch", _flow),
    "flowfactor.load_model": Loader(
        "m.safetensors", "pickle", _late("flowfactor.checkpoint", "load_model")
    ),
    "gcp_riemann.train": Loader("checkpoint.pt", "torch", _covariance_run),
    "rankfeat weights": Loader("w.pt", "torch", _rankfeat_weights),
    "rankfeat.RankFeat.load": Loader(
        "d.safetensors", "pickle",
        lambda path: __import__("rankfeat").RankFeat.load(path, nn.Linear(2, 2)),
    ),
    "asvd.load_official": Loader(
        "model/pytorch_model.bin", "torch",
        lambda path: __import__("asvd").load_official(path.parent),
    ),
    "chemflow.load_model": Loader(
        "model/model.safetensors", "pickle",
        lambda path: __import__("chemflow").load_model(path.parent),
    ),
    "eigenworks weights": Loader(
        "w.pth", "torch", _late("eigenworks.data.weights", "read_state_dict", {})
    ),
    "eigenworks watch": Loader("w.npy", "npy", _late("eigenworks.data.imu", "read_watch")),
    "eigenworks labelled": Loader(
        "some.npz", "npz",
        lambda path: _late("eigenworks.data", "read_labelled", "some", 3)(path.parent),
    ),
}  # fmt: skip


def test_the_attacks_are_ones(tmp_path):
    """Else it would say nothing that a loader withstands them."""
    marker = tmp_path / "ran"
    for kind, attack in attacks(marker).items():
        with contextlib.suppress(Exception):
            held = pickle.loads(pickle.dumps(attack))
            if hasattr(held, "close"):
                held.close()
        assert marker.exists(), kind
        marker.unlink()


@pytest.mark.parametrize("name", LOADERS)
def test_nothing_runs_and_the_error_names_the_file(name, tmp_path):
    loader = LOADERS[name]
    marker = tmp_path / "ran"
    path = tmp_path / loader.file
    for kind, attack in attacks(marker).items():
        into(loader.container, path, attack)
        with pytest.raises((ValueError, pickle.UnpicklingError, DataError)) as refused:
            loader.read(path)
        assert not marker.exists(), kind
        assert str(path) in str(refused.value) or str(path.parent) in str(refused.value), kind
