"""A matrix that is known by its products with vectors."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LinearOperator:
    """A matrix A (m, n) given by v -> A v, (n,) -> (m,), and u -> A^H u, (m,) -> (n,)."""

    matvec: Callable[[Tensor], Tensor]
    rmatvec: Callable[[Tensor], Tensor]
    shape: tuple[int, int]
    dtype: torch.dtype = torch.float32
    device: torch.device | str = "cpu"

    @classmethod
    def jacobian(cls, f: Callable[[Tensor], Tensor], x: Tensor) -> "LinearOperator":
        """The Jacobian of real f: (n,) -> (m,) at x, never formed: forward and reverse mode."""
        value, pullback, *_ = torch.func.vjp(f, x)
        if x.ndim != 1 or value.ndim != 1:
            raise ValueError(
                f"f must map a vector to a vector, got {tuple(x.shape)} -> {tuple(value.shape)}"
            )
        return cls(
            lambda v: torch.func.jvp(f, (x,), (v,))[1],
            lambda u: pullback(u)[0],
            (value.shape[0], x.shape[0]),
            x.dtype,
            x.device,
        )

    def apply(self, X: Tensor) -> Tensor:
        """A X, column by column."""
        return _columns(self.matvec, X, self.shape[0], "matvec")

    def apply_adjoint(self, Y: Tensor) -> Tensor:
        """A^H Y, column by column."""
        return _columns(self.rmatvec, Y, self.shape[1], "rmatvec")


def _columns(product: Callable[[Tensor], Tensor], X: Tensor, size: int, name: str) -> Tensor:
    columns = []
    for x in X.unbind(-1):
        y = product(x)
        if y.shape != (size,):
            raise ValueError(
                f"{name} must return ({size},) for {tuple(x.shape)}, got {tuple(y.shape)}"
            )
        columns.append(y)
    return torch.stack(columns, -1)
