"""Geometry: what a chart maps onto. Operations in coordinates, on input that was checked.

A geometry knows points X and tangent vectors V in its own coordinates. Metrics on SPD and
Cholesky matrices are pull-backs of a few geometries (see `metric.Pullback`).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from spd_metrics.charts import Chart

# Entries that a table of pairwise differences holds at once.
_TILE = 1 << 24


def safe_sqrt(x: Tensor) -> Tensor:
    """√x with derivative 0 at x = 0: the norm of a vector that is exactly zero."""
    zero = x == 0
    return torch.where(zero, 0, torch.sqrt(torch.where(zero, 1, x)))


def time_to_zero(rate: Tensor) -> Tensor:
    """The t > 0 at which 1 + t rate is 0; inf for rate >= 0."""
    ending = rate < 0
    ends = torch.where(ending, -1 / torch.where(ending, rate, -1), torch.inf)
    return torch.where(rate.isnan(), torch.nan, ends)


class Geometry:
    """A Riemannian manifold in coordinates `(*batch, n, n)`.

    Subclasses give `inner`, `exp`, `log`, `transport`, `sharp`, `dist2`, `mean` and
    `identity`; the rest follows from these. A geometry is complete unless it overrides
    `exp_domain`.
    """

    def inner(self, X: Tensor, V: Tensor, W: Tensor) -> Tensor:
        """⟨V, W⟩_X, one number a batch element."""
        raise NotImplementedError

    def exp(self, X: Tensor, V: Tensor) -> Tensor:
        """The end of the geodesic that leaves X with velocity V."""
        raise NotImplementedError

    def log(self, X: Tensor, Y: Tensor) -> Tensor:
        """The velocity at X of the geodesic that is at Y at time 1."""
        raise NotImplementedError

    def transport(self, X: Tensor, Y: Tensor, V: Tensor) -> Tensor:
        """Parallel transport of V from X to Y along their geodesic."""
        raise NotImplementedError

    def sharp(self, X: Tensor, W: Tensor) -> Tensor:
        """The tangent vector V with ⟨V, U⟩_X = Σ W ∘ U for every U: a gradient made a vector."""
        raise NotImplementedError

    def dist2(self, X: Tensor, Y: Tensor) -> Tensor:
        """Squared distance, with derivative 0 at X = Y."""
        raise NotImplementedError

    def dist_seen_through(self, chart: Chart, P: Tensor, Q: Tensor) -> Tensor:
        """d(φP, φQ), with derivative 0 at P = Q; a geometry may know a shorter way for a chart."""
        return safe_sqrt(self.dist2(chart(P, "P"), chart(Q, "Q")))

    def mean(
        self,
        X: Float[Tensor, "*batch b n n"],
        weights: Float[Tensor, "*batch b"],
        tol: float | None = None,
    ) -> Tensor:
        """Fréchet mean over dimension -3; `weights` sum to one. `tol` is for iterations."""
        raise NotImplementedError

    def identity(self, X: Tensor) -> Tensor:
        """The image (n, n) of the identity matrix, like X in dtype and device."""
        raise NotImplementedError

    def exp_domain(self, X: Tensor, V: Tensor) -> Tensor:
        """The time at which the geodesic along V ends; inf if it never does."""
        batch = torch.broadcast_shapes(X.shape[:-2], V.shape[:-2])
        return torch.full(batch, torch.inf, dtype=X.dtype, device=X.device)

    def geodesic(self, X: Tensor, Y: Tensor, t: Tensor | float) -> Tensor:
        """The geodesic from X to Y at time t, a number or (*batch, 1, 1)."""
        return self.exp(X, t * self.log(X, Y))

    def pairwise_dist2(
        self, X: Float[Tensor, "*batch p n n"], Y: Float[Tensor, "*batch q n n"]
    ) -> Float[Tensor, "*batch p q"]:
        """Squared distances between all of X and all of Y."""
        rows = max(1, _TILE // max(1, Y.numel()))
        tiles = [
            self.dist2(tile[..., :, None, :, :], Y[..., None, :, :, :])
            for tile in X.split(rows, dim=-3)
        ]
        return torch.cat(tiles, dim=-2)

    def gyro_add(self, X: Tensor, Y: Tensor) -> tuple[Tensor, Tensor]:
        """Where X ⊕ Y = exp_X(transport_{E→X} log_E Y) starts and its velocity there."""
        E = self.identity(X)
        return X, self.transport(E, X, self.log(E, Y))
