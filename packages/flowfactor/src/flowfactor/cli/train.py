"""`flowfactor train`."""

import dataclasses
import json
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import torch
import torch.distributed as dist
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from flowfactor.checkpoint import load_run, save_model, save_run
from flowfactor.cli.sources import TRANSFORMATIONS, open_source
from flowfactor.data import split
from flowfactor.elbo import Objective
from flowfactor.files import write_text
from flowfactor.model import Config
from flowfactor.posterior import Temperature
from flowfactor.train import Options, Progress, Trainer

INTERRUPTED = 130

commands = typer.Typer()


@commands.command()
def train(
    source: Annotated[
        str,
        typer.Argument(
            help="FILE.npz with `images` (N, H, W) or (N, H, W, C) uint8, 3dshapes.h5, "
            "`digits` (scikit-learn), or the synthetic `sprites` and `rooms`."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the run; one that is there is gone on.")],
    transformations: Annotated[
        str, typer.Option(help=f"Of images from a file, among {','.join(TRANSFORMATIONS)}.")
    ] = "scale,rotation,hue",
    steps: Annotated[int, typer.Option(min=1, help="T, transitions of a sequence.")] = 8,
    unlabelled: Annotated[
        bool, typer.Option("--unlabelled", help="Infer which flow it is.")
    ] = False,
    backbone: Literal["mlp", "conv-a", "conv-b"] = "mlp",
    dim: Annotated[int, typer.Option(min=1, help="n, of the latent.")] = 32,
    iterations: Annotated[int, typer.Option(min=1)] = 3000,
    batch: Annotated[int, typer.Option(min=1)] = 64,
    learning_rate: float = 2e-3,
    weight: Annotated[float, typer.Option(min=0.0, help="Of the Hamilton-Jacobi loss.")] = 0.1,
    kl: Literal["telescoped", "marginals", "shared"] = "telescoped",
    half: Annotated[bool, typer.Option("--half", help="bfloat16 in encoder and decoder.")] = False,
    held_out: Annotated[float, typer.Option(help="Share kept for evaluation.")] = 0.2,
    save_every: Annotated[int, typer.Option(min=1)] = 500,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, …")] = "cpu",
) -> None:
    """Train a model on sequences, or go on with a run that was stopped."""
    with processes(device) as first:
        data = open_source(source, steps, transformations)
        part, _ = split(data, held_out, seed)
        config = Config(
            data.shape, len(data.names), dim, backbone, frames=steps + 1 if unlabelled else 0
        )
        torch.manual_seed(seed)
        model = config.build().to(device)
        options = Options(
            iterations,
            batch,
            learning_rate,
            objective=Objective(kl=kl, weight=weight, balance=1e3 if unlabelled else 0.0),
            supervised=not unlabelled,
            temperature=Temperature(rate=1 / iterations),
            half=half,
            seed=seed,
        )
        trainer = Trainer(model, part, options)
        about = {
            "source": source,
            "transformations": transformations,
            "steps": steps,
            "held_out": held_out,
            "names": list(data.names),
            "options": dataclasses.asdict(options),
        }
        state = prepare(out, about, trainer, first)

        def save(progress: Progress) -> None:
            i = progress.iteration
            if first and (i % save_every == 0 or i == progress.iterations):
                save_run(state, trainer)

        try:
            with shown(trainer, quiet=not first) as show:
                trainer.run(report=lambda progress: (save(progress), show(progress)))
        except KeyboardInterrupt:
            print("flowfactor: stopped; `train` goes on from what it last saved", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None
        if first:
            save_model(out / "model.safetensors", model, config, about)
            print(f"model: {out / 'model.safetensors'}")


@contextmanager
def processes(device: str) -> Generator[bool]:
    """Joins the others if torchrun started this one. Whether this one speaks and writes."""
    joins = dist.is_torchelastic_launched() and not dist.is_initialized()
    if joins:
        dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        yield not dist.is_initialized() or dist.get_rank() == 0
    finally:
        if joins:
            dist.destroy_process_group()


def prepare(out: Path, about: Mapping[str, object], trainer: Trainer, first: bool) -> Path:
    """Loads the run that is there or writes what this one is; the file of its state.

    Raises ValueError for a run with other options.
    """
    out.mkdir(parents=True, exist_ok=True)
    state, settings = out / "state.pt", out / "run.json"
    if state.exists():
        if json.loads(settings.read_text()) != json.loads(json.dumps(about)):
            raise ValueError(f"--out must be a run with the same options, got {out}")
        load_run(state, trainer)
        if first:
            print(f"going on after iteration {trainer.iteration}")
    elif first:
        write_text(settings, json.dumps(about, indent=1))
    return state


@contextmanager
def shown(trainer: Trainer, quiet: bool) -> Generator[Callable[[Progress], None]]:
    """A bar in a terminal, and twenty lines with all losses elsewhere."""
    console = Console(stderr=True)
    columns = (
        BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        TextColumn("{task.fields[losses]}"),
    )  # fmt: skip
    total = trainer.options.iterations
    hidden = quiet or not console.is_terminal
    with Bars(*columns, console=console, transient=True, disable=hidden) as bars:
        task = bars.add_task("", total=total, completed=trainer.iteration, losses="")

        def show(progress: Progress) -> None:
            i = progress.iteration
            if not hidden:
                elbo = f"ELBO {progress.bound.elbo.item():.1f}"
                bars.update(task, completed=i, losses=elbo)
            elif not quiet and (i % max(1, total // 20) == 0 or i == total):
                print(f"{i:6d}/{total}  {progress.seconds:6.0f} s  {losses(progress)}", flush=True)

        yield show


def losses(progress: Progress) -> str:
    """What is watched, in one line."""
    bound = progress.bound
    return (
        f"ELBO {bound.elbo.item():10.1f}  KL_0 {bound.kl_0.item():6.1f}  "
        f"Hamilton-Jacobi {bound.constraint.sum().item():8.4f}  "
        f"gradient {progress.gradient_norm:8.1f}"
    )
