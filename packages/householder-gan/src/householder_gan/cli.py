"""The command householder-gan: convert, describe, browse, project and fine-tune generators."""

import argparse
import json
import pickle
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from householder_gan.batch_statistics import recalibrate
from householder_gan.browser import browse
from householder_gan.checkpoints import (
    load_generator,
    load_nvlabs,
    load_rosinality,
    save_generator,
)
from householder_gan.directions import (
    DirectionSet,
    directions,
    ganspace,
    load_directions,
    sefa,
)
from householder_gan.features import PixelDistance
from householder_gan.finetune import Recipe, finetune, of_generator, of_images
from householder_gan.generators.dcgan import DCGAN, load_dcgan
from householder_gan.generators.discriminator import Discriminator
from householder_gan.generators.protocol import codes, draw
from householder_gan.generators.stylegan2 import StyleGAN2
from householder_gan.generators.stylegan3 import StyleGAN3
from householder_gan.householderize import fold, householderize, isometry_of
from householder_gan.path_length import pipl, ppl
from householder_gan.pictures import from_picture, save_gif, save_grid
from householder_gan.response import displacement, rank_directions
from householder_gan.traverse import project, traverse

Known = DCGAN | StyleGAN2 | StyleGAN3


def read_generator(path: str | Path) -> Known:
    """A generator from our own file, an NVlabs .pkl, a rosinality .pt or a DCGAN state.

    Raises ValueError for anything else, naming the file.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        return load_generator(path)
    if path.suffix == ".pkl":
        return load_nvlabs(path)
    with torch.serialization.safe_globals([argparse.Namespace]):
        held = torch.load(path, map_location="cpu", weights_only=True)
    if isinstance(held, dict) and "g_ema" in held:
        return load_rosinality(path)
    if isinstance(held, dict):
        state = held.get("netG_state_dict", held)
        if isinstance(state, dict) and "main.0.weight" in state:
            return load_dcgan(state).eval()
    raise ValueError(f"{path}: expected a generator of DCGAN, StyleGAN2 or StyleGAN3")


def found_directions(generator: Known, source: str, count: int) -> DirectionSet:
    """Of the projectors if there are any ("auto"), else of the source that is named."""
    projected = any(isometry_of(m) is not None for m in generator.modules())
    if source == "projector" or (source == "auto" and projected):
        return directions(generator)
    if source == "ganspace":
        layer = None if generator.space == "w" else "main.0"
        return ganspace(generator, count, 2000, layer=layer, rng=torch.Generator().manual_seed(0))
    return sefa(generator, count=count)


def _rank(text: str) -> int | str:
    return int(text) if text.isdigit() else text


def _start(generator: Known, options: argparse.Namespace) -> Tensor:
    """The codes to move: of seeds, or of an image."""
    if options.image:
        image = from_picture(options.image, generator.size)
        found = project(generator, image, PixelDistance(), steps=options.steps)
        print(f"projected: {found.losses[0]:.4g} -> {min(found.losses):.4g} squared pixels")
        return found.ws
    with torch.no_grad():
        rng = torch.Generator().manual_seed(options.seed)
        return codes(generator, draw(generator, options.samples, rng))


def convert(options: argparse.Namespace) -> None:
    """Householderize, recalibrate, save."""
    generator = read_generator(options.generator)
    layers = options.layers or "auto"
    report = householderize(
        generator, layers, options.rank, sigma=options.sigma, dry_run=options.dry_run
    )
    print(report)
    if options.dry_run:
        return
    if isinstance(generator, DCGAN):
        print(f"batch statistics measured anew in {recalibrate(generator)} layers")
    save_generator(options.out, generator)
    print(f"written: {options.out}")


def unfold(options: argparse.Namespace) -> None:
    """Plain weights in place of projectors."""
    plain = fold(read_generator(options.generator))
    assert isinstance(plain, Known)
    save_generator(options.out, plain)
    print(f"written: {options.out}")


def describe(options: argparse.Namespace) -> None:
    """Directions to files, and what each does."""
    generator = read_generator(options.generator)
    found = found_directions(generator, options.source, options.count)
    responses = displacement(
        generator, found, PixelDistance(), step=options.step, samples=options.samples
    )
    if options.ranked:
        found = rank_directions(found, responses)
    found.save(options.out)
    for one in responses:
        print(
            f"{one.layer}: {len(one.values)} directions, displacement {one.values.mean():.4g} "
            f"({one.distance}, step {one.step:g}), spread {one.spread:.2f}, "
            f"variation {one.variation:.2f}"
        )
    print(f"written: {options.out}")


def show(options: argparse.Namespace) -> None:
    """A page, and a grid and animations beside it."""
    generator = read_generator(options.generator)
    if options.directions:
        found = load_directions(options.directions)
    else:
        found = found_directions(generator, options.source, options.count)
    if options.labels:
        found = found.labelled(json.loads(Path(options.labels).read_text("utf-8")))
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    ws = _start(generator, options)
    steps = torch.linspace(-options.reach, options.reach, options.frames)
    responses = displacement(generator, found, PixelDistance(), step=options.reach, samples=16)
    page = browse(generator, found, ws, responses, out / "directions.html", steps=steps)
    for k, one in enumerate(found):
        strips = [traverse(generator, ws[:1], one, j, steps)[0] for j in range(len(one))]
        save_grid(out / f"layer{k}.png", torch.stack(strips))
        for j, strip in enumerate(strips):
            save_gif(out / f"layer{k}-{j}.gif", strip)
    print(f"written: {page}")


def measure(options: argparse.Namespace) -> None:
    """PPL and PIPL of squared pixels."""
    generator = read_generator(options.generator)
    found = found_directions(generator, options.source, options.count)
    print(ppl(generator, PixelDistance(), samples=options.samples, epsilon=1e-2))
    print(pipl(generator, found, PixelDistance(), samples=options.samples, per_sample=True))


def train(options: argparse.Namespace) -> None:
    """Fine-tune on pictures of a folder, or on the generator's own images."""
    generator = read_generator(options.generator)
    if options.images:
        files = sorted(p for p in Path(options.images).iterdir() if p.is_file())
        if not files:
            raise ValueError(f"{options.images}: expected pictures, found none")
        data = of_images(torch.stack([from_picture(p, generator.size) for p in files]))
    else:
        teacher = read_generator(options.teacher or options.generator)
        data = of_generator(fold(teacher).eval())  # ty: ignore[invalid-argument-type]
    widths = {4 * 2**k: max(16, options.width // 2**k) for k in range(9)}
    critic: nn.Module = Discriminator(generator.size, widths)
    recipe = Recipe(batch=options.batch, rate=options.rate, frame_rate=options.rate)

    def watch(step: int, losses: dict[str, float]) -> None:
        if step % options.report == 0:
            print(step, ", ".join(f"{k} {v:.3f}" for k, v in losses.items()), flush=True)

    average = finetune(
        generator,
        critic,
        data,
        options.steps,
        recipe,
        checkpoint=f"{options.out}.state",
        every=options.report,
        watch=watch,
    )
    assert isinstance(average, Known)
    save_generator(options.out, average.eval())
    print(f"written: {options.out}")


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    top = argparse.ArgumentParser(prog="householder-gan", description=__doc__)
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: object, text: str, out: str | None) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.add_argument("generator", help=".safetensors, .pkl, .pt or a DCGAN state")
        if out:
            sub.add_argument("--out", required=True, help=out)
        sub.set_defaults(run=run)
        return sub

    def source(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("--source", choices=("auto", "projector", "sefa", "ganspace"),
                         default="auto")  # fmt: skip
        sub.add_argument("--count", type=int, default=10, help="directions of SeFa and GANSpace")

    sub = command("convert", convert, "Put projectors into a generator.", ".safetensors")
    sub.add_argument("--rank", type=_rank, default=10, help="a number or energy:0.9")
    sub.add_argument("--layers", nargs="+", help="globs of layer names (default: published choice)")
    sub.add_argument("--sigma", choices=("identity", "fixed", "learned"), default="identity")
    sub.add_argument("--dry-run", action="store_true", help="only report")
    command("fold", unfold, "Turn projectors back into plain weights.", ".safetensors")
    sub = command("directions", describe, "Write directions and measure them.", ".safetensors")
    source(sub)
    sub.add_argument("--ranked", action="store_true", help="in order of their effect")
    sub.add_argument("--step", type=float, default=1.0)
    sub.add_argument("--samples", type=int, default=64)
    sub = command("browse", show, "Write a page, grids and GIFs of directions.", "a folder")
    source(sub)
    sub.add_argument("--directions", help="a file of `directions`")
    sub.add_argument("--labels", help="labels.json that the page saved")
    sub.add_argument("--image", help="start from the code found for this picture")
    sub.add_argument("--steps", type=int, default=300, help="of the search for that code")
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("--samples", type=int, default=2, help="codes to move")
    sub.add_argument("--reach", type=float, default=3.0, help="steps go from -reach to reach")
    sub.add_argument("--frames", type=int, default=7)
    sub = command("metrics", measure, "PPL and PIPL with squared pixels.", None)
    source(sub)
    sub.add_argument("--samples", type=int, default=512)
    sub = command("finetune", train, "Fine-tune by the published recipe.", ".safetensors")
    data = sub.add_mutually_exclusive_group()
    data.add_argument("--images", help="a folder of pictures")
    data.add_argument("--teacher", help="a generator to distil (default: the generator itself)")
    sub.add_argument("--steps", type=int, default=2000)
    sub.add_argument("--batch", type=int, default=8)
    sub.add_argument("--rate", type=float, default=2e-3)
    sub.add_argument("--width", type=int, default=512, help="of the discriminator at 4x4")
    sub.add_argument("--report", type=int, default=100)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; 1 and one sentence for files and values that do not fit."""
    options = parser().parse_args(arguments)
    try:
        options.run(options)
    except (ValueError, OSError, pickle.UnpicklingError) as error:
        print(f"householder-gan: {error}", file=sys.stderr)
        return 1
    return 0
