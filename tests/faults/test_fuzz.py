"""Files that are wrong in some way: every reader says so in a sentence that names the file.

A whole file is changed, byte by byte or (JSON, also inside of other files) value by value. Then a
reader returns, or raises an error of its documented kinds: it does not crash, hang, or ask for more
memory than the file can be worth.
"""

import importlib
import io
import json
import os
import pickle
import random
import struct
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from eigenworks.compare import IncomparableError
from eigenworks.data import DataError
from eigenworks.store import UnreadableError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

REFUSALS = (ValueError, OSError, DataError, UnreadableError, IncomparableError)
"""What readers document; ValueError has the errors of pickles and of checkpoints under it."""

MEMORY = 1 << 30
"""More than what the process has already, which no file here is worth."""


@dataclass(frozen=True)
class Reader:
    """What reads files of one kind.

    `write` makes a whole file at the path, or in its folder; `read` takes the same path.
    """

    file: str
    write: Callable[[Path], Any]
    read: Callable[[Path], Any]


def late(module: str, name: str, *more: Any) -> Callable[[Path], Any]:
    """`module.name(path, *more)`, imported when it is called."""
    return lambda path: getattr(importlib.import_module(module), name)(path, *more)


def folder_of(module: str, name: str) -> Callable[[Path], Any]:
    return lambda path: getattr(importlib.import_module(module), name)(path.parent)


def small_gan() -> Any:
    from householder_gan import StyleGAN2, householderize

    torch.manual_seed(0)
    G = StyleGAN2(8, 4, 1, {4: 2, 8: 2})
    householderize(G, rank=1)
    return G


def write_generator(path: Path) -> None:
    from householder_gan.checkpoints import save_generator

    save_generator(path, small_gan())


def write_directions(path: Path) -> None:
    from householder_gan import sefa

    sefa(small_gan(), count=2).save(path)


def write_rosinality(path: Path) -> None:
    from householder_gan import StyleGAN2

    torch.save({"g_ema": StyleGAN2(8, 4, 1, {4: 2, 8: 2}).state_dict()}, path)


def write_nvlabs(path: Path) -> None:
    """As `torch_utils.persistence` pickles, whose function no module here has."""

    def known(*_: Any) -> Any:
        raise AssertionError("never called")

    class Network:
        def __reduce__(self) -> Any:
            state = {
                "_parameters": {"a": nn.Parameter(torch.randn(2, 3)), "b": None},
                "_buffers": {"c": torch.zeros(2)},
                "_modules": {},
                "_init_kwargs": {"z_dim": 4},
                "size": np.array([4, 4]),
                "cutoff": np.float64(2.5),
            }
            return known, ({"type": "class", "class_name": "G", "state": state},)

    python: Any = vars(pickle)["_Pickler"]

    class Names(python):
        def save_global(self, obj: Any, name: str | None = None) -> None:
            if obj is known:
                self.write(b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n")
                self.memoize(obj)
            else:
                super().save_global(obj, name)

        dispatch = python.dispatch | {type(known): save_global}

    held = io.BytesIO()
    Names(held, 2).dump({"G_ema": Network()})
    path.write_bytes(held.getvalue())


def trainer() -> Any:
    from flowfactor import Config, Options, Rotation, Trainer, TransformedImages

    images = TransformedImages(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), [Rotation()], steps=2)
    torch.manual_seed(0)
    model = Config(shape=(1, 8, 8), flows=1, dim=4, hidden=(4,)).build()
    return Trainer(model, images, Options(iterations=1, batch=2))


def write_flow_model(path: Path) -> None:
    from flowfactor import Config
    from flowfactor.checkpoint import save_model

    config = Config(shape=(1, 8, 8), flows=1, dim=4, hidden=(4,))
    save_model(path, config.build(), config, {"source": "x", "steps": 2})


def write_molecule_model(path: Path) -> None:
    from chemflow.vae import Config, MoleculeVAE, save_model
    from chemflow.vocabulary import Vocabulary

    config = Config(4, 3, 2, (4, 4), 0, 4)
    save_model(path.parent, MoleculeVAE(config, Vocabulary.of(["[C]", "[O]"])).eval())


def write_molecules(path: Path) -> None:
    from chemflow.molecules import Molecules, Report
    from chemflow.vocabulary import Vocabulary

    ids = np.array([[1, 2], [1, 0]], np.uint8)
    report = Report(3, 2, {"no molecule": 1}, {"no molecule": ["C1CC"]})
    rejected = (np.array([2]), ("no molecule",))
    Molecules(ids, Vocabulary.of(["[C]", "[O]"]), np.arange(2), report, rejected).save(path.parent)


def write_detector(path: Path) -> None:
    from rankfeat import RankFeat

    detector = RankFeat(classifier(), ["0"])
    detector.calibrate([torch.randn(4, 2, 4, 4, generator=torch.Generator().manual_seed(0))])
    detector.save(path)


def classifier() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 1), nn.Flatten(), nn.Linear(48, 2)).eval()


def read_detector(path: Path) -> Any:
    from rankfeat import RankFeat

    return RankFeat.load(path, classifier())


