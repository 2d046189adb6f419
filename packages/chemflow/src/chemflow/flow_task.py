"""Training of potentials: an equation, rest at the beginning, and where codes should go.

Wei et al. 2024, equations 7 to 14. Residuals, rest and guidance are each row's own, and means over
rows: a batch that holds every row twice has the same loss.
"""

import dataclasses
from typing import Literal

import torch
from jaxtyping import Float, Int64
from potential_flows import initial_speed, initial_value_residual, mean_square
from torch import Tensor, nn
from torch.func import jvp

from .flows import FokkerPlanckFlow, PotentialFlow
from .navigators import ascent
from .pace import unit
from .protocol import Surrogate
from .surrogate import Decodes
from .training import Losses, Task


@dataclasses.dataclass(frozen=True)
class FlowObjective:
    """How much each part counts.

    Args:
        equation: Of the residual's mean square.
        rest: Of |∇φ(z_0, 0)|², and with Fokker-Planck of φ(z_0, 0)².
        guidance: Of where codes should go.
        telling: Of telling flows apart by what they do to molecules, with several flows.
        times: Of a path, drawn anew at each update, at which the residual is asked; all if it is
            as large as the horizon.
        guide: "direction" looks at the direction of ∇φ only and is bounded: the cosine with ∇h, or
            |J v|² / |v|². "paper" is -sign(d) d² with d = ∇h·∇φ (equation 11), or -|J ∇φ|²
            (equation 13), which nothing bounds but the residual.
    """

    equation: float = 1.0
    rest: float = 1.0
    guidance: float = 1.0
    telling: float = 1.0
    times: int = 2
    guide: Literal["direction", "paper"] = "direction"

    def __post_init__(self) -> None:
        if self.times < 1:
            raise ValueError(f"times must be at least 1, got {self.times}")
        if self.guide not in ("direction", "paper"):
            raise ValueError(f"guide must be 'direction' or 'paper', got {self.guide!r}")


class FlowTask(Task):
    """A flow on paths of its own from given codes.

    With a surrogate the flow is supervised: it goes where the surrogate says that the property
    rises. Without one it goes where the molecule changes most, and if there are several flows,
    each in a way of its own, which a classifier recognises.

    Args:
        flow: Trained in place; its pace is that of the paths.
        model: Decodes; frozen.
        codes: z_0, (n, D).
        surrogate: Of the property; None for unsupervised training.
        minimise: The property is to fall.
        objective: Weights.
    """

    def __init__(
        self,
        flow: PotentialFlow,
        model: Decodes,
        codes: Float[Tensor, "n d"],
        surrogate: Surrogate | None = None,
        *,
        minimise: bool = False,
        objective: FlowObjective | None = None,
    ) -> None:
        super().__init__()
        if codes.shape[1:] != (flow.sizes["latent"],):
            raise ValueError(f"codes must be (n, {flow.sizes['latent']}), got {tuple(codes.shape)}")
        self.size = len(codes)
        self.flow = flow
        # In tuples: what guides a flow is not trained with it and stays in evaluation mode.
        self._model = (model,)
        self._surrogate = (surrogate,)
        self.codes = codes
        self.sign = -1.0 if minimise else 1.0
        self.objective = objective or FlowObjective()
        self.classifier: nn.Module | None = None
        flows = len(flow.potentials)
        if surrogate is None and flows > 1:
            with torch.no_grad():
                width = model.probabilities(codes[:1])[0].numel()
            self.classifier = nn.Sequential(
                nn.Linear(2 * width, 512), nn.SiLU(), nn.Linear(512, 256), nn.SiLU(),
                nn.Linear(256, flows),
            )  # fmt: skip

    def settings(self) -> dict[str, object]:
        """What the objective is."""
        return {"objective": dataclasses.asdict(self.objective), "sign": self.sign}

    def loss(self, rows: Int64[Tensor, " b"], generator: torch.Generator, share: float) -> Losses:  # noqa: ARG002
        """Of one potential and one time of guidance, both drawn."""
        flow, weight = self.flow, self.objective
        k, j, mirrored = (
            int(torch.randint(n, (), generator=generator))
            for n in (len(flow.potentials), flow.horizon, 2)
        )
        path = self.path(k, self.codes[rows])
        times = torch.arange(1.0, flow.horizon + 1).to(path)[:, None]
        asked = torch.randperm(flow.horizon, generator=generator)[: weight.times]
        asked = asked.to(path.device)
        residual = flow.residual(k, path[asked], times[asked])
        parts = {
            "equation": weight.equation * mean_square(residual),
            "rest": weight.rest * self._beginning(k, path[0]),
        }
        if not isinstance(flow, FokkerPlanckFlow):
            # It says where the velocity should point, not where the points should be.
            here = path[j].detach()
            velocity = flow.velocity(k, here, times[j].expand(len(here)))
            parts["guidance"] = weight.guidance * self._guidance(here, velocity)
        if self.classifier is not None:
            parts["telling"] = weight.telling * self._telling(k, path, j, bool(mirrored))
        return Losses(
            torch.stack(list(parts.values())).sum(), {n: p.detach() for n, p in parts.items()}
        )

    def path(self, k: int, z: Float[Tensor, "b d"]) -> Float[Tensor, "steps b d"]:
        """z_0 … z_T of potential k, with the graph of all steps."""
        path = [z]
        for i in range(self.flow.horizon):
            velocity = self.flow.velocity(k, path[-1], float(i + 1))
            path.append(self.flow.pace.move(path[-1], velocity))
        return torch.stack(path)

    def _beginning(self, k: int, z: Tensor) -> Tensor:
        u = self.flow.potential(k)
        if isinstance(self.flow, FokkerPlanckFlow):
            return mean_square(initial_value_residual(u, z, torch.zeros_like(z[:, 0])))
        return mean_square(initial_speed(u, z))

    def _guidance(self, z: Tensor, velocity: Tensor) -> Tensor:
        surrogate, model = self._surrogate[0], self._model[0]
        direction = self.objective.guide == "direction"
        if surrogate is not None:
            slope = self.sign * ascent(surrogate, z)
            if direction:
                return -(unit(slope) * unit(velocity)).sum(-1).mean()
            d = (slope * velocity).sum(-1)
            return -(d * d.abs()).mean()
        v = unit(velocity) if direction else velocity
        response = jvp(model.probabilities, (z,), (v,))[1]
        return -response.flatten(1).square().sum(-1).mean()

    def _telling(self, k: int, path: Tensor, j: int, mirrored: bool) -> Tensor:
        assert self.classifier is not None
        before, after = path[j], path[j + 1]
        if mirrored:
            before, after = 2 * path[0] - after, 2 * path[0] - before
        first, second = (self._model[0].probabilities(z).flatten(1) for z in (before, after))
        # What changed is small beside what stayed, and says it all.
        scores = self.classifier(torch.cat((first, unit(second - first)), -1))
        return nn.functional.cross_entropy(
            scores, torch.full((len(scores),), k, device=scores.device)
        )
