"""What the argument SOURCE names, and the run that a command reads."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from flowfactor.checkpoint import load_model
from flowfactor.data import SequenceSource, TransformedImages, red_digits, shapes3d, split
from flowfactor.files import reason
from flowfactor.model import FlowFactorVAE
from flowfactor.posterior import match_flows
from flowfactor.synthetic import rooms, sprites
from flowfactor.transforms import Hue, Rotation, Scale, Shear, Transformation, Translation

TRANSFORMATIONS: dict[str, Transformation] = {
    each.name: each for each in (Scale(), Rotation(), Hue(), Shear(), Translation())
}


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
        images = _images(source)
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise ValueError(
            f"{source}: images must be uint8 (N, H, W) or (N, H, W, C), "
            f"got {images.dtype} {images.shape}"
        )
    pixels = torch.from_numpy(images)
    pixels = red_digits(pixels) if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)
    return TransformedImages(pixels, chosen, steps)


def _images(path: str) -> np.ndarray:
    # numpy leaves a file that it cannot read open, where it opened it.
    with Path(path).open("rb") as stream:
        try:
            with np.load(stream, allow_pickle=False) as file:
                names = list(file)
                images = file["images"] if "images" in names else None
        # A changed file makes numpy fail in any way, even as a program with a wrong syntax.
        except Exception as error:
            raise ValueError(f"{path}: not a .npz file of plain arrays: {reason(error)}") from error
    if not isinstance(images, np.ndarray):
        raise ValueError(f"{path}: expected an array `images`, got {names[:8]}")
    return images


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
