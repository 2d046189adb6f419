"""The command `chemflow evaluate`."""

import json
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from chemflow.cli.common import Device, Seed, bar, console, cores, device_of, source
from chemflow.files import write_text
from chemflow.metrics import evaluate, table
from chemflow.standardise import canonical
from chemflow.starts import Prior, Starts

commands = typer.Typer()


@commands.command("evaluate")
def evaluate_command(
    generated: Annotated[
        str, typer.Argument(help="A file of SMILES, or the folder of a model to sample from.")
    ],
    reference: Annotated[str, typer.Argument(help="A file of SMILES, or moses:test.")],
    train: Annotated[
        str | None, typer.Option(help="Training molecules, for novelty: file or moses:train.")
    ] = None,
    scaffolds: Annotated[
        str | None, typer.Option(help="A second reference: file or moses:test_scaffolds.")
    ] = None,
    samples: Annotated[int, typer.Option(min=2, help="Of a model.")] = 10_000,
    limit: Annotated[
        int | None, typer.Option(min=2, help="Read only so many of each reference.")
    ] = None,
    prior: Annotated[Prior, typer.Option(help="The model's own prior, or N(0, I).")] = "model",
    fcd: Annotated[bool, typer.Option(help="The Fréchet ChemNet distance.")] = True,
    out: Annotated[Path | None, typer.Option(help="Folder for samples and figures.")] = None,
    seed: Seed = 0,
    workers: Annotated[int | None, typer.Option(min=1, max=1024, help="Processes.")] = None,
    device: Device = "cpu",
) -> None:
    """Metrics of MOSES and GuacaMol, each with the number of molecules it rests on."""
    if Path(generated).is_dir():
        smiles = _sample(Path(generated), samples, prior, seed, device)
    else:
        smiles = list(source(generated))
    figures = evaluate(
        smiles,
        list(islice(source(reference), limit)),
        train=None if train is None else (canonical(one) for one in source(train)),
        scaffolds=None if scaffolds is None else list(islice(source(scaffolds), limit)),
        fcd=fcd,
        workers=workers or cores(),
        device=device,
    )
    console.print(table(figures), markup=False)
    if out is not None:
        write_text(out / "generated.smi", "\n".join(one or "#" for one in smiles))
        told = {name: vars(one) for name, one in figures.items()}
        write_text(out / "metrics.json", json.dumps(told, indent=1))


def _sample(folder: Path, count: int, prior: Prior, seed: int, device: str) -> list[str]:
    import torch

    from chemflow.vae import load_model

    model = load_model(folder, device_of(device))
    starts = Starts(model, count, seed, prior, device)
    smiles: list[str] = []
    with bar("samples") as report, torch.no_grad():
        for first in range(0, count, 256):
            z = starts.batch(first, min(first + 256, count)).z
            smiles.extend(model.decode_smiles(z))
            report(len(smiles), count)
    return smiles
