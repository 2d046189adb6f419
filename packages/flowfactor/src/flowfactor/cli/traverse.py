"""`flowfactor traverse`."""

from pathlib import Path
from typing import Annotated

import torch
import typer

from flowfactor.cli.sources import matched, open_run
from flowfactor.pictures import save_gif, strips

commands = typer.Typer()


@commands.command()
@torch.no_grad()
def traverse(
    run: Annotated[Path, typer.Argument(help="Folder of a trained run.")],
    flow: Annotated[
        str | None, typer.Option(help="Name of a transformation, or several: scale,rotation.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Of each flow; those of training by default.")
    ] = None,
    row: Annotated[int, typer.Option(help="Which held-out image.")] = 0,
    zoom: Annotated[int, typer.Option(min=1)] = 2,
) -> None:
    """Write a strip (PNG) and an animation (GIF) for each flow, or for flows in turn."""
    model, held, about = open_run(run)
    if not 0 <= row < held.size:
        raise ValueError(f"--row must be in 0 … {held.size - 1}, got {row}")
    names = about["names"]
    paths = [flow.split(",")] if flow else [[name] for name in names]
    for name in (name for path in paths for name in path):
        if name not in names:
            raise ValueError(f"--flow must be among {names}, got {name!r}")
    count = steps or about["steps"]
    flow_of, _ = matched(model, held, torch.arange(min(held.size, 300)))
    x0 = held.frames(torch.tensor([row]), torch.tensor([0]), 0)[0, 0]
    for path in paths:
        z = [model.encode(x0)[0][None]]
        for name in path:
            # Each flow from its own beginning, which is how it was trained.
            z.append(model.flow.rollout(z[-1][-1], flow_of[names.index(name)], count)[1:])
        frames = model.decode(torch.cat(z))
        base = run / ("traverse-" + "-".join(path).replace(" ", "_"))
        strips([frames], zoom).save(base.with_suffix(".png"))
        save_gif(base.with_suffix(".gif"), frames, zoom)
        print(f"{base}.png, {base}.gif")
