"""Commands that train: a model, surrogates of properties, flows of potentials."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from chemflow import training
from chemflow.cli.common import device_of
from chemflow.elbo import official_beta
from chemflow.flow_task import FlowObjective, FlowTask
from chemflow.flows import EQUATIONS, FokkerPlanckFlow, save_flow
from chemflow.labels import label, start_codes
from chemflow.molecules import Molecules
from chemflow.oracles import named
from chemflow.pace import Pace
from chemflow.prior import LatentPrior, PriorTask
from chemflow.surrogate import Config, Surrogate, fit_surrogate, load_surrogate, save_surrogate
from chemflow.training import Options, Trainer
from chemflow.vae import MoleculeVAE, Preset, load_model, preset, save_model
from chemflow.vae_task import VAETask

commands = typer.Typer()
console = Console(stderr=True)


Out = Annotated[Path, typer.Option(help="Folder to write; a run that is there is gone on with.")]
Seed = Annotated[int, typer.Option(min=0)]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, …")]
Model = Annotated[Path, typer.Argument(help="Folder of a trained model.", exists=True)]


@contextmanager
def bar(what: str) -> Generator[Callable[[training.Progress], None]]:
    """A line that says how far training is, and its losses."""
    columns = (
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"),
        TimeRemainingColumn(), TextColumn("{task.fields[losses]}"),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True) as shown:
        task = shown.add_task(what, total=None, losses="")

        def report(progress: training.Progress) -> None:
            parts = "  ".join(f"{name} {value:.3g}" for name, value in progress.parts.items())
            losses = f"loss {progress.loss:.4g}  {parts}"
            shown.update(task, completed=progress.update, total=progress.updates, losses=losses)

        yield report


def start(seed: int, device: str) -> torch.device:
    """Seeds what initial weights are drawn from. ValueError for a device that is not there."""
    found = device_of(device)
    torch.manual_seed(seed)
    return found


@commands.command("train")
def train_model(
    data: Annotated[Path, typer.Argument(help="Folder of encoded molecules.", exists=True)],
    out: Out,
    kind: Annotated[Preset, typer.Option("--preset")] = "tiny",
    epochs: Annotated[float, typer.Option(min=0.001)] = 24,
    batch: Annotated[int, typer.Option(min=2)] = 512,
    learning_rate: float = 1e-3,
    beta: Annotated[float, typer.Option(min=0.0, help="Weight of the KL term.")] = 0.03,
    official_weight: Annotated[
        float | None, typer.Option(help="The released code's p, 0.1 in the paper, for beta.")
    ] = None,
    warm_up: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of training over which beta grows.")
    ] = 0.0,
    schedule: Literal["cosine", "restarts", "constant"] = "cosine",
    held_out: Annotated[float, typer.Option(min=0.0, max=0.9)] = 0.1,
    prior_epochs: Annotated[
        float, typer.Option(min=0.0, help="Of the learned prior; 0 for N(0, I).")
    ] = 20,
    seed: Seed = 0,
    device: Device = "cpu",
) -> None:
    """Train a model on encoded molecules, then a prior on its codes."""
    place = start(seed, device)
    molecules = Molecules.load(data)
    order = torch.randperm(len(molecules), generator=torch.Generator().manual_seed(seed))
    ids = torch.from_numpy(molecules.ids)[order]
    aside = round(held_out * len(ids))
    if len(ids) - aside < 2:
        raise ValueError(f"data must leave at least 2 molecules to train on, got {len(ids)}")
    rows, held = ids[aside:], ids[:aside].long()
    model = MoleculeVAE(preset(kind, ids.shape[1]), molecules.vocabulary).to(place)
    if official_weight is not None:
        beta = official_beta(official_weight, ids.shape[1], len(molecules.vocabulary))
    options = Options(
        epochs, batch, learning_rate, schedule=schedule, clip=20.0 if kind == "ar" else None,
        seed=seed,
    )  # fmt: skip
    with bar("model") as report:
        Trainer(VAETask(model, rows, beta, warm_up), options, out / "run").run(report)
    if prior_epochs:
        mu, spread = posterior(model, rows, place)
        prior = LatentPrior(model.latent_size).to(place)
        with bar("prior") as report:
            Trainer(
                PriorTask(prior, mu, spread),
                Options(prior_epochs, batch, 1e-3, average=0.999, seed=seed),
                out / "prior-run",
            ).run(report)
        model.prior = prior
    save_model(out, model)
    if len(held):
        found = model.decode_ids(model.encode_ids(held)).cpu()
        exact = (found == held).all(1).double().mean().item()
        print(f"{len(held)} held-out molecules: {exact:.1%} come back token by token")
    print(f"model: {out}")


@torch.no_grad()
def posterior(
    model: MoleculeVAE, ids: torch.Tensor, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Means and standard deviations of q(z | x)."""
    found = [model.encode(part.to(device).long()) for part in ids.split(1024)]
    mu, log_var = (torch.cat(parts) for parts in zip(*found, strict=True))
    return mu, (log_var / 2).exp()


