"""Transformations of images by a real amount: scale, rotation, hue, shear, translation.

Warps are bilinear with zeros outside, as kornia's `warp_affine`; each maps pixel p of the
result to M⁻¹ p of the source, p = (column, row), about the centre (W/2, H/2).
"""

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

Images = Float[Tensor, "batch c h w"]
Amount = Float[Tensor, " batch"]


def warp(images: Images, matrix: Float[Tensor, "batch 2 3"]) -> Images:
    """Images moved by p -> M (p, 1), bilinear, zero where nothing comes from.

    Args:
        matrix: M in pixels, invertible.
    """
    _, _, height, width = images.shape
    linear, shift = matrix[:, :, :2], matrix[:, :, 2:]
    back = torch.linalg.inv(linear)
    # affine_grid counts -1 … 1 between the centres of the outer pixels.
    half = matrix.new_tensor([(width - 1) / 2, (height - 1) / 2])
    theta = back * half / half[:, None]
    centre = half[:, None]
    offset = (back @ (centre - shift) - centre) / centre
    grid = torch.nn.functional.affine_grid(
        torch.cat((theta, offset), -1), list(images.shape), align_corners=True
    )
    return torch.nn.functional.grid_sample(images, grid, align_corners=True)


def similarity(images: Images, scale: Amount, degrees: Amount) -> Images:
    """Enlarged by `scale` and turned anticlockwise by `degrees` about (W/2, H/2)."""
    radians = degrees * (math.pi / 180)
    cosine, sine = scale * radians.cos(), scale * radians.sin()
    linear = torch.stack((torch.stack((cosine, sine), -1), torch.stack((-sine, cosine), -1)), -2)
    return _about_centre(images, linear)


def shear(images: Images, slope: Amount) -> Images:
    """Columns moved by `slope` times their height above (W/2, H/2)."""
    one, zero = torch.ones_like(slope), torch.zeros_like(slope)
    linear = torch.stack((torch.stack((one, -slope), -1), torch.stack((zero, one), -1)), -2)
    return _about_centre(images, linear)


def translate(images: Images, right: Amount, down: Amount) -> Images:
    """Moved by numbers of pixels."""
    eye = torch.eye(2, dtype=images.dtype, device=images.device).expand(len(images), 2, 2)
    return warp(images, torch.cat((eye, torch.stack((right, down), -1)[..., None]), -1))


def _about_centre(images: Images, linear: Tensor) -> Images:
    centre = images.new_tensor([images.shape[-1] / 2, images.shape[-2] / 2])[:, None]
    return warp(images, torch.cat((linear, centre - linear @ centre), -1))


def turn_hue(images: Images, degrees: Amount) -> Images:
    """The hue of RGB images in [0, 1] turned by `degrees`, with saturation and value kept.

    ValueError unless there are three channels.
    """
    if images.shape[1] != 3:
        raise ValueError(f"images must have 3 channels for a hue, got {images.shape[1]}")
    hue, chroma, value = _hue_chroma_value(images)
    full = hue_to_rgb(hue + degrees[:, None, None] / 60)
    return value[:, None] - chroma[:, None] * (1 - full)


def hue_to_rgb(sixths: Float[Tensor, "batch h w"]) -> Float[Tensor, "batch 3 h w"]:
    """The full colour of a hue given in sixths of a turn, 0 being red."""
    # Red, green and blue are full within 60° of their own hue and gone beyond 120°.
    offset = sixths.new_tensor([5.0, 3.0, 1.0])[:, None, None]
    place = (sixths[:, None] + offset).remainder(6)
    return 1 - torch.minimum(place, 4 - place).clamp(0, 1)


def _hue_chroma_value(images: Images) -> tuple[Tensor, Tensor, Tensor]:
    """Hue in sixths of a turn (0 where grey), chroma and value, each (batch, h, w)."""
    value, top = images.max(1)
    chroma = value - images.amin(1)
    safe = chroma.where(chroma > 0, 1.0)
    red, green, blue = images.unbind(1)
    hue = torch.stack(((green - blue) / safe, (blue - red) / safe + 2, (red - green) / safe + 4), 1)
    hue = hue.gather(1, top[:, None])[:, 0]
    return hue.where(chroma > 0, 0.0), chroma, value


@runtime_checkable
class Transformation(Protocol):
    """One kind of change, at times t = 0, 1, 2, …; at t = 0 nothing changes."""

    @property
    def name(self) -> str: ...

    def __call__(self, images: Images, t: Amount) -> Images:
        """Images after t steps, one t an image."""
        ...


@dataclass(frozen=True)
class Scale:
    """1 + 0.1 t times as large."""

    per_step: float = 0.1
    name: str = "scale"

    def __call__(self, images: Images, t: Amount) -> Images:
        return similarity(images, 1 + self.per_step * t, torch.zeros_like(t))


@dataclass(frozen=True)
class Rotation:
    """Turned anticlockwise by 10 t degrees."""

    per_step: float = 10.0
    name: str = "rotation"

    def __call__(self, images: Images, t: Amount) -> Images:
        return similarity(images, torch.ones_like(t), self.per_step * t)


@dataclass(frozen=True)
class Hue:
    """The hue turned by 20 t degrees."""

    per_step: float = 20.0
    name: str = "hue"

    def __call__(self, images: Images, t: Amount) -> Images:
        return turn_hue(images, self.per_step * t)


@dataclass(frozen=True)
class Shear:
    """Columns moved by 0.1 t times their height above the centre."""

    per_step: float = 0.1
    name: str = "shear"

    def __call__(self, images: Images, t: Amount) -> Images:
        return shear(images, self.per_step * t)


@dataclass(frozen=True)
class Translation:
    """Moved to the right by t pixels."""

    per_step: float = 1.0
    name: str = "translation"

    def __call__(self, images: Images, t: Amount) -> Images:
        return translate(images, self.per_step * t, torch.zeros_like(t))


MNIST_TRANSFORMATIONS = (Scale(), Rotation(), Hue())
"""Those of the paper's table: 1.0 … 1.8, 0 … 80 degrees, 0 … 160 degrees in eight steps."""
