"""Every reader of files that others may have made, with a small file of its kind."""

import importlib
import io
import json
import pickle
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn


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


def optimized(folder: Path | None = None) -> Any:
    """A walk of three codes; with a folder, one that goes on from there."""
    from chemflow import LOGP, Pace, RandomDirection, optimize

    return optimize(Chains(), RandomDirection(Pace(0.5)), LOGP, start=3, steps=2, folder=folder)


class Chains:
    """A chain for each code of two numbers."""

    latent_size = 2

    def encode_smiles(self, smiles: Sequence[str]) -> torch.Tensor:
        return torch.tensor([[float(len(one)), 0.0] for one in smiles])

    def decode_smiles(self, z: torch.Tensor) -> list[str]:
        return ["C" * (1 + int(abs(one))) for one in z[:, 0]]


def write_optimization(path: Path) -> None:
    optimized().save(path.parent)


def write_run(path: Path) -> None:
    optimized(path.parent)


def write_trajectory(path: Path) -> None:
    step: dict[str, Any] = {
        "row": 0,
        "step": 1,
        "smiles": "CC",
        "canonical": "CC",
        "values": {"logp": 1.0},
    }
    step |= {"predicted": {"logp": None}, "similarity": 0.5, "norm": 2.0}
    path.write_text("".join(json.dumps(step) + "\n" for _ in range(3)))


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


def saved(path: Path, what: Any) -> None:
    torch.save(what, path)


def write_dcgan(path: Path) -> None:
    from householder_gan import DCGAN

    torch.save({"netG_state_dict": DCGAN(4, (4, 4)).state_dict()}, path)


def fine_tuner() -> Any:
    from householder_gan import Discriminator, FineTuner

    return FineTuner(small_gan(), Discriminator(8, {4: 2, 8: 2}))


def write_checkpoint(path: Path) -> None:
    """Of a run of gcp-riemann, whose values `train` looks at later."""
    names = ("network", "optimiser", "schedule")
    torch.save({"head": "pow-emlr", "epoch": 1, "log": [], **{name: {} for name in names}}, path)


def write_language_model(path: Path) -> None:
    torch.save({"layer.weight": torch.randn(2, 3), "layer.bias": torch.zeros(2)}, path)


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
    "householder_gan.read_generator": Reader(
        "G.tar", write_dcgan, late("householder_gan.sources", "read_generator")
    ),
    "householder_gan.FineTuner": Reader(
        "G.state", lambda path: fine_tuner().save(path), lambda path: fine_tuner().load(path)
    ),
    "householder_gan.read_labels": Reader(
        "labels.json", lambda path: path.write_text('{"main.0": {"0": "hat", "2": "smile"}}'),
        late("householder_gan.sources", "read_labels"),
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
    "chemflow.load_optimization": Reader(
        "optimization.json", write_optimization, folder_of("chemflow", "load_optimization")
    ),
    "chemflow.load_optimization, values": Reader(
        "snapshots.npz", write_optimization, folder_of("chemflow", "load_optimization")
    ),
    "chemflow trajectory": Reader(
        "t.jsonl", write_trajectory,
        lambda path: list(importlib.import_module("chemflow.trajectory").read(path)),
    ),
    "chemflow run": Reader("batch-000000.json", write_run, lambda path: optimized(path.parent)),
    "chemflow run, settings": Reader("run.json", write_run, lambda path: optimized(path.parent)),
    "chemflow SMILES": Reader("m.smi", write_smiles, read_smiles),
    "chemflow table": Reader("m.csv", write_table, read_smiles),
    "rankfeat.RankFeat.load": Reader("d.safetensors", write_detector, read_detector),
    "rankfeat weights": Reader(
        "w.pth", lambda path: saved(path, classifier().state_dict()),
        late("rankfeat.sources", "_state_dict"),
    ),
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
    "eigenworks.read_state_dict": Reader(
        "w.pth", lambda path: saved(path, {"state": classifier().state_dict()}),
        late("eigenworks.data.weights", "read_state_dict", {"2.bias": (2,)}, "state"),
    ),
    "gcp_riemann.read_checkpoint": Reader(
        "last.pt", write_checkpoint,
        late("gcp_riemann.train", "read_checkpoint", torch.device("cpu")),
    ),
    "asvd weights": Reader(
        "pytorch_model.bin", write_language_model, folder_of("asvd.checkpoint", "_weights")
    ),
    "asvd report": Reader("asvd_report.json", write_asvd_report, late("asvd.draw", "read")),
    "asvd GGUF": Reader("m.gguf", write_gguf, late("asvd", "load")),
}  # fmt: skip
