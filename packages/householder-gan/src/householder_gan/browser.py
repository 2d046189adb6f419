"""A page of one file to look through directions: strips, difference maps, sorting, labels."""

import html
import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from string import Template

import torch
from jaxtyping import Float
from torch import Tensor

from householder_gan.directions import DirectionSet
from householder_gan.files import write_text
from householder_gan.generators.protocol import Generator
from householder_gan.pictures import data_uri, difference_map, grid, heat
from householder_gan.response import Response
from householder_gan.traverse import Slots, traverse

_SHOWN = 96  # height of an image in the page, in its pixels or as a multiple of the generator's


def browse(
    generator: Generator,
    directions: DirectionSet,
    ws: Float[Tensor, "batch slots w"] | Float[Tensor, "batch w"],
    responses: Sequence[Response],
    path: str | Path,
    *,
    steps: Sequence[float] | Float[Tensor, " k"] = (-20.0, -13.3, -6.7, 0.0, 6.7, 13.3, 20.0),
    slots: Slots | Sequence[int] = "layer",
    title: str = "Directions",
) -> Path:
    """Write a page with a row for each direction; it needs no server and loads nothing.

    A row has the images of each code (batch, …) at each step, a map of where they differ, on one
    scale for all rows, the displacement of `responses` (`displacement`) and a box for a label;
    "Save labels" downloads the JSON that `DirectionSet.labelled` reads.
    """
    if [(r.layer, len(r.values)) for r in responses] != [(d.layer, len(d)) for d in directions]:
        raise ValueError("responses must be those of the same layers and directions, in order")
    rows, maps = [], []
    for one, response in zip(directions, responses, strict=True):
        for j in range(len(one)):
            images = traverse(generator, ws, one, j, steps, slots=slots)
            sheet = grid(images)
            maps.append(difference_map(images))
            scale = _SHOWN / images.shape[-2]
            rows.append(
                {
                    "order": len(rows),
                    "layer": one.layer,
                    "number": j,
                    "sigma": float(one.sigma[j]),
                    "displacement": float(response.values[j]),
                    "label": one.labels.get(j, ""),
                    "steps": [round(float(s), 6) for s in steps],
                    "strip": data_uri(sheet),
                    "width": round(sheet.shape[1] * scale),
                    "height": round(sheet.shape[0] * scale),
                    "mapWidth": round(images.shape[-1] * scale),
                    "mapHeight": _SHOWN,
                }
            )
    largest = float(torch.stack(maps).max()) if maps else 0.0
    for row, values in zip(rows, maps, strict=True):
        row["map"] = data_uri(heat(values, largest))
    distance = responses[0].distance if responses else "none"
    step = responses[0].step if responses else 0.0
    sources = ", ".join(sorted({d.source for d in directions}))
    about = (
        f"Each row moves codes along one direction ({sources}). "
        f"Displacement: mean {distance} after a step of {step:g}. Maps share one scale."
    )
    template = Template(
        resources.files("householder_gan").joinpath("browser.html").read_text("utf-8")
    )
    page = template.substitute(
        title=html.escape(title),
        about=html.escape(about),
        # The one sequence that would end the script element early.
        data=json.dumps(rows).replace("</", "<\\/"),
    )
    path = Path(path)
    write_text(path, page)
    return path
