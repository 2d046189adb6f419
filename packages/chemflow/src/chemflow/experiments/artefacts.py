"""Data and models of the experiment: made once, kept, and the same again wherever they are made.

Each lies in a folder that is named by what it was made from, beside PyTorch's own downloads
(`TORCH_HOME`). Training that was stopped goes on from there.
"""

import dataclasses
import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from eigenworks import Trial
from eigenworks.data import MOSES, ZINC250K
from torch import Tensor, nn

from chemflow.molecules import Molecules, encode
from chemflow.prior import LatentPrior, PriorTask
from chemflow.training import Options, Progress, Trainer
from chemflow.vae import FILE, Config, MoleculeVAE, load_model, save_model
from chemflow.vae_task import VAETask

VERSION = 2
"""Goes up when what a folder holds must be made anew."""


def folder(kind: str, **made_from: Any) -> Path:
    """Of an artefact, by its parameters."""
    key = json.dumps({"version": VERSION, "torch": torch.__version__, **made_from}, sort_keys=True)
    digest = hashlib.sha256(key.encode()).hexdigest()[:12]
    return Path(torch.hub.get_dir()).parent / "chemflow" / f"{kind}-{digest}"


def molecules(source: str, rows: int, held: int, workers: int) -> Molecules:
    """`rows` molecules to train on and `held` behind them, a sample of seed 0 of MOSES or ZINC."""
    place = folder("molecules", source=source, rows=rows, held=held)
    if (place / "molecules.npz").exists():
        return Molecules.load(place)
    pool = MOSES.load("train") if source == "moses" else ZINC250K.load()
    chosen = random.Random(0).sample(pool, rows + held)
    # A few are lost to duplicates after standardisation; none of MOSES, which has none.
    found = encode(chosen, max_tokens=None, workers=workers, folder=place / "pieces")
    found.save(place)
    return found


def bar(trial: Trial, span: tuple[float, float], what: str) -> Callable[[Progress], None]:
    """Moves the trial's progress from one share to another."""
    begin, end = span

    def report(progress: Progress) -> None:
        share = begin + (end - begin) * progress.update / progress.updates
        parts = ", ".join(f"{name} {value:.2f}" for name, value in progress.parts.items())
        trial.progress(share, f"{what}, loss {progress.loss:.3f} {parts}".rstrip())

    return report


def fingerprint(*held: nn.Module | Tensor) -> str:
    """Of weights and arrays: what is made from others is made anew when they are."""
    digest = hashlib.sha256()
    for one in held:
        tensors = one.state_dict() if isinstance(one, nn.Module) else {"": one}
        for name, tensor in tensors.items():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
            digest.update(tensor.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


def trained_vae(
    data: Molecules,
    rows: int,
    config: Config,
    options: Options,
    beta: float,
    warm_up: float,
    report: Callable[[Progress], object],
    start: MoleculeVAE | None = None,
) -> MoleculeVAE:
    """A VAE on the first rows, from the folder of its parameters if it is there.

    Training goes on from the weights of `start`, which stays as it is.
    """
    ids = torch.from_numpy(data.ids[:rows])
    place = folder(
        "vae", ids=fingerprint(ids), tokens=data.vocabulary.tokens,
        config=dataclasses.asdict(config), options=dataclasses.asdict(options), beta=beta,
        warm_up=warm_up, **({} if start is None else {"start": fingerprint(start)}),
    )  # fmt: skip
    if (place / FILE).exists():
        return load_model(place)
    torch.manual_seed(options.seed)
    model = MoleculeVAE(config, data.vocabulary)
    if start is not None:
        model.load_state_dict(start.state_dict())
    Trainer(VAETask(model, ids, beta, warm_up), options, place / "run").run(report)
    save_model(place, model)
    return load_model(place)


@torch.no_grad()
def posterior(model: MoleculeVAE, data: Molecules, rows: int) -> tuple[Tensor, Tensor]:
    """Means and standard deviations of q(z | x) of the first rows."""
    found = [model.encode(part.long()) for part in torch.from_numpy(data.ids[:rows]).split(1024)]
    mu, log_var = (torch.cat(parts) for parts in zip(*found, strict=True))
    return mu, (log_var / 2).exp()


def with_prior(
    model: MoleculeVAE,
    data: Molecules,
    rows: int,
    options: Options,
    hidden: int,
    report: Callable[[Progress], object],
) -> MoleculeVAE:
    """A copy of the model with a prior learned on the codes of the first rows, likewise."""
    mu, spread = posterior(model, data, rows)
    place = folder(
        "prior", made_from=fingerprint(model, mu, spread), hidden=hidden,
        options=dataclasses.asdict(options),
    )  # fmt: skip
    if (place / FILE).exists():
        return load_model(place)
    torch.manual_seed(options.seed)
    prior = LatentPrior(model.latent_size, hidden)
    Trainer(PriorTask(prior, mu, spread), options, place / "run").run(report)
    model.prior = prior
    save_model(place, model)
    model.prior = None
    return load_model(place)
