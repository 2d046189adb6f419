"""Sprites and rooms rendered here: synthetic stand-ins, not dSprites or Shapes3D.

Figures on them are not comparable with figures on those data sets.
"""

import math

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from .data import FactorImages
from .transforms import hue_to_rgb


class Rendered:
    """Images that are made when they are asked for, one a combination of factors.

    Args:
        sizes: Number of values of each factor, the last one fastest.
        side: Height and width in pixels.
    """

    sizes: tuple[int, ...] = ()
    names: tuple[str, ...] = ()

    def __init__(self, side: int) -> None:
        if side < 8:
            raise ValueError(f"side must be at least 8, got {side}")
        self.side = side
        self.shape = (math.prod(self.sizes), side, side, 3)

    def __len__(self) -> int:
        return self.shape[0]

    def values(self, rows: Int64[Tensor, " batch"]) -> dict[str, Tensor]:
        """Each factor's share of its range, from 0 (first value) to 1 (last)."""
        found = {}
        for name, size in zip(reversed(self.names), reversed(self.sizes), strict=True):
            found[name] = (rows % size).float() / max(size - 1, 1)
            rows = rows // size
        return found

    def pixels(self, side: int) -> tuple[Tensor, Tensor]:
        """Coordinates (right, up) of pixel centres from -1 to 1, each (side, side)."""
        axis = (torch.arange(side) + 0.5) * (2 / side) - 1
        up, right = torch.meshgrid(-axis, axis, indexing="ij")
        return right, up

    def render(self, rows: Int64[Tensor, " batch"]) -> UInt8[Tensor, "batch h w 3"]:
        """Images at twice the size, averaged: edges are smooth."""
        right, up = self.pixels(2 * self.side)
        image = self.paint(self.values(rows), right, up)
        image = torch.nn.functional.avg_pool2d(image.movedim(-1, 1), 2).movedim(1, -1)
        return (255 * image).round().byte()

    def paint(
        self, values: dict[str, Tensor], right: Float[Tensor, "h w"], up: Float[Tensor, "h w"]
    ) -> Float[Tensor, "batch h w 3"]:
        """Colours in [0, 1] at the given places."""
        raise NotImplementedError


class SpriteImages(Rendered):
    """A white square, ellipse or heart on black, by scale, orientation and place."""

    sizes = (3, 10, 40, 16, 16)
    names = ("shape", "scale", "orientation", "right", "down")

    def paint(
        self, values: dict[str, Tensor], right: Float[Tensor, "h w"], up: Float[Tensor, "h w"]
    ) -> Float[Tensor, "batch h w 3"]:
        """One where the sprite is."""
        v = {name: value[:, None, None] for name, value in values.items()}
        angle, size = 2 * math.pi * 39 / 40 * v["orientation"], 0.2 + 0.2 * v["scale"]
        x = (right - 0.9 * (v["right"] - 0.5)) / size
        y = (up + 0.9 * (v["down"] - 0.5)) / size
        x, y = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
        square = (x.abs() < 0.8) & (y.abs() < 0.8)
        ellipse = x**2 + (2 * y) ** 2 < 1
        heart = (x**2 + y**2 - 0.55) ** 3 < 1.5 * x**2 * y**3
        kind = (2 * v["shape"]).round()
        inside = torch.where(kind == 0, square, torch.where(kind == 1, ellipse, heart))
        return inside.float()[..., None].expand(*inside.shape, 3)


