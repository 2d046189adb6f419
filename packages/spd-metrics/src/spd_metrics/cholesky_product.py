"""Metrics on Cholesky factors that are products of a Euclidean and a diagonal part.

The strictly lower part of a factor L is flat; its diagonal l > 0 carries l^(a-1) dl, which is
flat in (l^a - 1)/a: the logarithm for a = 0. This one geometry is the diagonal log metric of
Lin (2019), the diagonal power metric (a = θ) and the diagonal Bures-Wasserstein metric
(a = θ/2, weight 1/(4 M)) of Chen et al. (ICLR 2026, Table 1).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spd_metrics import cholesky_distance, inputs
from spd_metrics.charts import Chart, CholeskyFactor, Composed, Identity
from spd_metrics.geometry import Geometry, time_to_zero
from spd_metrics.metric import Pullback


def _diagonal(L: Tensor) -> Tensor:
    return L.diagonal(dim1=-2, dim2=-1)


def _assemble(lower: Tensor, diagonal: Tensor) -> Tensor:
    return lower.tril(-1) + torch.diag_embed(diagonal)


@dataclass(frozen=True)
class DiagonalPowerGeometry(Geometry):
    """Cholesky factors with ⟨⌊V⌋, ⌊W⌋⟩ + Σ_i weight_i l_i^(2a-2) v_i w_i.

    Everything goes through log l: quotients of powers are exp and expm1 of differences of
    logarithms, accurate for a -> 0 and free of overflow unless the result itself overflows.
    """

    a: float = 0.0
    weight: tuple[float, ...] = ()

    def weights(self, L: Tensor) -> Tensor | float:
        """One number for each row, or one for all."""
        n = L.shape[-1]
        if len(self.weight) == 1:
            return self.weight[0]
        if not self.weight:
            return 1.0
        if len(self.weight) != n:
            raise ValueError(f"weight must have 1 or n={n} numbers, got {len(self.weight)}")
        return torch.tensor(self.weight, dtype=L.dtype, device=L.device)

    def inner(self, X: Tensor, V: Tensor, W: Tensor) -> Tensor:
        slope = torch.exp((self.a - 1) * torch.log(_diagonal(X)))
        v, w = slope * _diagonal(V), slope * _diagonal(W)
        diagonal = (self.weights(X) * v * w).sum(-1)
        return (V.tril(-1) * W.tril(-1)).sum((-2, -1)) + diagonal

    def exp(self, X: Tensor, V: Tensor) -> Tensor:
        """l exp(v/l), or l (1 + a v/l)^(1/a), beside ⌊L⌋ + ⌊V⌋."""
        log_l = torch.log(_diagonal(X))
        rate = _diagonal(V) / _diagonal(X)
        moved = rate if self.a == 0 else torch.log1p(self.a * rate) / self.a
        return _assemble(X + V, torch.exp(log_l + moved))

    def log(self, X: Tensor, Y: Tensor) -> Tensor:
        """l (log k - log l), or l ((k/l)^a - 1)/a, beside ⌊K⌋ - ⌊L⌋."""
        ratio = torch.log(_diagonal(Y)) - torch.log(_diagonal(X))
        rate = ratio if self.a == 0 else torch.expm1(self.a * ratio) / self.a
        return _assemble(Y - X, _diagonal(X) * rate)

    def transport(self, X: Tensor, Y: Tensor, V: Tensor) -> Tensor:
        """(k/l)^(1-a) v beside ⌊V⌋."""
        ratio = torch.log(_diagonal(Y)) - torch.log(_diagonal(X))
        shape = torch.broadcast_shapes(X.shape, Y.shape, V.shape)
        return _assemble(V.expand(shape), torch.exp((1 - self.a) * ratio) * _diagonal(V))

    def sharp(self, X: Tensor, W: Tensor) -> Tensor:
        slope = torch.exp((1 - self.a) * torch.log(_diagonal(X)))
        return _assemble(W, slope * slope * _diagonal(W) / self.weights(X))

    def dist2(self, X: Tensor, Y: Tensor) -> Tensor:
        return cholesky_distance.squared(X, Y, self.a, self.weights(X))

    def dist_seen_through(self, chart: Chart, P: Tensor, Q: Tensor) -> Tensor:
        if isinstance(chart, Composed) and isinstance(chart.outer, CholeskyFactor):
            return self.dist_seen_through(chart.outer, chart.inner(P, "P"), chart.inner(Q, "Q"))
        if isinstance(chart, CholeskyFactor):
            return cholesky_distance.distance(P, Q, self.a, self.weights(P))
        return super().dist_seen_through(chart, P, Q)

    def mean(self, X: Tensor, weights: Tensor, tol: float | None = None) -> Tensor:  # noqa: ARG002
        """Σ w ⌊L⌋ beside exp(Σ w log l), or (Σ w l^a)^(1/a)."""
        log_l = torch.log(_diagonal(X))
        if self.a == 0:
            log_mean = (weights[..., None] * log_l).sum(-2)
        else:
            # Taken relative to the arithmetic mean of the logarithms, as l^a may overflow.
            centre = (weights[..., None] * log_l).sum(-2, keepdim=True)
            spread = torch.expm1(self.a * (log_l - centre))
            log_mean = centre[..., 0, :]
            log_mean = log_mean + torch.log1p((weights[..., None] * spread).sum(-2)) / self.a
        return _assemble((weights[..., None, None] * X).sum(-3), torch.exp(log_mean))

    def identity(self, X: Tensor) -> Tensor:
        return torch.eye(X.shape[-1], dtype=X.dtype, device=X.device)

    def geodesic(self, X: Tensor, Y: Tensor, t: Tensor | float) -> Tensor:
        """exp((1-t) log l + t log k), or ((1-t) l^a + t k^a)^(1/a), for t in [0, 1]."""
        log_l, log_k = torch.log(_diagonal(X)), torch.log(_diagonal(Y))
        s = t[..., 0] if isinstance(t, Tensor) else t
        moved = s * (log_k - log_l)
        if self.a != 0:
            moved = torch.log1p(s * torch.expm1(self.a * (log_k - log_l))) / self.a
        return _assemble((1 - t) * X + t * Y, torch.exp(log_l + moved))


@dataclass(frozen=True)
class IncompleteDiagonalPower(DiagonalPowerGeometry):
    """a != 0: geodesics end where a diagonal entry reaches 0 (infinity for a < 0)."""

    def exp_domain(self, X: Tensor, V: Tensor) -> Tensor:
        rate = self.a * _diagonal(V) / _diagonal(X)
        if rate.shape[-1] == 0:
            return super().exp_domain(X, V)
        return time_to_zero(rate.amin(-1))


def diagonal_power(a: float, weight: tuple[float, ...] = ()) -> DiagonalPowerGeometry:
    """The geometry of exponent a, incomplete unless a = 0."""
    if a == 0:
        return DiagonalPowerGeometry(0.0, weight)
    return IncompleteDiagonalPower(a, weight)


# --- metrics on Cholesky factors, and their pull-backs to SPD -------------------------------


@dataclass(frozen=True)
class CholeskyLog(Pullback):
    """The diagonal log metric: d² = ‖⌊L⌋ - ⌊K⌋‖² + ‖log diag L - log diag K‖² (Lin 2019).

    Flat and complete. Points are Cholesky factors, tangent vectors lower triangular.
    """

    @property
    def chart(self) -> Identity:
        """None: factors are taken as they are."""
        return Identity("lower")

    @property
    def geometry(self) -> DiagonalPowerGeometry:
        """a = 0."""
        return diagonal_power(0.0)


@dataclass(frozen=True)
class CholeskyPower(Pullback):
    """The diagonal power metric: d² = ‖⌊L⌋ - ⌊K⌋‖² + ‖diag(L)^θ - diag(K)^θ‖²/θ².

    Flat, incomplete for θ != 0, `CholeskyLog` for θ = 0. Points are Cholesky factors, tangent
    vectors lower triangular. Source: Chen et al., ICLR 2026, Table 1 (θ-DPM).

    Args:
        theta: Any number.
        domain: What exp does where 1 + θ v/l <= 0; see `Pullback`.
    """

    theta: float = 1.0
    domain: inputs.Domain = "raise"

    def __post_init__(self) -> None:
        inputs.check_theta(self.theta)
        inputs.check_domain(self.domain)

    @property
    def chart(self) -> Identity | CholeskyFactor:
        """None: factors are taken as they are."""
        return Identity("lower")

    @property
    def geometry(self) -> DiagonalPowerGeometry:
        """a = θ."""
        return diagonal_power(float(self.theta))


@dataclass(frozen=True)
class CholeskyBuresWasserstein(Pullback):
    """The diagonal Bures-Wasserstein metric, weighted by a positive diagonal M.

    d² = ‖⌊L⌋ - ⌊K⌋‖² + ‖M^-½ (diag(L)^θ/2 - diag(K)^θ/2)‖²/θ². Flat, incomplete for θ != 0.
    Geodesics, transport and means do not depend on M. Points are Cholesky factors, tangent
    vectors lower triangular. Source: Chen et al., ICLR 2026, Table 1 (θ, M-DBWM).

    Args:
        theta: Any number.
        weight: The diagonal of M: one positive number for each row, or one for all. A tensor
            is kept as numbers, so that metrics compare and hash.
        domain: What exp does where 1 + θ v/(2 l) <= 0; see `Pullback`.
    """

    theta: float = 1.0
    weight: float | Sequence[float] | Tensor = 1.0
    domain: inputs.Domain = "raise"

    def __post_init__(self) -> None:
        inputs.check_theta(self.theta)
        inputs.check_domain(self.domain)
        object.__setattr__(self, "weight", inputs.positive_numbers(self.weight, "weight"))

    @property
    def chart(self) -> Identity | CholeskyFactor:
        """None: factors are taken as they are."""
        return Identity("lower")

    @property
    def geometry(self) -> DiagonalPowerGeometry:
        """a = θ/2 with weights 1/(4 M)."""
        weight = inputs.positive_numbers(self.weight, "weight")
        numbers = weight if isinstance(weight, tuple) else (weight,)
        return diagonal_power(self.theta / 2, tuple(0.25 / m for m in numbers))


@dataclass(frozen=True)
class PowerCholesky(CholeskyPower):
    """The power-Cholesky metric: `CholeskyPower` of the Cholesky factors of SPD matrices.

    The order of the variables matters: neither rotations nor permutations are isometries.
    Source: Chen et al., ICLR 2026, Eq. 11 (θ-PCM).
    """

    @property
    def chart(self) -> CholeskyFactor:
        """The Cholesky factor."""
        return CholeskyFactor()


@dataclass(frozen=True)
class BuresWassersteinCholesky(CholeskyBuresWasserstein):
    """The Bures-Wasserstein-Cholesky metric: `CholeskyBuresWasserstein` of Cholesky factors.

    The order of the variables matters: neither rotations nor permutations are isometries.
    Source: Chen et al., ICLR 2026, Eq. 11 ((θ, M)-BWCM).
    """

    @property
    def chart(self) -> CholeskyFactor:
        """The Cholesky factor."""
        return CholeskyFactor()
