"""What the command `householder-gan` does: convert, describe, browse, measure and fine-tune."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from householder_gan.batch_statistics import recalibrate
from householder_gan.browser import browse
from householder_gan.checkpoints import save_generator
from householder_gan.directions import (
    DirectionSet,
    directions,
    ganspace,
    load_directions,
    sefa,
)
from householder_gan.features import PixelDistance
from householder_gan.finetune import Recipe, finetune, of_generator, of_images
from householder_gan.generators.dcgan import DCGAN
from householder_gan.generators.discriminator import Discriminator
from householder_gan.generators.protocol import codes, draw
from householder_gan.householderize import fold, householderize, isometry_of
from householder_gan.path_length import pipl, ppl
from householder_gan.pictures import from_picture, save_gif, save_grid
from householder_gan.response import displacement, rank_directions
from householder_gan.sources import Known, read_generator, read_labels
from householder_gan.traverse import project, traverse

app = typer.Typer(
    help="Orthogonal, low-rank, reproducible directions in generators.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console(stderr=True)

Source = Annotated[
    Path, typer.Argument(metavar="GENERATOR", help=".safetensors, .pkl, .pt or a DCGAN state.")
]
Out = Annotated[Path, typer.Option(help="A .safetensors file to write.")]
Kind = Annotated[
    Literal["auto", "projector", "sefa", "ganspace"],
    typer.Option("--source", help="auto: projectors if there are any, else SeFa."),
]
Count = Annotated[int, typer.Option(min=1, help="Directions of SeFa and GANSpace.")]


@contextmanager
def bar(what: str, total: int) -> Generator[Callable[[int, str], None]]:
    """A line that says how far work is, and its losses."""
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        TextColumn("{task.fields[losses]}"),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True) as shown:
        task = shown.add_task(what, total=total, losses="")
        yield lambda done, losses: shown.update(task, completed=done, losses=losses)


def found_directions(generator: Known, source: str, count: int) -> DirectionSet:
    """Of the projectors if there are any ("auto"), else of the source that is named."""
    projected = any(isometry_of(m) is not None for m in generator.modules())
    if source == "projector" or (source == "auto" and projected):
        return directions(generator)
    if source == "ganspace":
        layer = None if generator.space == "w" else "main.0"
        return ganspace(generator, count, 2000, layer=layer, rng=torch.Generator().manual_seed(0))
    return sefa(generator, count=count)


def code_of(generator: Known, picture: Path, steps: int) -> Tensor:
    """The code whose image is nearest to the picture."""
    with bar("projection", steps) as shown:
        found = project(
            generator, from_picture(picture, generator.size), PixelDistance(), steps=steps,
            watch=lambda step, loss: shown(step, f"{loss:.4g}"),
        )  # fmt: skip
    print(f"projected: {found.losses[0]:.4g} -> {min(found.losses):.4g} squared pixels")
    return found.ws


@app.command()
def convert(
    generator: Source,
    out: Annotated[Path | None, typer.Option(help="A .safetensors file to write.")] = None,
    rank: Annotated[str, typer.Option(help="A number, or energy:0.9.")] = "10",
    layers: Annotated[
        list[str] | None,
        typer.Option("--layer", help="Glob of layer names, again for more; the published choice."),
    ] = None,
    sigma: Literal["identity", "fixed", "learned"] = "identity",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only report.")] = False,
) -> None:
    """Put projectors into a generator."""
    if out is None and not dry_run:
        raise ValueError("--out must name the file to write, unless --dry-run")
    held = read_generator(generator)
    report = householderize(
        held, layers or "auto", int(rank) if rank.isdigit() else rank, sigma=sigma, dry_run=dry_run
    )
    print(report)
    if dry_run or out is None:
        return
    if isinstance(held, DCGAN):
        print(f"batch statistics measured anew in {recalibrate(held)} layers")
    save_generator(out, held)
    print(f"written: {out}")


@app.command("fold")
def unfold(generator: Source, out: Out) -> None:
    """Turn projectors back into plain weights."""
    plain = fold(read_generator(generator))
    assert isinstance(plain, Known)
    save_generator(out, plain)
    print(f"written: {out}")


@app.command("directions")
def describe(
    generator: Source,
    out: Out,
    source: Kind = "auto",
    count: Count = 10,
    ranked: Annotated[bool, typer.Option("--ranked", help="In order of their effect.")] = False,
    step: Annotated[float, typer.Option(help="How far along a direction.")] = 1.0,
    samples: Annotated[int, typer.Option(min=1)] = 64,
) -> None:
    """Write directions, and say what each does."""
    held = read_generator(generator)
    found = found_directions(held, source, count)
    responses = displacement(held, found, PixelDistance(), step=step, samples=samples)
    if ranked:
        found = rank_directions(found, responses)
    found.save(out)
    for one in responses:
        print(
            f"{one.layer}: {len(one.values)} directions, displacement {one.values.mean():.4g} "
            f"({one.distance}, step {one.step:g}), spread {one.spread:.2f}, "
            f"variation {one.variation:.2f}"
        )
    print(f"written: {out}")


@app.command("browse")
def show(
    generator: Source,
    out: Annotated[Path, typer.Option(help="A folder to write.")],
    source: Kind = "auto",
    count: Count = 10,
    known: Annotated[
        Path | None, typer.Option("--directions", help="What `directions` wrote.")
    ] = None,
    labels: Annotated[Path | None, typer.Option(help="labels.json that the page saved.")] = None,
    image: Annotated[
        Path | None, typer.Option(help="Start from the code found for this picture.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Of the search for that code.")] = 300,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    samples: Annotated[int, typer.Option(min=1, help="Codes to move.")] = 2,
    reach: Annotated[float, typer.Option(help="Steps go from -reach to reach.")] = 3.0,
    frames: Annotated[int, typer.Option(min=2)] = 7,
) -> None:
    """Write a page, grids and GIFs of directions."""
    held = read_generator(generator)
    found = load_directions(known) if known else found_directions(held, source, count)
    if labels:
        found = found.labelled(read_labels(labels))
    out.mkdir(parents=True, exist_ok=True)
    if image:
        ws = code_of(held, image, steps)
    else:
        with torch.no_grad():
            ws = codes(held, draw(held, samples, torch.Generator().manual_seed(seed)))
    moves = torch.linspace(-reach, reach, frames)
    responses = displacement(held, found, PixelDistance(), step=reach, samples=16)
    page = browse(held, found, ws, responses, out / "directions.html", steps=moves)
    with bar("strips", len(found)) as shown:
        for k, one in enumerate(found):
            shown(k, one.layer)
            strips = [traverse(held, ws[:1], one, j, moves)[0] for j in range(len(one))]
            save_grid(out / f"layer{k}.png", torch.stack(strips))
            for j, strip in enumerate(strips):
                save_gif(out / f"layer{k}-{j}.gif", strip)
    print(f"written: {page}")


@app.command("metrics")
def measure(
    generator: Source,
    source: Kind = "auto",
    count: Count = 10,
    samples: Annotated[int, typer.Option(min=1)] = 512,
) -> None:
    """PPL and PIPL with squared pixels."""
    held = read_generator(generator)
    found = found_directions(held, source, count)
    print(ppl(held, PixelDistance(), samples=samples, epsilon=1e-2))
    print(pipl(held, found, PixelDistance(), samples=samples, per_sample=True))


@app.command("finetune")
def train(
    generator: Source,
    out: Out,
    images: Annotated[Path | None, typer.Option(help="A folder of pictures.")] = None,
    teacher: Annotated[
        Path | None, typer.Option(help="A generator to distil; by default the generator itself.")
    ] = None,
    steps: Annotated[int, typer.Option(min=0, help="In all, those already done too.")] = 2000,
    batch: Annotated[int, typer.Option(min=1)] = 8,
    rate: float = 2e-3,
    width: Annotated[int, typer.Option(min=1, help="Of the discriminator at 4x4.")] = 512,
    report: Annotated[
        int, typer.Option(min=1, help="Steps from one line and state to the next.")
    ] = 100,
) -> None:
    """Fine-tune by the published recipe; goes on from OUT.state if that is there."""
    if images and teacher:
        raise ValueError("--images and --teacher must not both be given")
    held = read_generator(generator)
    if images:
        files = sorted(p for p in images.iterdir() if p.is_file())
        if not files:
            raise ValueError(f"{images}: expected pictures, found none")
        data = of_images(torch.stack([from_picture(p, held.size) for p in files]))
    else:
        source = read_generator(teacher or generator)
        data = of_generator(fold(source).eval())  # ty: ignore[invalid-argument-type]
    critic = Discriminator(held.size, {4 * 2**k: max(16, width // 2**k) for k in range(9)})
    recipe = Recipe(batch=batch, rate=rate, frame_rate=rate)
    with bar("fine-tuning", steps) as shown:

        def watch(step: int, losses: dict[str, float]) -> None:
            told = ", ".join(f"{name} {value:.3f}" for name, value in losses.items())
            shown(step, told)
            if step % report == 0:
                print(step, told, flush=True)

        average = finetune(
            held, critic, data, steps, recipe, checkpoint=f"{out}.state", every=report, watch=watch
        )
    assert isinstance(average, Known)
    save_generator(out, average.eval())
    print(f"written: {out}")
