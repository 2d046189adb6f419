"""Frames as strips and animations, and pictures inside HTML."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image
from torch import Tensor


def picture(image: Float[Tensor, "c h w"], zoom: int = 1) -> Image.Image:
    """Values in [0, 1] of 1 or 3 channels, each pixel `zoom` times as large.

    ValueError for another number of channels or values outside: nothing is clipped.
    """
    if image.shape[0] not in (1, 3):
        raise ValueError(f"image must have 1 or 3 channels, got {image.shape[0]}")
    low, high = image.min().item(), image.max().item()
    if not (low >= 0 and high <= 1):
        raise ValueError(f"image must hold values in 0 … 1, got {low:.3g} … {high:.3g}")
    levels = (255 * image.detach().float().cpu()).round().byte().permute(1, 2, 0).numpy()
    levels = levels.repeat(zoom, 0).repeat(zoom, 1)
    return Image.fromarray(np.ascontiguousarray(levels if image.shape[0] == 3 else levels[..., 0]))


def strips(rows: Sequence[Float[Tensor, "_frames c h w"]], zoom: int = 1) -> Image.Image:
    """One sequence a row, its frames from left to right; rows may differ in length."""
    drawn = [[picture(frame, zoom) for frame in row] for row in rows]
    width, height = drawn[0][0].size
    sheet = Image.new(drawn[0][0].mode, (width * max(map(len, drawn)), height * len(drawn)))
    for y, row in enumerate(drawn):
        for x, image in enumerate(row):
            sheet.paste(image, (x * width, y * height))
    return sheet


def save_gif(
    path: Path, frames: Float[Tensor, "frames c h w"], zoom: int = 1, seconds: float = 0.12
) -> None:
    """An animation that runs to the end, back, and again."""
    there = [picture(frame, zoom) for frame in frames]
    images = there + there[-2:0:-1]
    images[0].save(
        path, save_all=True, append_images=images[1:], duration=round(1000 * seconds), loop=0
    )


def as_data_url(image: Image.Image) -> str:
    """The picture as text that an HTML page may hold."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
