"""What a point z and a time t may be, and what a potential must return."""

from collections.abc import Callable

import torch
from linalg_kernels import errors
from torch import Tensor

# u(z, t): points (*batch, n) and times (*batch) to values (*batch), each row by itself.
Potential = Callable[[Tensor, Tensor], Tensor]
"""u: points (*batch, n) and times (*batch) to values (*batch), each row by itself."""


def check_points(z: Tensor, name: str = "z") -> None:
    """TypeError unless z is real float32 or float64, ValueError unless it is (*batch, n)."""
    if isinstance(z, Tensor) and z.dtype in (torch.float16, torch.bfloat16):
        raise TypeError(f"{name} must be float32 or float64, got {z.dtype}")
    errors.require_float(z, name)
    errors.require_real(z, name)
    if z.ndim == 0:
        raise ValueError(f"{name} must be (..., n), got a single number")


def as_time(z: Tensor, t: Tensor | float) -> Tensor:
    """t as a tensor in the dtype and on the device of z; ValueError unless it fits the batch."""
    if not isinstance(t, Tensor):
        return torch.tensor(t, dtype=z.dtype, device=z.device)
    errors.require_same_kind(z, t, ("z", "t"))
    batch = z.shape[:-1]
    fits = t.ndim <= len(batch) and all(
        have in (1, want) for have, want in zip(t.shape[::-1], batch[::-1], strict=False)
    )
    if not fits:
        raise ValueError(
            f"t must be a number or broadcast to the batch {tuple(batch)} of z, "
            f"got {tuple(t.shape)}"
        )
    return t


def check_same_shape(v: Tensor, z: Tensor, name: str) -> None:
    """ValueError unless v has the shape of z, TypeError unless it has its dtype."""
    errors.require_same_kind(z, v, ("z", name))
    if v.shape != z.shape:
        raise ValueError(f"{name} must be {tuple(z.shape)}, the shape of z, got {tuple(v.shape)}")


def evaluate(u: Potential, z: Tensor, t: Tensor, name: str = "u") -> Tensor:
    """u(z, t) with one time a row; ValueError unless it is one value a row."""
    batch = z.shape[:-1]
    value = u(z, t.expand(batch))
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must return a torch.Tensor, got {type(value).__name__}")
    if value.shape != batch:
        raise ValueError(
            f"{name} must return one value a row, {tuple(batch)}, got {tuple(value.shape)}"
        )
    return value
