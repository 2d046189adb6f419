"""Flat geometries: vector spaces of matrices."""

from dataclasses import dataclass

import torch
from torch import Tensor

from spd_metrics.geometry import Geometry


def check_alpha_beta(n: int, alpha: float, beta: float) -> None:
    """ValueError unless alpha + n beta > 0, where `trace_inner` is definite."""
    if not alpha + n * beta > 0:
        raise ValueError(
            f"beta must exceed -alpha/n = {-alpha / max(n, 1):.4g} for n={n} and alpha={alpha:g}, "
            f"got {beta:g}"
        )


def trace_inner(V: Tensor, W: Tensor, alpha: float = 1.0, beta: float = 0.0) -> Tensor:
    """alpha tr(V W) + beta tr V tr W of symmetric V and W, an inner product invariant under O(n).

    Raises ValueError unless alpha + n beta > 0, without which it is not definite.
    """
    check_alpha_beta(V.shape[-1], alpha, beta)
    inner = (V * W).sum((-2, -1))
    inner = inner if alpha == 1 else alpha * inner
    if beta == 0:
        return inner
    return inner + beta * _trace(V) * _trace(W)


def trace_sharp(W: Tensor, alpha: float, beta: float) -> Tensor:
    """V with alpha tr(V U) + beta tr V tr U = tr(W U) for every symmetric U."""
    V = W / alpha
    if beta == 0:
        return V
    n = W.shape[-1]
    identity = torch.eye(n, dtype=W.dtype, device=W.device)
    return V - (beta / (alpha + n * beta)) * _trace(V)[..., None, None] * identity


def _trace(V: Tensor) -> Tensor:
    return V.diagonal(dim1=-2, dim2=-1).sum(-1)


@dataclass(frozen=True)
class Euclidean(Geometry):
    """A vector space of matrices with alpha ⟨V, W⟩ + beta tr V tr W.

    `origin` times I is the image of the identity matrix.
    """

    alpha: float = 1.0
    beta: float = 0.0
    origin: float = 0.0

    def inner(self, X: Tensor, V: Tensor, W: Tensor) -> Tensor:
        value = trace_inner(V, W, self.alpha, self.beta)
        return value.expand(torch.broadcast_shapes(value.shape, X.shape[:-2]))

    def exp(self, X: Tensor, V: Tensor) -> Tensor:
        return X + V

    def log(self, X: Tensor, Y: Tensor) -> Tensor:
        return Y - X

    def transport(self, X: Tensor, Y: Tensor, V: Tensor) -> Tensor:
        return V.expand(torch.broadcast_shapes(X.shape, Y.shape, V.shape))

    def sharp(self, X: Tensor, W: Tensor) -> Tensor:
        return trace_sharp(W, self.alpha, self.beta).expand(
            torch.broadcast_shapes(X.shape, W.shape)
        )

    def dist2(self, X: Tensor, Y: Tensor) -> Tensor:
        difference = Y - X
        return trace_inner(difference, difference, self.alpha, self.beta)

    def mean(self, X: Tensor, weights: Tensor, tol: float | None = None) -> Tensor:  # noqa: ARG002
        return (weights[..., None, None] * X).sum(-3)

    def identity(self, X: Tensor) -> Tensor:
        return self.origin * torch.eye(X.shape[-1], dtype=X.dtype, device=X.device)

    def geodesic(self, X: Tensor, Y: Tensor, t: Tensor | float) -> Tensor:
        # Both ends are met exactly, and nothing cancels between distant points.
        return (1 - t) * X + t * Y