class RoomImages(Rendered):
    """A cube, ball or column in a room, seen from in front by a camera that goes round.

    Factors in the manner of Shapes3D; the two walls that are seen differ in shade, so that the
    orientation shows.
    """

    sizes = (10, 10, 10, 8, 3, 15)
    names = ("floor hue", "wall hue", "object hue", "scale", "shape", "orientation")

    def paint(
        self, values: dict[str, Tensor], right: Float[Tensor, "h w"], up: Float[Tensor, "h w"]
    ) -> Float[Tensor, "batch h w 3"]:
        """What each ray meets first: the object, else the floor or a wall."""
        v = {name: value[:, None, None] for name, value in values.items()}
        angle = math.pi / 3 * (v["orientation"] - 0.5)
        # The camera looks down at the middle of the floor, where the object stands.
        forward = torch.stack((-angle.sin(), torch.full_like(angle, -0.35), -angle.cos()), -1)
        sideways = torch.stack((angle.cos(), torch.zeros_like(angle), -angle.sin()), -1)
        upwards = torch.linalg.cross(sideways, forward)
        eye = torch.stack((2.6 * angle.sin(), torch.full_like(angle, 1.5), 2.6 * angle.cos()), -1)
        ray = forward + 0.8 * (right[..., None] * sideways + up[..., None] * upwards)
        far, axis = self._room(eye, ray)
        near, side = self._object(eye, ray, 0.35 + 0.35 * v["scale"], (2 * v["shape"]).round())
        hit = near < far
        hues = [v[f"{part} hue"] * 0.9 * 6 for part in ("floor", "wall", "object")]
        floor, wall, thing = (hue_to_rgb(hue).movedim(1, -1) for hue in hues)
        shade = torch.tensor([0.75, 1.0, 0.5])[axis][..., None]
        ground = torch.where((axis == 1)[..., None], floor, wall) * shade
        # Light falls from above and from the left.
        lit = 0.55 + 0.45 * (side @ torch.tensor([-0.5, 0.75, 0.4330127])).clamp(0, 1)
        return torch.where(hit[..., None], thing * lit[..., None], ground).clamp(0, 1)

    def _room(self, eye: Tensor, ray: Tensor) -> tuple[Tensor, Tensor]:
        """Distance and axis of the way out of the room |x| < 3, 0 < y < 6, |z| < 3."""
        wall = torch.tensor([3.0, 6.0, 3.0]).where(ray > 0, torch.tensor([-3.0, 0.0, -3.0]))
        distance = (wall - eye) / ray.where(ray.abs() > 1e-9, 1e-9)
        far, axis = distance.min(-1)
        return far, axis

    def _object(
        self, eye: Tensor, ray: Tensor, size: Tensor, kind: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Distance (infinite where missed) and outward normal of cube, ball and column."""
        height = 2 * size
        safe = ray.where(ray.abs() > 1e-9, 1e-9)
        zero, flat = torch.zeros_like(size), torch.stack((size, height, size), -1)
        low = torch.stack((-size, zero, -size), -1)
        near = torch.minimum((low - eye) / safe, (flat - eye) / safe)
        leave = torch.maximum((low - eye) / safe, (flat - eye) / safe)

        def slabs(axes: list[int]) -> tuple[Tensor, Tensor, Tensor]:
            enter, at = near[..., axes].max(-1)
            normal = -torch.nn.functional.one_hot(torch.tensor(axes)[at], 3) * ray.sign()
            return enter, leave[..., axes].amin(-1), normal

        def round_(axes: list[int], middle: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            d, o = ray[..., axes], (eye - middle)[..., axes]
            a, b = d.square().sum(-1), (d * o).sum(-1)
            c = o.square().sum(-1) - size**2
            root = b**2 - a * c
            enter = (-b - root.clamp_min(0).sqrt()) / a
            out = torch.where(root > 0, (-b + root.clamp_min(0).sqrt()) / a, -math.inf)
            normal = torch.zeros_like(ray)
            normal[..., axes] = (o + enter[..., None] * d) / size[..., None]
            return enter, out, normal

        centre = torch.stack((zero, size, zero), -1)
        cube, ball = slabs([0, 1, 2]), round_([0, 1, 2], centre)
        shell, caps = round_([0, 2], centre), slabs([1])
        first = shell[0] > caps[0]
        column = (
            torch.maximum(shell[0], caps[0]),
            torch.minimum(shell[1], caps[1]),
            torch.where(first[..., None], shell[2], caps[2]),
        )
        enter, out, normal = (
            torch.where(
                (kind == 0).reshape(-1, 1, 1, *(1,) * (x[0].ndim - 3)),
                x[0],
                torch.where((kind == 1).reshape(-1, 1, 1, *(1,) * (x[0].ndim - 3)), x[1], x[2]),
            )
            for x in zip(cube, ball, column, strict=True)
        )
        return torch.where((enter < out) & (enter > 0), enter, math.inf), normal


def sprites(steps: int = 8, side: int = 32) -> FactorImages:
    """Sequences of growing, turning and moving sprites."""
    images = SpriteImages(side)
    moving = ("scale", "orientation", "right", "down")
    return FactorImages(images, images.sizes, images.names, moving, steps)


def rooms(steps: int = 7, side: int = 64) -> FactorImages:
    """Sequences of rooms in which a hue, the size or the view changes."""
    images = RoomImages(side)
    moving = tuple(name for name in images.names if name != "shape")
    return FactorImages(images, images.sizes, images.names, moving, steps)
