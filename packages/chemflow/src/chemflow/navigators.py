"""Navigators: what moves codes one step, z, t -> z.

Wei et al. 2024, algorithm 2 and section 6 of ours: gradient flow, Langevin dynamics, random
directions, the linear direction of ChemSpace (Du et al. 2023), Adam on codes (LIMO, Eckmann et al.
2022) and evolution. Flows of potentials are navigators too: see `flows`. None keeps a graph, and a
row moves as it would alone.
"""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from .draws import normal_rows
from .pace import Pace, row_numbers, told, unit
from .protocol import LatentModel, Surrogate

_DIRECTION, _NOISE, _OFFSPRING = 16, 17, 18
"""What draws of one seed are for, beside those of other parts."""


def ascent(surrogate: Surrogate, z: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
    """∇_z of the surrogate, each row's own, without a graph left."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        return torch.autograd.grad(surrogate.predict(z).sum(), z)[0]


class _Stateless:
    """A navigator that carries nothing from step to step and asks no oracle."""

    oracle_calls = 0

    def reset(self) -> None:
        """Nothing to forget."""

    def __repr__(self) -> str:
        return told(self)


class GradientFlow(_Stateless):
    """Along the gradient of a surrogate, or against it.

    Args:
        surrogate: What is to rise.
        pace: Length of steps.
        minimise: Fall instead.
        caution: κ of the gradient of mean - κ std over the ensemble: away from where its members
            disagree. A fall takes mean + κ std.
    """

    def __init__(
        self,
        surrogate: Surrogate,
        pace: Pace | None = None,
        *,
        minimise: bool = False,
        caution: float = 0.0,
    ) -> None:
        if not caution >= 0:
            raise ValueError(f"caution must not be negative, got {caution}")
        self.surrogate = surrogate
        self.pace = pace or Pace()
        self.sign = -1.0 if minimise else 1.0
        self.caution = caution

    def velocity(self, z: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        """± ∇h(z)."""
        if not self.caution:
            return self.sign * ascent(self.surrogate, z)
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            value = self.sign * self.surrogate.predict(z) - self.caution * self.surrogate.std(z)
            return torch.autograd.grad(value.sum(), z)[0]

    @torch.no_grad()
    def step(
        self,
        z: Float[Tensor, "b d"],
        t: int,  # noqa: ARG002
        rows: Int64[Tensor, " b"] | None = None,  # noqa: ARG002
    ) -> Float[Tensor, "b d"]:
        """z + α ∇h(z)."""
        return self.pace.move(z, self.velocity(z))


class Langevin(GradientFlow):
    """z + α ∇h(z) + β √(2α) ξ, ξ ~ N(0, I): Langevin dynamics, of which for β = 1 and small α the
    density is exp(h) (the Fokker-Planck equation's stationary state).

    In unit norm the velocity is the gradient's direction, and the whole step has length α.

    Args:
        noise: β.
        seed: Of ξ, which is a function of (seed, row, t).
    """

    def __init__(
        self,
        surrogate: Surrogate,
        pace: Pace | None = None,
        *,
        noise: float = 0.1,
        seed: int = 0,
        minimise: bool = False,
        caution: float = 0.0,
    ) -> None:
        super().__init__(surrogate, pace, minimise=minimise, caution=caution)
        if not noise >= 0:
            raise ValueError(f"noise must not be negative, got {noise}")
        self.noise = noise
        self.seed = seed

    @torch.no_grad()
    def step(
        self, z: Float[Tensor, "b d"], t: int, rows: Int64[Tensor, " b"] | None = None
    ) -> Float[Tensor, "b d"]:
        """See the class."""
        velocity = self.velocity(z)
        if self.pace.norm == "unit":
            velocity = unit(velocity)
        rows = row_numbers(z, rows)
        xi = normal_rows(self.seed, rows, z.shape[1], t, _NOISE).to(z)
        return self.pace.move(z, velocity, self.noise * math.sqrt(2 * self.pace.step) * xi)


class RandomDirection(_Stateless):
    """Along one random direction of the whole run.

    In relative norm the direction is N(0, I), about √D long, as in the released code, where it
    makes this baseline's path that much longer than any other's.

    Args:
        pace: Length of steps.
        seed: Of the direction.
        own: Each row has a direction of its own, a function of (seed, row).
    """

    def __init__(self, pace: Pace | None = None, *, seed: int = 0, own: bool = False) -> None:
        self.pace = pace or Pace()
        self.seed = seed
        self.own = own

    @torch.no_grad()
    def step(
        self,
        z: Float[Tensor, "b d"],
        t: int,  # noqa: ARG002
        rows: Int64[Tensor, " b"] | None = None,
    ) -> Float[Tensor, "b d"]:
        """z + α v."""
        rows = row_numbers(z, rows)
        chosen = rows if self.own else torch.zeros(1, dtype=torch.int64, device=z.device)
        v = normal_rows(self.seed, chosen, z.shape[1], purpose=_DIRECTION).to(z)
        return self.pace.move(z, v.expand_as(z))


class RandomCoordinate(_Stateless):
    """Along one coordinate, up or down, the same for the whole run ("random 1-D").

    Args:
        pace: Length of steps.
        seed: Of the coordinate and its sign.
    """

    def __init__(self, pace: Pace | None = None, *, seed: int = 0) -> None:
        self.pace = pace or Pace()
        self.seed = seed

    @torch.no_grad()
    def step(
        self,
        z: Float[Tensor, "b d"],
        t: int,  # noqa: ARG002
        rows: Int64[Tensor, " b"] | None = None,  # noqa: ARG002
    ) -> Float[Tensor, "b d"]:
        """z ± α e_i."""
        one = torch.zeros(1, dtype=torch.int64, device=z.device)
        v = normal_rows(self.seed, one, z.shape[1], purpose=_DIRECTION)[0]
        i = v.abs().argmax()
        e = z.new_zeros(1, z.shape[1])
        e[0, i] = v[i].sign()
        return self.pace.move(z, e.expand_as(z))


class LinearDirection(_Stateless):
    """Along one given direction: ChemSpace's, a top Jacobian direction, a user's.

    Args:
        direction: (D,), in relative norm as long as it is.
        pace: Length of steps.
        minimise: Against it.
    """

    def __init__(
        self, direction: Float[Tensor, " d"], pace: Pace | None = None, *, minimise: bool = False
    ) -> None:
        if not bool(direction.isfinite().all()) or not bool(direction.any()):
            raise ValueError("direction must be finite and not all zeros")
        self.direction = -direction if minimise else direction
        self.pace = pace or Pace()

    @torch.no_grad()
    def step(
        self,
        z: Float[Tensor, "b d"],
        t: int,  # noqa: ARG002
        rows: Int64[Tensor, " b"] | None = None,  # noqa: ARG002
    ) -> Float[Tensor, "b d"]:
        """z + α v."""
        if z.shape[-1:] != self.direction.shape:
            raise ValueError(f"z must be (b, {len(self.direction)}), got {tuple(z.shape)}")
        return self.pace.move(z, self.direction.to(z).expand_as(z))


class AdamAscent:
    """Adam (Kingma and Ba 2015) on codes, as LIMO does.

    Moments are kept for each row by its number. In relative norm these are Adam's steps with
    learning rate α, whose first is α √D long; in unit norm their direction.

    Args:
        surrogate: What is to rise.
        pace: Length of steps.
        minimise: Fall instead.
        betas: Decay of the moments.
    """

    oracle_calls = 0

    def __init__(
        self,
        surrogate: Surrogate,
        pace: Pace | None = None,
        *,
        minimise: bool = False,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        self.surrogate = surrogate
        self.pace = pace or Pace()
        self.sign = -1.0 if minimise else 1.0
        self.betas = betas
        self.eps = eps
        self.reset()

    def __repr__(self) -> str:
        return told(self)

    def reset(self) -> None:
        """Forgets all moments."""
        self._place = torch.empty(0, dtype=torch.int64)
        self._moments: tuple[Tensor, Tensor, Tensor] | None = None

    @torch.no_grad()
    def step(
        self,
        z: Float[Tensor, "b d"],
        t: int,  # noqa: ARG002
        rows: Int64[Tensor, " b"] | None = None,
    ) -> Float[Tensor, "b d"]:
        """z + α m̂ / (√v̂ + ε)."""
        gradient = self.sign * ascent(self.surrogate, z)
        place = self._places(row_numbers(z, rows), z)
        assert self._moments is not None
        first, second, count = (kept[place] for kept in self._moments)
        one, two = self.betas
        count = count + 1
        first = torch.lerp(gradient, first, one)
        second = torch.lerp(gradient.square(), second, two)
        for kept, value in zip(self._moments, (first, second, count), strict=True):
            kept[place] = value
        rooted = (second / (1 - two**count)).sqrt() + self.eps
        return self.pace.move(z, first / (1 - one**count) / rooted)

    def _places(self, rows: Tensor, z: Tensor) -> Tensor:
        """Where the moments of these rows are; new rows start with none."""
        if self._moments is None:
            self._place = rows.new_empty(0)
            self._moments = (
                z.new_empty(0, z.shape[1]),
                z.new_empty(0, z.shape[1]),
                z.new_empty(0, 1),
            )
        new = rows[~torch.isin(rows, self._place)].unique()
        if len(new):
            self._place = torch.cat((self._place, new))
            self._moments = tuple(  # ty: ignore[invalid-assignment]
                torch.cat((kept, kept.new_zeros(len(new), kept.shape[1]))) for kept in self._moments
            )
        order = self._place.argsort()
        return order[torch.searchsorted(self._place[order], rows)]


class Evolution:
    """A (1, λ) evolution strategy for each row: λ random steps, of which the best is taken.

    Every offspring is decoded and scored by the oracle, and counted; one that is no molecule
    (NaN) is never chosen while another is one. Rows are lineages of their own, so that they do
    not depend on the batch.

    Args:
        model: Decodes.
        oracle: SMILES to values, NaN where there is none.
        pace: Length of steps.
        offspring: λ.
        lead: A direction added to the random ones in units of their length, as the paper's
            algorithm 3 mixes them: a surrogate whose gradient it is, or None.
        minimise: Take the lowest.
        seed: Of the steps, a function of (seed, row, t).
    """

    def __init__(
        self,
        model: LatentModel,
        oracle: Callable[[Sequence[str]], "Sequence[float]"],
        pace: Pace | None = None,
        *,
        offspring: int = 4,
        lead: Surrogate | None = None,
        minimise: bool = False,
        seed: int = 0,
    ) -> None:
        if offspring < 1:
            raise ValueError(f"offspring must be at least 1, got {offspring}")
        self.model = model
        self.oracle = oracle
        self.pace = pace or Pace()
        self.offspring = offspring
        self.lead = lead
        self.sign = -1.0 if minimise else 1.0
        self.seed = seed
        self.oracle_calls = 0

    def __repr__(self) -> str:
        return told(self)

    def reset(self) -> None:
        """Nothing to forget: the count of calls is of the whole run."""

    @torch.no_grad()
    def step(
        self, z: Float[Tensor, "b d"], t: int, rows: Int64[Tensor, " b"] | None = None
    ) -> Float[Tensor, "b d"]:
        """The best of λ codes at distance α."""
        rows, (b, d), n = row_numbers(z, rows), z.shape, self.offspring
        draws = normal_rows(self.seed, rows, n * d, t, _OFFSPRING).to(z).view(b, n, d)
        directions = unit(draws)
        if self.lead is not None:
            directions = directions + self.sign * unit(ascent(self.lead, z))[:, None]
        parents = z[:, None].expand(b, n, d).reshape(b * n, d)
        young = self.pace.move(parents, directions.reshape(b * n, d))
        values = torch.as_tensor(self.oracle(self.model.decode_smiles(young)), dtype=torch.float64)
        self.oracle_calls += b * n
        values = (self.sign * values).nan_to_num(nan=-math.inf).view(b, n)
        best = values.argmax(1).to(z.device)
        return young.view(b, n, d)[torch.arange(b, device=z.device), best]
