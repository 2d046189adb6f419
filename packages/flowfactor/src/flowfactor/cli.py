"""The command `flowfactor`: train, evaluate, traverse."""

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from .checkpoint import load_model, load_run, save_model, save_run
from .data import SequenceSource, TransformedImages, red_digits, shapes3d, split
from .elbo import Objective
from .equivariance import commutator, compare
from .likelihood import log_likelihood
from .model import Config, FlowFactorVAE
from .pictures import save_gif, strips
from .posterior import Temperature, match_flows
from .report import Page
from .synthetic import rooms, sprites
from .train import Options, Progress, Trainer
from .transforms import Hue, Rotation, Scale, Shear, Transformation, Translation
from .transport import path_cost

TRANSFORMATIONS: dict[str, Transformation] = {
    each.name: each for each in (Scale(), Rotation(), Hue(), Shear(), Translation())
}


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 done, 2 a wrong argument or file, 130 interrupted."""
    options = parser().parse_args(arguments)
    try:
        options.run(options)
    except (ValueError, OSError, ImportError) as error:
        print(f"flowfactor: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("flowfactor: stopped; `train` goes on from what it last saved", file=sys.stderr)
        return 130
    return 0


def parser() -> argparse.ArgumentParser:
    """Of the three commands."""
    whole = argparse.ArgumentParser(prog="flowfactor", description=__doc__)
    commands = whole.add_subparsers(required=True, metavar="COMMAND")

    train = commands.add_parser("train", help="train a model on sequences, or go on with a run")
    train.add_argument(
        "source",
        help="FILE.npz with `images` (N, H, W) or (N, H, W, C) uint8, 3dshapes.h5, "
        "`digits` (scikit-learn), or the synthetic `sprites` and `rooms`",
    )
    train.add_argument("--out", type=Path, required=True, help="folder of the run")
    train.add_argument(
        "--transformations",
        default="scale,rotation,hue",
        help=f"of images from a file, among {','.join(TRANSFORMATIONS)}",
    )
    train.add_argument("--steps", type=int, default=8, help="T, transitions of a sequence")
    train.add_argument("--unlabelled", action="store_true", help="infer which flow it is")
    train.add_argument("--backbone", choices=("mlp", "conv-a", "conv-b"), default="mlp")
    train.add_argument("--dim", type=int, default=32, help="n")
    train.add_argument("--iterations", type=int, default=3000)
    train.add_argument("--batch", type=int, default=64)
    train.add_argument("--learning-rate", type=float, default=2e-3)
    train.add_argument("--weight", type=float, default=0.1, help="of the Hamilton-Jacobi loss")
    train.add_argument("--kl", choices=("telescoped", "marginals", "shared"), default="telescoped")
    train.add_argument("--half", action="store_true", help="bfloat16 in encoder and decoder")
    train.add_argument("--held-out", type=float, default=0.2, help="share kept for evaluation")
    train.add_argument("--save-every", type=int, default=500)
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--device", default="cpu")
    train.set_defaults(run=run_train)

    evaluate = commands.add_parser("evaluate", help="write metrics.json and report.html")
    evaluate.add_argument("run_folder", type=Path, metavar="RUN")
    evaluate.add_argument("--rows", type=int, default=500, help="held-out images at most")
    evaluate.add_argument("--beyond", type=int, default=0, help="steps beyond those of training")
    evaluate.add_argument("--samples", type=int, default=100, help="of the likelihood bound")
    evaluate.set_defaults(run=run_evaluate)

    traverse = commands.add_parser("traverse", help="write strips (PNG) and animations (GIF)")
    traverse.add_argument("run_folder", type=Path, metavar="RUN")
    traverse.add_argument("--flow", help="name of a transformation, or several: scale,rotation")
    traverse.add_argument("--steps", type=int, help="of each flow; those of training by default")
    traverse.add_argument("--row", type=int, default=0, help="which held-out image")
    traverse.add_argument("--zoom", type=int, default=2)
    traverse.set_defaults(run=run_traverse)
    return whole


def open_source(source: str, steps: int, transformations: str) -> SequenceSource:
    """What the argument names. ValueError for a file of another kind."""
    if source == "sprites":
        return sprites(steps)
    if source == "rooms":
        return rooms(steps)
    if source.endswith((".h5", ".hdf5")):
        return shapes3d(source, steps)
    chosen = []
    for name in transformations.split(","):
        if name not in TRANSFORMATIONS:
            raise ValueError(f"transformations must be among {list(TRANSFORMATIONS)}, got {name!r}")
        chosen.append(TRANSFORMATIONS[name])
    if source == "digits":
        from sklearn.datasets import load_digits

        # Each pixel as 2 x 2, in a canvas with room to grow.
        small = np.rint(load_digits().images * (255 / 16)).astype(np.uint8)
        images = np.pad(small.repeat(2, 1).repeat(2, 2), ((0, 0), (2, 2), (2, 2)))
    else:
        with np.load(source, allow_pickle=False) as file:
            if "images" not in file:
                raise ValueError(f"{source}: expected an array `images`, got {list(file)}")
            images = file["images"]
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise ValueError(
            f"{source}: images must be uint8 (N, H, W) or (N, H, W, C), "
            f"got {images.dtype} {images.shape}"
        )
    pixels = torch.from_numpy(images)
    pixels = red_digits(pixels) if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)
    return TransformedImages(pixels, chosen, steps)


def run_train(options: argparse.Namespace) -> None:
    """Trains, prints a line now and then, saves the run and the model."""
    if dist.is_torchelastic_launched() and not dist.is_initialized():
        dist.init_process_group("nccl" if options.device.startswith("cuda") else "gloo")
    first = not dist.is_initialized() or dist.get_rank() == 0
    source = open_source(options.source, options.steps, options.transformations)
    train, _ = split(source, options.held_out, options.seed)
    config = Config(
        source.shape,
        len(source.names),
        options.dim,
        options.backbone,
        frames=options.steps + 1 if options.unlabelled else 0,
    )
    torch.manual_seed(options.seed)
    model = config.build().to(options.device)
    settings = Options(
        options.iterations,
        options.batch,
        options.learning_rate,
        objective=Objective(
            kl=options.kl, weight=options.weight, balance=1e3 if options.unlabelled else 0.0
        ),
        supervised=not options.unlabelled,
        temperature=Temperature(rate=1 / options.iterations),
        half=options.half,
        seed=options.seed,
    )
    trainer = Trainer(model, train, settings)
    about = {
        "source": options.source,
        "transformations": options.transformations,
        "steps": options.steps,
        "held_out": options.held_out,
        "names": list(source.names),
        "options": dataclasses.asdict(settings),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    state = options.out / "state.pt"
    settings_file = options.out / "run.json"
    if state.exists():
        if json.loads(settings_file.read_text()) != json.loads(json.dumps(about)):
            raise ValueError(f"--out must be a run with the same options, got {options.out}")
        load_run(state, trainer)
        if first:
            print(f"going on after iteration {trainer.iteration}")
    elif first:
        settings_file.write_text(json.dumps(about, indent=1))

    def report(progress: Progress) -> None:
        i, last = progress.iteration, progress.iteration == progress.iterations
        if first and (i % max(1, progress.iterations // 20) == 0 or last):
            print(line(progress), flush=True)
        if first and (i % options.save_every == 0 or last):
            save_run(state, trainer)

    trainer.run(report=report)
    if first:
        save_model(options.out / "model.safetensors", model, config, about)
        print(f"model: {options.out / 'model.safetensors'}")


def line(progress: Progress) -> str:
    """One line of progress."""
    bound = progress.bound
    return (
        f"{progress.iteration:6d}/{progress.iterations}  {progress.seconds:6.0f} s  "
        f"ELBO {bound.elbo.item():10.1f}  KL_0 {bound.kl_0.item():6.1f}  "
        f"Hamilton-Jacobi {bound.constraint.sum().item():8.4f}  "
        f"gradient {progress.gradient_norm:8.1f}"
    )


def open_run(folder: Path) -> tuple[FlowFactorVAE, SequenceSource, dict[str, Any]]:
    """The model, its held-out sequences, and what it was trained with."""
    model, _, about = load_model(folder / "model.safetensors")
    source = open_source(about["source"], about["steps"], about["transformations"])
    return model, split(source, about["held_out"], about["options"]["seed"])[1], about


def matched(
    model: FlowFactorVAE, held: SequenceSource, rows: torch.Tensor
) -> tuple[tuple[int, ...], float | None]:
    """The flow of each transformation; without labels by majority, with its share of hits."""
    if model.classifier is None:
        return tuple(range(len(held.names))), None
    k = rows % len(held.names)
    return match_flows(model.flow_logits(held.frames(rows, k)), k)


@torch.no_grad()
def run_evaluate(options: argparse.Namespace) -> None:
    """Equivariance errors beside both baselines, likelihood, costs and commutators."""
    model, held, about = open_run(options.run_folder)
    rows = torch.arange(min(held.size, options.rows))
    names, steps = held.names, about["steps"]
    metrics: dict[str, Any] = {"sequences": len(rows), "steps": steps}
    flow_of, share = matched(model, held, rows)
    if share is not None:
        metrics["right flow inferred"] = share
    page = Page(f"flowfactor: {about['source']}")
    page.text(
        f"{len(rows)} held-out images, {about['options']['iterations']} updates. The equivariance "
        "error is the L1 distance of images, summed over pixels and over the steps of training."
    )
    table, parts = [], []
    z = model.encode(held.frames(rows, torch.zeros_like(rows), 0)[:, 0])[0]
    for j, name in enumerate(names):
        found = compare(model, held, j, flow=flow_of[j], rows=rows, steps=steps + options.beyond)
        errors = {
            "flow": found.flow.per_step.tolist(),
            "repeat frame 0": found.repeat.per_step.tolist(),
            "re-encode": found.reencode.per_step.tolist(),
        }
        totals = {answer: sum(values[:steps]) for answer, values in errors.items()}
        cost, _ = path_cost(model.flow, z, flow_of[j], steps)
        metrics[name] = {"equivariance error": totals, "per step": errors, "path cost": cost}
        metrics["reconstruction"] = found.reconstruction
        table.append([name, *totals.values(), cost])
        frames = held.frames(rows[:1], torch.tensor([j]))[0]
        shown = model.traverse(frames[0], flow_of[j], steps)
        parts.append((name, errors, strips([frames, shown], 2)))
        print(f"{name:14s}" + "".join(f"  {a} {v:8.1f}" for a, v in totals.items()))
    page.table(["", "flow", "repeat frame 0", "re-encode", "path cost"], table)
    torch.manual_seed(about["options"]["seed"])
    x0 = held.frames(rows, torch.zeros_like(rows), 0)
    bound = log_likelihood(model, x0, samples=options.samples).mean().item()
    metrics["bound of log p(x_0)"] = {"samples": options.samples, "nats": bound}
    page.text(f"Bound of log p(x_0), {options.samples} samples: {bound:.2f} nats.")
    print(f"bound of log p(x_0), {options.samples} samples: {bound:.2f} nats")
    gaps = [
        [a, *(commutator(model.flow, z, flow_of[i], flow_of[j], steps).mean().item()
              for j in range(len(names)))]
        for i, a in enumerate(names)
    ]  # fmt: skip
    page.text("How far flows are from commuting, relative to the displacement:")
    page.table(["", *names], gaps)
    metrics["commutator"] = {row[0]: dict(zip(names, row[1:], strict=True)) for row in gaps}
    for name, errors, sheet in parts:
        page.curves(f"{name}: error at each step", "step", errors)
        page.picture(f"{name}: true frames above, the flow from the first below", sheet)
    (options.run_folder / "metrics.json").write_text(json.dumps(metrics, indent=1))
    page.write(options.run_folder / "report.html")
    print(f"report: {options.run_folder / 'report.html'}")


@torch.no_grad()
def run_traverse(options: argparse.Namespace) -> None:
    """A strip and an animation for each flow, or for flows one after the other."""
    model, held, about = open_run(options.run_folder)
    if not 0 <= options.row < held.size:
        raise ValueError(f"--row must be in 0 … {held.size - 1}, got {options.row}")
    names = about["names"]
    paths = options.flow.split(",") if options.flow else names
    for name in paths:
        if name not in names:
            raise ValueError(f"--flow must be among {names}, got {name!r}")
    steps = options.steps or about["steps"]
    flow_of, _ = matched(model, held, torch.arange(min(held.size, 300)))
    x0 = held.frames(torch.tensor([options.row]), torch.tensor([0]), 0)[0, 0]
    together = bool(options.flow)
    for path in [paths] if together else [[name] for name in paths]:
        z = [model.encode(x0)[0][None]]
        for name in path:
            # Each flow from its own beginning, which is how it was trained.
            moved = model.flow.rollout(z[-1][-1], flow_of[names.index(name)], steps)
            z.append(moved[1:])
        shown = model.decode(torch.cat(z))
        base = options.run_folder / ("traverse-" + "-".join(path).replace(" ", "_"))
        strips([shown], options.zoom).save(base.with_suffix(".png"))
        save_gif(base.with_suffix(".gif"), shown, options.zoom)
        print(f"{base}.png, {base}.gif")


if __name__ == "__main__":
    raise SystemExit(main())
