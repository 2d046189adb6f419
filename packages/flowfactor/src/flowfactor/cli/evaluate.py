"""`flowfactor evaluate`."""

import json
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from flowfactor.cli.sources import matched, open_run
from flowfactor.equivariance import commutator, compare
from flowfactor.files import write_text
from flowfactor.likelihood import log_likelihood
from flowfactor.pictures import strips
from flowfactor.report import Page
from flowfactor.transport import path_cost

commands = typer.Typer()


@commands.command()
@torch.no_grad()
def evaluate(
    run: Annotated[Path, typer.Argument(help="Folder of a trained run.")],
    rows: Annotated[int, typer.Option(min=1, help="Held-out images at most.")] = 500,
    beyond: Annotated[int, typer.Option(min=0, help="Steps beyond those of training.")] = 0,
    samples: Annotated[int, typer.Option(min=1, help="Of the likelihood bound.")] = 100,
) -> None:
    """Write metrics.json and report.html: errors beside both baselines, likelihood, commutators."""
    with Console(stderr=True).status("reading the run") as status:
        model, held, about = open_run(run)
        chosen = torch.arange(min(held.size, rows))
        names, steps = held.names, about["steps"]
        metrics: dict[str, Any] = {"sequences": len(chosen), "steps": steps}
        flow_of, share = matched(model, held, chosen)
        if share is not None:
            metrics["right flow inferred"] = share
        page = Page(f"flowfactor: {about['source']}")
        page.text(
            f"{len(chosen)} held-out images, {about['options']['iterations']} updates. The "
            "equivariance error is the L1 distance of images, summed over pixels and over the "
            "steps of training."
        )
        table, parts = [], []
        z = model.encode(held.frames(chosen, torch.zeros_like(chosen), 0)[:, 0])[0]
        for j, name in enumerate(names):
            status.update(f"{name}: errors")
            found = compare(model, held, j, flow=flow_of[j], rows=chosen, steps=steps + beyond)
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
            frames = held.frames(chosen[:1], torch.tensor([j]))[0]
            moved = model.traverse(frames[0], flow_of[j], steps)
            parts.append((name, errors, strips([frames, moved], 2)))
            print(f"{name:14s}" + "".join(f"  {a} {v:8.1f}" for a, v in totals.items()))
        page.table(["", "flow", "repeat frame 0", "re-encode", "path cost"], table)
        status.update(f"likelihood, {samples} samples")
        torch.manual_seed(about["options"]["seed"])
        x0 = held.frames(chosen, torch.zeros_like(chosen), 0)
        bound = log_likelihood(model, x0, samples=samples).mean().item()
        metrics["bound of log p(x_0)"] = {"samples": samples, "nats": bound}
        page.text(f"Bound of log p(x_0), {samples} samples: {bound:.2f} nats.")
        print(f"bound of log p(x_0), {samples} samples: {bound:.2f} nats")
        status.update("commutators")
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
    write_text(run / "metrics.json", json.dumps(metrics, indent=1))
    page.write(run / "report.html")
    print(f"report: {run / 'report.html'}")
