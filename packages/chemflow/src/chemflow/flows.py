"""Flows of potentials: codes move along ∇φ(z, t), where φ obeys a partial differential equation.

Wei et al. 2024, section 3 and appendix A; the potentials are those of `potential_flows`, smooth in
z, so that every residual has its part in space (with the released code's ReLU the wave equation has
none and its speed is not trained). A flow is a module to be trained (`flow_task`) and a navigator.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64
from potential_flows import (
    MLPPotential,
    Potential,
    fokker_planck_residual,
    gradient,
    hamilton_jacobi_residual,
    heat_residual,
    hutchinson_laplacian,
    laplacian,
    wave_residual,
)
from torch import Tensor, nn
from torch.nn.functional import softplus

from .checkpoint import digest, read_checkpoint, write_checkpoint
from .pace import Pace
from .protocol import Surrogate

FORMAT = "chemflow flow 1"
FILE = "flow.safetensors"

Residual = Callable[[Potential, Tensor, Tensor], Tensor]
"""(φ, z, t) -> (*batch), zero where an equation holds."""


class PotentialFlow(nn.Module):
    """K potentials of one equation, of which one moves codes.

    Potentials are at rest at t = 0; step t of a path moves by the potential's time
    1 + (t mod `horizon`).

    Args:
        latent: D.
        flows: K; 1 for a property's flow, more for unsupervised ones.
        hidden: Width of the potentials.
        horizon: T_h, times that are trained.
        residual: (φ, z, t) -> (*batch), the equation's; None in subclasses, which have theirs.
        pace: Length of steps.
    """

    oracle_calls = 0

    def __init__(
        self,
        latent: int,
        flows: int = 1,
        *,
        hidden: int = 128,
        horizon: int = 10,
        residual: Residual | None = None,
        pace: Pace | None = None,
    ) -> None:
        super().__init__()
        if min(flows, horizon) < 1:
            raise ValueError(f"flows and horizon must be positive, got {flows} and {horizon}")
        self.sizes: dict[str, Any] = {
            "latent": latent,
            "flows": flows,
            "hidden": hidden,
            "horizon": horizon,
        }
        self.potentials = nn.ModuleList(MLPPotential(latent, hidden) for _ in range(flows))
        self.horizon = horizon
        self.pace = pace or Pace()
        self.index = 0
        """Which potential moves codes."""
        self.sign = 1.0
        """-1 moves against it."""
        self._residual = residual

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name}={value}" for name, value in self.sizes.items())
        weights = digest(self.state_dict())
        rest = f"pace={self.pace}, index={self.index}, sign={self.sign}, weights={weights}"
        return f"{type(self).__name__}({sizes}, {rest})"

    def potential(self, k: int) -> Potential:
        """φ^k."""
        return self.potentials[k]

    def residual(
        self, k: int, z: Float[Tensor, "*batch d"], t: Float[Tensor, "*#batch"]
    ) -> Float[Tensor, "*batch"]:
        """What φ^k leaves of the equation, row by row."""
        if self._residual is None:
            raise NotImplementedError("residual must be given where a flow is no subclass")
        return self._residual(self.potential(k), z, t)

    def velocity(
        self, k: int, z: Float[Tensor, "*batch d"], t: Float[Tensor, "*#batch"] | float
    ) -> Float[Tensor, "*batch d"]:
        """∇φ^k(z, t)."""
        return gradient(self.potential(k), z, t)

    @torch.no_grad()
    def step(
        self,
        z: Float[Tensor, "b d"],
        t: int,
        rows: Int64[Tensor, " b"] | None = None,  # noqa: ARG002
    ) -> Float[Tensor, "b d"]:
        """z + α ∇φ(z, 1 + t mod horizon)."""
        time = 1.0 + t % self.horizon
        return self.pace.move(z, self.sign * self.velocity(self.index, z, time))

    def reset(self) -> None:
        """Nothing to forget."""


class WaveFlow(PotentialFlow):
    """∂²φ/∂t² = c² Δφ (equation 9) with a positive speed for each potential, trained with it.

    Args:
        speed: c at the beginning.
    """

    def __init__(
        self,
        latent: int,
        flows: int = 1,
        *,
        hidden: int = 128,
        horizon: int = 10,
        speed: float = 1.0,
        pace: Pace | None = None,
    ) -> None:
        super().__init__(latent, flows, hidden=hidden, horizon=horizon, pace=pace)
        if not speed > 0:
            raise ValueError(f"speed must be positive, got {speed}")
        # A square root of the speed could reach zero, where the equation has no part in space.
        raw = torch.tensor(speed, dtype=torch.float64).expm1().log().to(torch.get_default_dtype())
        self.raw_speed = nn.Parameter(raw.repeat(flows))

    def speed(self, k: int) -> Float[Tensor, ""]:
        """c of potential k, in z per step."""
        return softplus(self.raw_speed[k])

    def residual(
        self, k: int, z: Float[Tensor, "*batch d"], t: Float[Tensor, "*#batch"]
    ) -> Float[Tensor, "*batch"]:
        """∂²φ/∂t² - c² Δφ."""
        return wave_residual(self.potential(k), z, t, speed=self.speed(k))


class HamiltonJacobiFlow(PotentialFlow):
    """∂φ/∂t + |∇φ|²/2 = 0 (equation 7): codes move along straight lines at constant speed."""

    def residual(
        self, k: int, z: Float[Tensor, "*batch d"], t: Float[Tensor, "*#batch"]
    ) -> Float[Tensor, "*batch"]:
        """∂φ/∂t + |∇φ|²/2."""
        return hamilton_jacobi_residual(self.potential(k), z, t)


class HeatFlow(PotentialFlow):
    """∂φ/∂t = κ Δφ (appendix A): a potential that smooths out.

    Args:
        diffusivity: κ, in z² per step.
    """

    def __init__(
        self,
        latent: int,
        flows: int = 1,
        *,
        hidden: int = 128,
        horizon: int = 10,
        diffusivity: float = 1.0,
        pace: Pace | None = None,
    ) -> None:
        super().__init__(latent, flows, hidden=hidden, horizon=horizon, pace=pace)
        if not diffusivity > 0:
            raise ValueError(f"diffusivity must be positive, got {diffusivity}")
        self.diffusivity = self.sizes["diffusivity"] = diffusivity

    def residual(
        self, k: int, z: Float[Tensor, "*batch d"], t: Float[Tensor, "*#batch"]
    ) -> Float[Tensor, "*batch"]:
        """∂φ/∂t - κ Δφ."""
        return heat_residual(self.potential(k), z, t, diffusivity=self.diffusivity)


class LogDensity:
    """log N(0, I) up to a constant, and a correction: u(z, t) = -|z|²/2 + φ(z, t)."""

    def __init__(self, correction: Potential) -> None:
        self.correction = correction

    def __call__(
        self, z: Float[Tensor, "*batch d"], t: Float[Tensor, "*batch"]
    ) -> Float[Tensor, "*batch"]:
        """u(z, t)."""
        return self.correction(z, t) - z.square().sum(-1) / 2


class FokkerPlanckFlow(PotentialFlow):
    """Particles that climb a property and diffuse: v = ∇A - D ∇log ρ (appendix A).

    The same density as of Langevin dynamics on A, carried by a velocity without noise. It begins as
    N(0, I), and the potential is what log ρ gains on that, so that it is zero at t = 0.

    Args:
        drift: Whose rise is A, in units of its spread; frozen.
        strength: A per unit of the property.
        diffusivity: D, in z² per step.
    """

    def __init__(
        self,
        latent: int,
        drift: Surrogate,
        *,
        hidden: int = 128,
        horizon: int = 10,
        strength: float = 1.0,
        diffusivity: float = 0.01,
        pace: Pace | None = None,
    ) -> None:
        super().__init__(latent, 1, hidden=hidden, horizon=horizon, pace=pace)
        if not diffusivity > 0:
            raise ValueError(f"diffusivity must be positive, got {diffusivity}")
        self._drift = (drift,)
        self.strength = self.sizes["strength"] = strength
        self.diffusivity = self.sizes["diffusivity"] = diffusivity

    def drift(self, z: Float[Tensor, "*batch d"], t: Tensor) -> Float[Tensor, "*batch"]:  # noqa: ARG002
        """A(z)."""
        return self.strength * self._drift[0].predict(z.flatten(0, -2)).view(z.shape[:-1])

    def log_density(self, k: int) -> LogDensity:
        """log ρ, up to a constant."""
        return LogDensity(self.potential(k))

    def residual(
        self, k: int, z: Float[Tensor, "*batch d"], t: Float[Tensor, "*#batch"]
    ) -> Float[Tensor, "*batch"]:
        """∂u/∂t + ∇u·∇A + ΔA - D (Δu + |∇u|²) of u = log ρ, with an unbiased estimate of ΔA.

        The estimate's variance adds to the square of the residual what does not depend on u.
        """
        return fokker_planck_residual(
            self.log_density(k),
            z,
            t,
            drift=self.drift,
            diffusivity=self.diffusivity,
            laplacian=_laplacian,
        )

    def velocity(
        self, k: int, z: Float[Tensor, "*batch d"], t: Float[Tensor, "*#batch"] | float
    ) -> Float[Tensor, "*batch d"]:
        """∇A - D ∇log ρ."""
        time = t if isinstance(t, Tensor) else z.new_tensor(t)
        climb = gradient(self.drift, z, time)
        return climb - self.diffusivity * (super().velocity(k, z, t) - z)


def _laplacian(u: Potential, z: Tensor, t: Tensor | float) -> Tensor:
    """In closed form of a density of ours, estimated of anything else."""
    if isinstance(u, LogDensity):
        return _laplacian(u.correction, z, t) - z.shape[-1]
    if isinstance(u, MLPPotential):
        return laplacian(u, z, t)
    return hutchinson_laplacian(u, z, t).value.detach()


EQUATIONS: dict[str, type[PotentialFlow]] = {
    "wave": WaveFlow,
    "hj": HamiltonJacobiFlow,
    "heat": HeatFlow,
    "fp": FokkerPlanckFlow,
}
"""Flows by the name of their equation."""


def save_flow(folder: Path, flow: PotentialFlow, about: dict[str, Any] | None = None) -> None:
    """Weights, and what the flow is built from.

    Raises ValueError for an equation that has no name here.
    """
    names = [name for name, kind in EQUATIONS.items() if kind is type(flow)]
    if not names:
        raise ValueError(f"flow must be of {list(EQUATIONS)}, got {type(flow).__name__}")
    held = {
        "equation": names[0],
        "sizes": flow.sizes,
        "pace": dataclasses.asdict(flow.pace),
        "index": flow.index,
        "about": about or {},
    }
    write_checkpoint(folder / FILE, FORMAT, held, flow.state_dict())


def load_flow(
    folder: Path, *, drift: Surrogate | None = None, device: torch.device | str = "cpu"
) -> tuple[PotentialFlow, dict[str, Any]]:
    """Frozen, with `about`. ValueError for any other file, or for a drift that is missing."""
    held, weights = read_checkpoint(folder / FILE, FORMAT)
    kind, sizes = EQUATIONS[held["equation"]], dict(held["sizes"])
    if kind is FokkerPlanckFlow:
        if drift is None:
            raise ValueError(f"drift must be given for the Fokker-Planck flow of {folder}")
        sizes["drift"] = drift
        del sizes["flows"]
    flow = kind(**sizes, pace=Pace(**held["pace"]))
    flow.load_state_dict(weights)
    flow.index = held["index"]
    return flow.to(device).eval().requires_grad_(False), held["about"]
