"""Sequences x_0 … x_T of images under known transformations."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from .transforms import MNIST_TRANSFORMATIONS, Transformation


@runtime_checkable
class SequenceSource(Protocol):
    """Where training and evaluation take sequences from.

    `names` are those of the transformations, `steps` is T, `size` counts the images.
    """

    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def steps(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def shape(self) -> tuple[int, int, int]: ...

    def frames(self, rows: Tensor, k: Tensor, steps: int | None = None) -> Tensor:
        """x_0 … x_T (batch, T+1, C, H, W) of rows (batch,) under transformations k (batch,)."""
        ...


@runtime_checkable
class ComposableSource(SequenceSource, Protocol):
    """A source whose transformations can follow one another on one image."""

    def composed(self, rows: Tensor, schedule: Sequence[int]) -> Tensor:
        """x_0 … x_T (batch, T+1, C, H, W), transformation schedule[t-1] added at step t."""
        ...


def red_digits(grey: UInt8[Tensor, "images h w"]) -> UInt8[Tensor, "images 3 h w"]:
    """Grey levels in the red channel, nothing in the others, as in the paper's MNIST."""
    images = torch.zeros(len(grey), 3, *grey.shape[1:], dtype=torch.uint8)
    images[:, 0] = grey
    return images


class TransformedImages:
    """Images and transformations of them: frame t is transformation k after t steps.

    Args:
        images: 0 … 255, (images, C, H, W).
        transformations: K of them; those of the paper's MNIST by default.
        steps: T.
    """

    def __init__(
        self,
        images: UInt8[Tensor, "images c h w"],
        transformations: Sequence[Transformation] = MNIST_TRANSFORMATIONS,
        steps: int = 8,
    ) -> None:
        if images.ndim != 4 or images.dtype != torch.uint8:
            raise ValueError(
                f"images must be uint8 (images, C, H, W), got {images.dtype} {tuple(images.shape)}"
            )
        if not transformations:
            raise ValueError("transformations must be at least one, got none")
        self.images = images
        self.transformations = tuple(transformations)
        self.steps = steps

    @property
    def names(self) -> tuple[str, ...]:
        """Of the transformations."""
        return tuple(transformation.name for transformation in self.transformations)

    @property
    def size(self) -> int:
        """Number of images."""
        return len(self.images)

    @property
    def shape(self) -> tuple[int, int, int]:
        """C, H, W."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def first(self, rows: Int64[Tensor, " batch"]) -> Float[Tensor, "batch c h w"]:
        """Untransformed images in [0, 1]."""
        return self.images[rows].float() / 255

    def frames(
        self, rows: Int64[Tensor, " batch"], k: Int64[Tensor, " batch"], steps: int | None = None
    ) -> Float[Tensor, "batch frames c h w"]:
        """x_0 … x_T in [0, 1] of each row under its own transformation; T = `steps`."""
        x0 = self.first(rows)
        T = self.steps if steps is None else steps
        found = x0.new_empty(len(rows), T + 1, *x0.shape[1:])
        for j in k.unique().tolist():
            own = (k == j).nonzero()[:, 0]
            many = x0[own].repeat_interleave(T + 1, 0)
            t = torch.arange(T + 1, dtype=x0.dtype).repeat(len(own))
            moved = self.transformations[j](many, t)
            found[own] = moved.reshape(len(own), T + 1, *x0.shape[1:])
        return found

    def composed(
        self,
        rows: Int64[Tensor, " batch"],
        schedule: Sequence[int],
    ) -> Float[Tensor, "batch frames c h w"]:
        """Frames under a list of transformations, one a step.

        After t steps each transformation has been applied as often as it was named, in the
        order of its first step; [0, 0, 1] scales twice, then rotates the result once. Switching
        back, [0, 1, 0], means twice scaled and once rotated.
        """
        x = self.first(rows)
        frames = [x]
        for t in range(1, len(schedule) + 1):
            image = x
            for j in dict.fromkeys(schedule[:t]):
                count = float(list(schedule[:t]).count(j))
                image = self.transformations[j](image, x.new_full((len(x),), count))
            frames.append(image)
        return torch.stack(frames, 1)


class FactorImages:
    """A full grid of images over factors of variation, one row for each combination.

    Frame t of factor k is the image with factor k at its value t and the other factors as in
    the given row. Shapes3D, Falcol3D and Isaac3D are such grids.

    Args:
        images: (rows, H, W, C) uint8, anything that gives rows by number (NumPy, h5py), in
            the order of `sizes` with the last factor fastest; or with `render(rows)`.
        sizes: Number of values of each factor.
        names: Of the factors.
        moving: Which factors are transformations; each needs more than `steps` values.
        steps: T.
    """

    def __init__(
        self,
        images: Any,
        sizes: Sequence[int],
        names: Sequence[str],
        moving: Sequence[str],
        steps: int,
    ) -> None:
        sizes_of = dict(zip(names, sizes, strict=True))
        rows = 1
        for size in sizes:
            rows *= size
        if len(images) != rows:
            raise ValueError(f"images must have {rows} rows, one a combination, got {len(images)}")
        for name in moving:
            if name not in sizes_of:
                raise ValueError(f"moving must name factors of {tuple(names)}, got {name!r}")
            if sizes_of[name] <= steps:
                raise ValueError(
                    f"{name} must have more than {steps} values to be moved that often, "
                    f"got {sizes_of[name]}"
                )
        self.images = images
        self.names = tuple(moving)
        self.steps = steps
        self.size = rows
        place, stride = {}, rows
        for name, size in sizes_of.items():
            stride //= size
            place[name] = (stride, size)
        self._place = [place[name] for name in self.names]
        height, width, channels = images.shape[1:]
        self.shape = (channels, height, width)

    def frames(
        self, rows: Int64[Tensor, " batch"], k: Int64[Tensor, " batch"], steps: int | None = None
    ) -> Float[Tensor, "batch frames c h w"]:
        """x_0 … x_T in [0, 1] with factor k of each row at 0 … T."""
        T = self.steps if steps is None else steps
        place = torch.tensor(self._place)[k]
        stride, size = place[:, 0], place[:, 1]
        if bool((size <= T).any()):
            j = int(k[size <= T][0])
            raise ValueError(
                f"steps must be below the {self._place[j][1]} values of {self.names[j]}, got {T}"
            )
        first = rows - rows // stride % size * stride
        wanted = (first[:, None] + torch.arange(T + 1) * stride[:, None]).flatten()
        if hasattr(self.images, "render"):
            found = self.images.render(wanted)
        else:
            # One by one: HDF5 takes lists of rows only in rising order.
            found = torch.stack(
                [torch.from_numpy(np.array(self.images[row])) for row in wanted.tolist()]
            )
        found = found.permute(0, 3, 1, 2).float() / 255
        return found.reshape(len(rows), T + 1, *self.shape)


SHAPES3D_SIZES = (10, 10, 10, 8, 4, 15)
SHAPES3D_NAMES = ("floor hue", "wall hue", "object hue", "scale", "shape", "orientation")


def shapes3d(path: str, steps: int = 7) -> FactorImages:
    """Shapes3D from its HDF5 file (`3dshapes.h5`), five moving factors; needs h5py.

    ValueError if the file holds other images than 480,000 of 64 x 64 x 3.
    """
    import h5py

    file = h5py.File(path, "r")
    if "images" not in file or file["images"].shape != (480_000, 64, 64, 3):
        shape = file["images"].shape if "images" in file else "no images"
        raise ValueError(f"{path}: expected images (480000, 64, 64, 3), got {shape}")
    moving = tuple(name for name in SHAPES3D_NAMES if name != "shape")
    return FactorImages(file["images"], SHAPES3D_SIZES, SHAPES3D_NAMES, moving, steps)


class Held:
    """A part of a source: the rows that are named, in their order.

    Args:
        source: The whole.
        rows: Indices into it.
    """

    def __init__(self, source: SequenceSource, rows: Int64[Tensor, " rows"]) -> None:
        self.source = source
        self.rows = rows
        self.names, self.steps, self.shape = source.names, source.steps, source.shape
        self.size = len(rows)

    def frames(
        self, rows: Int64[Tensor, " batch"], k: Int64[Tensor, " batch"], steps: int | None = None
    ) -> Float[Tensor, "batch frames c h w"]:
        """As the source's, with rows counted within this part."""
        return self.source.frames(self.rows[rows], k, steps)

    def composed(
        self, rows: Int64[Tensor, " batch"], schedule: Sequence[int]
    ) -> Float[Tensor, "batch frames c h w"]:
        """As the source's. TypeError if its transformations do not follow one another."""
        if not isinstance(self.source, ComposableSource):
            raise TypeError(f"{type(self.source).__name__} has no composed sequences")
        return self.source.composed(self.rows[rows], schedule)


def split(source: SequenceSource, held_out: float, seed: int) -> tuple[Held, Held]:
    """Training and held-out rows at random, the same for the same seed.

    Args:
        held_out: Share of the held-out rows, between 0 and 1.
    """
    if not 0 < held_out < 1:
        raise ValueError(f"held_out must be between 0 and 1, got {held_out}")
    order = torch.randperm(source.size, generator=torch.Generator().manual_seed(seed))
    count = max(1, round(held_out * source.size))
    return Held(source, order[count:]), Held(source, order[:count])
