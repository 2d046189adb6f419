"""Images as pixels, grids, GIFs and difference maps."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from householder_gan.files import reason


def to_pixels(images: Float[Tensor, "*batch c h w"]) -> UInt8[Tensor, "*batch h w 3"]:
    """Values in -1..1 as 0..255, beyond them cut off as a screen does; grey becomes RGB.

    Raises ValueError for other than 1 or 3 channels.
    """
    if images.shape[-3] not in (1, 3):
        raise ValueError(f"images must have 1 or 3 channels, got {images.shape[-3]}")
    scaled = ((images.detach().cpu().float() + 1) * 127.5).round().clamp(0, 255)
    channels_last = scaled.to(torch.uint8).movedim(-3, -1)
    return channels_last.expand(*channels_last.shape[:-1], 3)


def from_picture(path: str | Path, size: int) -> Float[Tensor, "3 h w"]:
    """A picture file as an image in -1..1, cut to a centred square and resized.

    Raises ValueError naming a file that is broken, or so large that Pillow takes it for an attack.
    """
    try:
        with Image.open(path) as picture:
            side = min(picture.size)
            left, top = (picture.width - side) // 2, (picture.height - side) // 2
            square = picture.convert("RGB").crop((left, top, left + side, top + side))
            small = square.resize((size, size), Image.Resampling.LANCZOS)
            data = torch.frombuffer(bytearray(small.tobytes()), dtype=torch.uint8)
    except FileNotFoundError:
        raise
    # Pillow's plugins raise nearly anything for a broken file.
    except Exception as error:
        raise ValueError(f"{path}: not a whole picture: {reason(error)}") from error
    return data.view(size, size, 3).permute(2, 0, 1).float() / 127.5 - 1


def grid(
    images: Float[Tensor, "rows columns c h w"], gap: int = 2
) -> UInt8[Tensor, "height width 3"]:
    """Images side by side, white lines of `gap` pixels between them."""
    pixels = to_pixels(images)
    rows, columns, h, w, _ = pixels.shape
    sheet = torch.full((rows * (h + gap) - gap, columns * (w + gap) - gap, 3), 255).to(torch.uint8)
    for i in range(rows):
        for j in range(columns):
            sheet[i * (h + gap) :, j * (w + gap) :][:h, :w] = pixels[i, j]
    return sheet


def difference_map(
    images: Float[Tensor, "batch k c h w"],
) -> Float[Tensor, "h w"]:
    """Where a traversal changes the image: standard deviation over steps, mean over the rest."""
    return images.std(1, unbiased=False).mean((0, 1))


def heat(values: Float[Tensor, "h w"], largest: float) -> UInt8[Tensor, "h w 3"]:
    """0 as black, over red and yellow, to white at `largest`."""
    t = (values / largest if largest > 0 else torch.zeros_like(values)).clamp(0, 1) * 3
    return torch.stack([(t - k).clamp(0, 1) for k in range(3)], -1).mul(255).round().to(torch.uint8)


def picture(pixels: UInt8[Tensor, "h w 3"]) -> Image.Image:
    """A Pillow image."""
    h, w, _ = pixels.shape
    return Image.frombytes("RGB", (w, h), bytes(pixels.contiguous().untyped_storage()))


def save_grid(path: str | Path, images: Float[Tensor, "rows columns c h w"], gap: int = 2) -> None:
    """`grid` as a picture file of the format that the name asks for."""
    picture(grid(images, gap)).save(path)


def save_gif(
    path: str | Path,
    frames: Float[Tensor, "k c h w"],
    *,
    milliseconds: int = 120,
    bounce: bool = True,
) -> None:
    """An animation of the frames in order, and back again if `bounce`; it repeats for ever."""
    pictures = [picture(p) for p in to_pixels(frames)]
    order: Sequence[Image.Image] = [*pictures, *pictures[-2:0:-1]] if bounce else pictures
    order[0].save(
        path, format="GIF", save_all=True, append_images=order[1:], duration=milliseconds, loop=0
    )


def data_uri(pixels: UInt8[Tensor, "h w 3"], kind: str = "WEBP") -> str:
    """The picture inside an address, for pages of one file."""
    buffer = io.BytesIO()
    picture(pixels).save(buffer, format=kind, quality=88)
    text = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f"data:image/{kind.lower()};base64,{text}"