@commands.command("surrogate")
def train_surrogate(
    model: Model,
    property_: Annotated[str, typer.Argument(metavar="PROPERTY", help="qed, sa, logp, …")],
    out: Out,
    labels: Annotated[int, typer.Option(min=20, help="Codes that the oracle labels.")] = 24_000,
    data: Annotated[
        Path | None,
        typer.Option(help="Encoded molecules, of which every second code is.", exists=True),
    ] = None,
    network: Literal["sequence", "residual", "codes"] = "sequence",
    members: Annotated[int, typer.Option(min=1)] = 3,
    width: Annotated[int, typer.Option(min=1)] = 48,
    depth: Annotated[int, typer.Option(min=1)] = 3,
    epochs: Annotated[float, typer.Option(min=0.001)] = 12,
    batch: Annotated[int, typer.Option(min=2)] = 256,
    learning_rate: float = 2e-3,
    workers: Annotated[int, typer.Option(min=1, max=1024)] = 1,
    seed: Seed = 0,
    device: Device = "cpu",
) -> None:
    """Train a surrogate of a property on decoded codes, and say how good it is."""
    from chemflow.scoring import Scorer

    place = start(seed, device)
    decoder = load_model(model, place)
    drawn = None
    if data is not None:
        molecules = Molecules.load(data)
        if molecules.vocabulary != decoder.vocabulary:
            raise ValueError(f"--data must have the tokens of {model}, got those of {data}")
        drawn = posterior(decoder, torch.from_numpy(molecules.ids), place)
    codes = start_codes(labels, decoder.latent_size, seed, drawn).to(place)
    with (
        Scorer([named(property_)], workers) as scorer,
        Progress(console=console, transient=True) as shown,
    ):
        task = shown.add_task("labels", total=len(codes))
        known = label(decoder, codes, scorer, progress=lambda n: shown.update(task, completed=n))
    lost = int(known.values.isnan().any(1).sum())
    sizes = (decoder.config.length, len(decoder.vocabulary))
    config = Config(property_, network, members, width, depth)
    surrogate = Surrogate(decoder, config, sizes).to(place)
    with bar("surrogate") as report:
        found = fit_surrogate(
            surrogate, codes, known.values[:, 0], Options(epochs, batch, learning_rate, seed=seed),
            folder=out / "run", report=report,
        )  # fmt: skip
    save_surrogate(out, surrogate)
    print(f"{property_}: {found}; {lost} of {len(codes)} codes decode to no molecule")
    print(f"surrogate: {out}")


@commands.command("flow")
def train_flow(
    model: Model,
    out: Out,
    equation: Literal["wave", "hj", "heat", "fp"] = "wave",
    surrogate: Annotated[
        Path | None, typer.Option(help="Of the property; none trains unsupervised.", exists=True)
    ] = None,
    minimise: Annotated[bool, typer.Option("--minimise", help="The property is to fall.")] = False,
    flows: Annotated[int, typer.Option(min=1, help="Potentials, of unsupervised flows.")] = 1,
    codes: Annotated[int, typer.Option(min=1, help="Start codes.")] = 10_000,
    step_size: float = 0.1,
    horizon: Annotated[int, typer.Option(min=1)] = 10,
    hidden: Annotated[int, typer.Option(min=1)] = 128,
    guide: Literal["direction", "paper"] = "direction",
    epochs: Annotated[float, typer.Option(min=0.001)] = 3,
    batch: Annotated[int, typer.Option(min=1)] = 100,
    learning_rate: float = 1e-3,
    seed: Seed = 0,
    device: Device = "cpu",
) -> None:
    """Train potentials whose gradients move codes."""
    place = start(seed, device)
    decoder = load_model(model, place)
    guess = None if surrogate is None else load_surrogate(surrogate, decoder, place)
    pace = Pace(step_size)
    if equation == "fp":
        if guess is None:
            raise ValueError("--surrogate must be given for the Fokker-Planck equation")
        strength = (-1.0 if minimise else 1.0) / float(guess.scale)
        made = FokkerPlanckFlow(
            decoder.latent_size, guess, hidden=hidden, horizon=horizon, strength=strength, pace=pace
        )
    else:
        kind = EQUATIONS[equation]
        made = kind(decoder.latent_size, flows, hidden=hidden, horizon=horizon, pace=pace)
    made = made.to(place)
    z = start_codes(codes, decoder.latent_size, seed).to(place)
    task = FlowTask(
        made, decoder, z, guess, minimise=minimise, objective=FlowObjective(guide=guide)
    ).to(place)
    with bar(f"{equation} flow") as report:
        Trainer(task, Options(epochs, batch, learning_rate, clip=10.0, seed=seed), out / "run").run(
            report
        )
    about = {
        "equation": equation,
        "property": None if guess is None else guess.config.property,
        "minimise": minimise,
    }
    save_flow(out, made, about)
    print(f"flow: {out}")
