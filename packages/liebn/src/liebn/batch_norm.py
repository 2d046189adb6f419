"""Batch normalisation on a Lie group (Chen et al., ICLR 2024, Algorithm 1)."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from linalg_kernels.precision import full_precision
from torch import Tensor

from liebn.functional import Normalisation, Statistics, centre, mean
from liebn.group import LieGroup
from liebn.layer import GroupLayer
from liebn.pool import ChannelPool, Pool


class LieBatchNorm(GroupLayer):
    """Moves each batch to mean B and, but for eps, variance s²; in eval mode by running statistics.

    Args:
        group: `AffineInvariantGroup()`, `RotationGroup()`, ... or any `LieGroup`.
        shape: (*channels, n, n), or n. Input is (*batch, *shape) or broadcasts with it:
            statistics are taken over the leading dimensions and over those where shape has 1,
            so that (C, 1, n, n) normalises each of C channels over batch and time.
        momentum: Weight of a batch in the running statistics; None weighs all batches alike.
        eps: Added to the variance.
        karcher_steps: Steps to means without a closed form; None iterates to convergence.
        differentiable: Differentiate through the statistics. By default they are constants,
            as in the paper's experiments. With karcher_steps=None the iteration is unrolled.
        trivialized: Bias and scale for any optimiser. With False they are plain parameters;
            `layer.bias` may then be replaced by a geoopt.ManifoldParameter, and s may be < 0.

    In training the batch's own statistics normalise. A batch of one matrix a channel has no
    variance: ValueError. `running_mean` (*shape, in the group's coordinates) starts at the
    neutral element and moves on geodesics, `running_var` (*channels) starts at 1; both variances
    are biased (1/N), unlike torch's. In eval mode what does not depend on the input is kept.

    Assigning to `bias` (a matrix of the group) and `scale` sets them.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(
        self,
        group: LieGroup,
        shape: int | Sequence[int],
        momentum: float | None = 0.1,
        eps: float = 1e-5,
        karcher_steps: int | None = 1,
        *,
        differentiable: bool = False,
        trivialized: bool = True,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(group, shape, trivialized=trivialized, dtype=dtype, device=device)
        check_momentum(momentum)
        check_eps(eps)
        check_steps(karcher_steps)
        self.momentum, self.eps, self.karcher_steps = momentum, eps, karcher_steps
        self.differentiable = differentiable
        E = self.neutral(dtype, device).expand(self.shape).clone()
        self.register_buffer("running_mean", E)
        ones = torch.ones(self.shape[:-2], dtype=dtype, device=device)
        self.register_buffer("running_var", ones)
        self.register_buffer("num_batches_tracked", torch.zeros((), dtype=torch.long))

    @full_precision
    def forward(self, X: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
        """The normalised matrices. Errors name the element of X that is not in the group."""
        self.require_input(X, self.running_mean)
        Y = self.group.chart(X)
        if not self.training:
            statistics = self.running_mean, self.running_var
            return self.group.chart_inverse(
                self.kept_normalisation(statistics, self._normalisation)(Y)
            )
        pool = self._pool(X)
        M = mean(self.group, Y, pool, self.karcher_steps, differentiable=self.differentiable)
        polar, var = centre(self.group, Y, M, pool, differentiable=self.differentiable)
        self._track(Statistics(M.detach(), var.detach()))
        factor = self.scale_matrix() / torch.sqrt(var + self.eps)
        return self.group.chart_inverse(polar.moved(factor, self.bias_translation()))

    def _pool(self, X: Tensor) -> Pool:
        """Raises ValueError for batches that have no variance."""
        dims = self.pooled_dims(X)
        count = math.prod(X.shape[dim] for dim in dims)
        if count < 2:
            raise ValueError(
                "training needs at least 2 matrices a channel, got X of shape "
                f"{tuple(X.shape)} for channels {self.shape[:-2]}"
            )
        return ChannelPool(dims)

    def _normalisation(self) -> Normalisation:
        """Of the running statistics."""
        statistics = Statistics(self.running_mean, self.running_var[..., None, None])
        scale = self.scale_matrix()
        return Normalisation.of(self.group, statistics, self.bias_translation(), scale, self.eps)

    @torch.no_grad()
    def _track(self, batch: Statistics) -> None:
        self.num_batches_tracked += 1
        t = self.momentum
        if t is None:
            t = 1 / int(self.num_batches_tracked)
        M = batch.mean.reshape(self.running_mean.shape)
        self.running_mean.copy_(self.group.geodesic(self.running_mean, M, t))
        self.running_var.lerp_(batch.var.reshape(self.running_var.shape), t)

    def extra_repr(self) -> str:
        """Options."""
        return (
            f"{self.group}, {self.shape}, momentum={self.momentum}, eps={self.eps}, "
            f"karcher_steps={self.karcher_steps}, differentiable={self.differentiable}"
        )


def check_momentum(momentum: float | None, name: str = "momentum") -> None:
    """ValueError unless 0 <= momentum <= 1."""
    if momentum is not None and not 0 <= momentum <= 1:
        raise ValueError(f"{name} must be between 0 and 1, got {momentum}")


def check_eps(eps: float) -> None:
    """ValueError unless eps >= 0."""
    if not eps >= 0:
        raise ValueError(f"eps must be >= 0, got {eps}")


def check_steps(steps: int | None) -> None:
    """ValueError unless steps >= 1, or None."""
    if steps is not None and not steps >= 1:
        raise ValueError(f"karcher_steps must be >= 1 or None, got {steps}")