def write_image(path: Path) -> None:
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (6, 7, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def read_images(path: Path) -> list[Any]:
    from rankfeat.sources import Preprocessing, load_data

    return list(load_data(str(path.parent), Preprocessing(size=4)))


def write_images(path: Path) -> None:
    np.savez_compressed(path, images=np.zeros((3, 8, 8), np.uint8))


def read_source(path: Path) -> Any:
    from flowfactor.cli.sources import open_source

    return open_source(str(path), 2, "rotation")


def write_labelled(path: Path) -> None:
    np.savez(path, P=np.stack([np.eye(2)] * 3), label=np.arange(3), test=np.ones(3, bool))


def write_unit(path: Path) -> None:
    from eigenworks import Row
    from eigenworks.statistics import Interval
    from eigenworks.store import Unit, save_unit

    rows = (Row("a", "accuracy", 0.5, interval=Interval(0.4, 0.6, "Wilson")),)
    unit = Unit("d/e", "quick", 0, 1, "1.0", {"n": 3}, "done", 1.0, "now", {"cpu": "x"}, rows)
    save_unit(path.parents[3], unit)


def write_bench(path: Path) -> None:
    rows = [{"label": "a", "metric": "time", "value": 1.0, "unit": "s", "better": "lower"}]
    benches = [{"name": "d/speed", "rows": rows}]
    path.write_text(json.dumps({"format": "eigenworks bench 1", "benches": benches}))


def write_asvd_report(path: Path) -> None:
    layer = {"name": "a", "shape": [2, 3], "rank": 1, "loss": 0.1, "ratio": 0.5}
    report = {
        "method": "svd", "allocation": "uniform", "target": "ratio 0.5", "ratio": 0.5,
        "model_ratio": 0.5, "layers": [layer], "seconds": {},
    }  # fmt: skip
    path.write_text(json.dumps({"report": report, "figures": {"perplexity": 2.0}}))


def write_smiles(path: Path) -> None:
    path.write_text("CCO ethanol\n# a comment\n\nc1ccccc1\nCC(=O)O\n")


def write_table(path: Path) -> None:
    path.write_text('name,SMILES\na,CCO\nb,"C,C"\n')


def read_smiles(path: Path) -> list[str]:
    from chemflow.files import read_smiles

    return list(read_smiles(path))


def write_gguf(path: Path) -> None:
    """A head with two entries and a tensor, version 3."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    head = b"GGUF" + struct.pack("<IQQ", 3, 1, 2)
    head += text("general.architecture") + struct.pack("<I", 8) + text("llama")
    head += text("llama.block_count") + struct.pack("<II", 4, 1)
    head += text("token_embd.weight") + struct.pack("<IQQIQ", 2, 4, 2, 0, 0)
    path.write_bytes(head + bytes(-len(head) % 32) + bytes(32))


READERS = {
    "householder_gan.load_generator": Reader(
        "G.safetensors", write_generator, late("householder_gan", "load_generator")
    ),
    "householder_gan.load_directions": Reader(
        "d.safetensors", write_directions, late("householder_gan", "load_directions")
    ),
    "householder_gan.load_directions, names": Reader(
        "d.json", write_directions, late("householder_gan", "load_directions")
    ),
    "householder_gan.load_rosinality": Reader(
        "G.pt", write_rosinality, late("householder_gan", "load_rosinality")
    ),
    "householder_gan.read_pickle": Reader(
        "G.pkl", write_nvlabs, late("householder_gan.restricted_pickle", "read_pickle")
    ),
    "householder_gan.from_picture": Reader(
        "i.png", write_image, late("householder_gan.pictures", "from_picture", 4)
    ),
    "flowfactor.load_model": Reader(
        "m.safetensors", write_flow_model, late("flowfactor.checkpoint", "load_model")
    ),
    "flowfactor.load_run": Reader(
        "run.pt",
        lambda path: late("flowfactor.checkpoint", "save_run", trainer())(path),
        lambda path: late("flowfactor.checkpoint", "load_run", trainer())(path),
    ),
    "flowfactor images": Reader("i.npz", write_images, read_source),
    "chemflow.load_model": Reader(
        "model.safetensors", write_molecule_model, folder_of("chemflow.vae", "load_model")
    ),
    "chemflow.Vocabulary": Reader(
        "vocabulary.json", write_molecules,
        lambda path: importlib.import_module("chemflow.vocabulary").Vocabulary.load(path),
    ),
    "chemflow.Molecules": Reader(
        "molecules.npz", write_molecules,
        lambda path: importlib.import_module("chemflow.molecules").Molecules.load(path.parent),
    ),
    "chemflow.Molecules, report": Reader(
        "report.json", write_molecules,
        lambda path: importlib.import_module("chemflow.molecules").Molecules.load(path.parent),
    ),
    "chemflow SMILES": Reader("m.smi", write_smiles, read_smiles),
    "chemflow table": Reader("m.csv", write_table, read_smiles),
    "rankfeat.RankFeat.load": Reader("d.safetensors", write_detector, read_detector),
    "rankfeat images": Reader("i.png", write_image, read_images),
    "rankfeat JPEG": Reader("i.jpg", write_image, read_images),
    "eigenworks unit": Reader(
        "units/d/e/quick-seed0.json", write_unit, late("eigenworks.store", "load_unit"),
    ),
    "eigenworks labelled": Reader(
        "some.npz", write_labelled,
        lambda path: late("eigenworks.data", "read_labelled", "some", 3)(path.parent),
    ),
    "eigenworks compare": Reader(
        "bench.json", write_bench,
        lambda path: late("eigenworks.compare", "compare_files", path)(path),
    ),
    "asvd report": Reader("asvd_report.json", write_asvd_report, late("asvd.draw", "read")),
    "asvd GGUF": Reader("m.gguf", write_gguf, late("asvd", "load")),
}  # fmt: skip


@contextmanager
def limited(extra: int) -> Generator[None]:
    """Lets the process ask for so much more memory and no more, where there are such limits."""
    try:
        import resource
    except ImportError:
        yield
        return
    pages = Path("/proc/self/statm")
    if not pages.exists():
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(pages.read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + extra, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def changed_bytes(data: bytes, rng: random.Random) -> bytes:
    """Cut, with bytes set, taken out, put in or repeated."""
    found = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(found) + 1)
        # Heads are where files say how large they are.
        at = min(at, rng.choice((16, 64, len(found), len(found))))
        length = rng.choice((1, 1, 2, 4, 8, 64))
        match rng.randrange(6):
            case 0:
                del found[at:]
            case 1:
                del found[at : at + length]
            case 2:
                found[at:at] = rng.randbytes(length)
            case 3:
                found[at : at + length] = found[at : at + length] * 3
            case 4:
                found[at : at + length] = bytes([rng.choice((0, 127, 128, 255))]) * length
            case _:
                found[at : at + 1] = rng.randbytes(1)
    return bytes(found)


ODD = (None, True, -1, 0, 3, 10**30, -1.5, 1e308, "", "x", "1", [], [1], [[]], {}, {"a": 1}, [None])


def changed_json(value: Any, rng: random.Random) -> Any:
    """One value somewhere inside replaced, taken out or doubled; also in JSON inside of strings."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(sorted(value))
        if rng.random() < 0.15:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: changed_json(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.85:
        at = rng.randrange(len(value))
        if rng.random() < 0.2:
            return value[:at] + value[at + 1 :]
        return [*value[:at], changed_json(value[at], rng), *value[at + 1 :]]
    if isinstance(value, str) and value.startswith(('{"', '["')) and rng.random() < 0.9:
        return json.dumps(changed_json(json.loads(value), rng))
    return rng.choice(ODD)


def changed(data: bytes, path: Path, rng: random.Random) -> bytes:
    """The bytes of a file with something wrong."""
    if path.suffix == ".json" and rng.random() < 0.8:
        return json.dumps(changed_json(json.loads(data), rng)).encode()
    if path.suffix == ".safetensors" and rng.random() < 0.7:
        (length,) = struct.unpack("<Q", data[:8])
        head = json.loads(data[8 : 8 + length])
        part = "__metadata__" if rng.random() < 0.7 and "__metadata__" in head else None
        head = {**head, part: changed_json(head[part], rng)} if part else changed_json(head, rng)
        text = json.dumps(head).encode()
        text += b" " * (-len(text) % 8)
        return struct.pack("<Q", len(text)) + text + data[8 + length :]
    return changed_bytes(data, rng)


def check(name: str, path: Path, data: bytes) -> None:
    """Reads the bytes as that file, and holds the reader to its word."""
    path.write_bytes(data)
    said = ""
    with warnings.catch_warnings(), limited(MEMORY):
        warnings.simplefilter("ignore")
        try:
            READERS[name].read(path)
            return
        except REFUSALS as error:
            said = str(error)
    assert str(path) in said or str(path.parent) in said, said
    assert "allocate" not in said, said


def whole(name: str, folder: Path) -> tuple[Path, bytes]:
    reader = READERS[name]
    path = folder / reader.file
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        torch.manual_seed(0)
        reader.write(path)
    return path, path.read_bytes()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


def fuzz(name: str, folder: Path, examples: int) -> None:
    path, data = whole(name, folder / name.replace(" ", "-"))

    @settings(
        max_examples=examples, deadline=None, database=None, derandomize=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.integers(0, 2**32))
    def one(seed: int) -> None:
        check(name, path, changed(data, path, random.Random(seed)))

    try:
        one()
    finally:
        path.write_bytes(data)


@pytest.mark.parametrize("name", READERS)
def test_few_wrong_files(name: str, place: Path) -> None:
    path, _ = whole(name, place / name.replace(" ", "-"))
    if name not in ("asvd GGUF", "eigenworks compare", "householder_gan.read_pickle"):
        READERS[name].read(path)
    fuzz(name, place, 10)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", READERS)
def test_many_wrong_files(name: str, place: Path) -> None:
    fuzz(name, place, 200 if "GGUF" in name else 3000)
