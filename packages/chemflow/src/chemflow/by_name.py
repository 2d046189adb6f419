"""Navigators by the names that the command and reports use."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from .flows import load_flow
from .navigators import (
    AdamAscent,
    Evolution,
    GradientFlow,
    Langevin,
    LinearDirection,
    RandomCoordinate,
    RandomDirection,
)
from .pace import Norm, Pace
from .protocol import LatentModel, Navigator, Surrogate

NAVIGATORS = (
    "gradient", "langevin", "wave", "hj", "heat", "fp", "random", "random-1d", "linear", "adam",
    "evolutionary",
)  # fmt: skip


def make_navigator(
    name: str,
    *,
    model: LatentModel,
    surrogate: Surrogate | None = None,
    flow: Path | None = None,
    step_size: float = 0.1,
    norm: Norm = "unit",
    radius: float | None = None,
    seed: int = 0,
    minimise: bool = False,
    direction: Float[Tensor, " d"] | None = None,
    oracle: Callable[[Sequence[str]], Sequence[float]] | None = None,
    device: torch.device | str = "cpu",
) -> Navigator:
    """A navigator of `NAVIGATORS`.

    A flow was trained towards its property, up or down; `minimise` does not turn it round again.

    Args:
        name: See there.
        model: Decodes, for evolution.
        surrogate: For gradient, langevin, adam and fp.
        flow: Folder of a trained flow, for wave, hj, heat and fp.
        step_size, norm, radius: See `Pace`.
        seed: Of what is drawn.
        minimise: The property is to fall.
        direction: For linear.
        oracle: For evolutionary.
        device: Where a flow is read to.

    Raises ValueError for another name, or for something missing.
    """
    pace = Pace(step_size, norm, radius)
    if name in ("random", "random-1d"):
        kind = RandomDirection if name == "random" else RandomCoordinate
        return kind(pace, seed=seed)
    if name == "linear":
        if direction is None:
            raise ValueError(f"direction must be given for {name!r}")
        return LinearDirection(direction, pace, minimise=minimise)
    if name == "evolutionary":
        if oracle is None:
            raise ValueError(f"oracle must be given for {name!r}")
        return Evolution(model, oracle, pace, lead=surrogate, minimise=minimise, seed=seed)
    if name in ("wave", "hj", "heat", "fp"):
        if flow is None:
            raise ValueError(f"flow must be given for {name!r}")
        loaded, about = load_flow(flow, drift=surrogate, device=device)
        if about.get("equation", name) != name:
            raise ValueError(f"flow must be of {name!r}, {flow} is of {about['equation']!r}")
        loaded.pace = pace
        return loaded
    if name not in NAVIGATORS:
        raise ValueError(f"navigator must be one of {', '.join(NAVIGATORS)}, got {name!r}")
    if surrogate is None:
        raise ValueError(f"surrogate must be given for {name!r}")
    if name == "gradient":
        return GradientFlow(surrogate, pace, minimise=minimise)
    if name == "langevin":
        return Langevin(surrogate, pace, minimise=minimise, seed=seed)
    return AdamAscent(surrogate, pace, minimise=minimise)
