"""How far decoded flows are from true transformations, beside two baselines that do nothing."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from .data import ComposableSource, SequenceSource
from .flow import Flow, LatentFlow
from .model import FlowFactorVAE

Decoder = Callable[[Tensor], Tensor]
"""Latents (*batch, n) to images (*batch, C, H, W) in the units of the frames."""


@dataclass(frozen=True)
class EquivarianceError:
    """‖decode(z_t) - x_t‖₁ over channels and pixels, a mean over sequences.

    `per_step` is for t = 1, 2, …; `total` is the sum over the steps that count, `per_pixel` the
    total over steps and values of an image.
    """

    per_step: Float[Tensor, " steps"]
    total: float
    per_pixel: float

    def __float__(self) -> float:
        """The total."""
        return self.total


def equivariance_error(
    decoder: Decoder,
    flow: LatentFlow,
    z0: Float[Tensor, "batch n"],
    frames: Float[Tensor, "batch frames c h w"],
    steps: Literal["all", "official"] = "all",
    k: Flow | Sequence[Flow] = 0,
) -> EquivarianceError:
    """Σ_t ‖decoder(z_t) - x_t‖₁ with z_t moved from z_0 by flow k.

    Args:
        decoder: Latents to images, in the units of the frames.
        flow: Moves the latents.
        z0: Latents of the first frames.
        frames: x_0 … x_T; T >= 1, and 2 for "official".
        steps: "all" counts t = 1 … T; "official" leaves out the last, as the released
            evaluation does.
        k: Which flow, as in `LatentFlow.rollout`.
    """
    count = frames.shape[1] - 1
    if steps not in ("all", "official"):
        raise ValueError(f"steps must be 'all' or 'official', got {steps!r}")
    if count < 1 + (steps == "official"):
        raise ValueError(
            f"frames must hold x_0 and {'two' if steps == 'official' else 'one'} more, "
            f"got {tuple(frames.shape)}"
        )
    path = flow.rollout(z0, k, count)
    return of_frames(decoder(path[1:]).transpose(0, 1), frames, steps)


def of_frames(
    shown: Float[Tensor, "batch steps c h w"],
    frames: Float[Tensor, "batch frames c h w"],
    steps: Literal["all", "official"] = "all",
) -> EquivarianceError:
    """The same of any images shown for x_1 … x_T."""
    per_step = (shown - frames[:, 1:]).abs().sum((-3, -2, -1)).mean(0)
    counted = per_step[:-1] if steps == "official" else per_step
    total = counted.sum().item()
    return EquivarianceError(per_step, total, total / (len(counted) * frames[0, 0].numel()))


@dataclass(frozen=True)
class Comparison:
    """Errors of the flow and of two answers that need none, on the same sequences.

    `repeat` shows x_0 for every frame; `reencode` encodes and decodes each true frame;
    `reconstruction` is ‖decode(z_0) - x_0‖₁.
    """

    flow: EquivarianceError
    repeat: EquivarianceError
    reencode: EquivarianceError
    reconstruction: float


@torch.no_grad()
def compare(
    model: FlowFactorVAE,
    source: SequenceSource,
    k: int,
    *,
    flow: int | None = None,
    rows: Tensor | None = None,
    steps: int | None = None,
) -> Comparison:
    """The model's flow beside the baselines, z_0 the posterior mean.

    Args:
        source: Of held-out sequences.
        k: The transformation.
        flow: The model's flow for it, by default k; another where flows were found without
            labels.
        rows: Which images; all by default.
        steps: T, also beyond that of training (extrapolation).
    """
    rows = torch.arange(source.size) if rows is None else rows
    moved = k if flow is None else flow
    T = source.steps if steps is None else steps
    return _compare(
        model,
        rows,
        lambda chunk: source.frames(chunk, torch.full((len(chunk),), k), T),
        lambda z: model.flow.rollout(z, moved, T),
    )


@torch.no_grad()
def compare_schedule(
    model: FlowFactorVAE,
    source: ComposableSource,
    schedule: Sequence[int],
    *,
    restart: bool,
    rows: Tensor | None = None,
) -> Comparison:
    """`compare` where the transformation changes on the way: one of them a step.

    Args:
        schedule: [1, 1, 0, 0] rotates twice, then scales the result twice.
        restart: Whether each flow counts time from its own beginning (composition of whole
            flows), or time goes on (switching inside a sequence).
    """
    rows = torch.arange(source.size) if rows is None else rows

    def path(z: Tensor) -> Tensor:
        if not restart:
            return model.flow.rollout(z, list(schedule), len(schedule))
        found = [z[None]]
        for k, run in itertools.groupby(schedule):
            found.append(model.flow.rollout(found[-1][-1], k, len(list(run)))[1:])
        return torch.cat(found)

    return _compare(model, rows, lambda chunk: source.composed(chunk, schedule), path)


def _compare(
    model: FlowFactorVAE,
    rows: Tensor,
    frames_of: Callable[[Tensor], Tensor],
    path_of: Callable[[Tensor], Tensor],
    batch: int = 250,
) -> Comparison:
    sums: list[Tensor] = []
    size = 1
    like = next(model.parameters())
    for chunk in rows.split(batch):
        frames = frames_of(chunk).to(like)
        size = frames[0, 0].numel()
        mean, _ = model.encode(frames[:, 0])
        shown = model.decode(path_of(mean)).transpose(0, 1)
        again = model.decode(model.encode(frames)[0])
        errors = [
            (images - frames).abs().sum((-3, -2, -1)).sum(0)
            for images in (shown, frames[:, :1], again)
        ]
        sums.append(torch.stack(errors).double().cpu())
    flow, repeat, reencode = torch.stack(sums).sum(0) / len(rows)

    def error(per_step: Tensor) -> EquivarianceError:
        total = per_step[1:].sum().item()
        return EquivarianceError(per_step[1:], total, total / ((len(per_step) - 1) * size))

    return Comparison(error(flow), error(repeat), error(reencode), flow[0].item())


def commutator(
    flow: LatentFlow, z: Float[Tensor, "*batch n"], a: int, b: int, steps: int
) -> Float[Tensor, "*batch"]:
    """‖φ_a φ_b z - φ_b φ_a z‖ over the mean length of the two displacements.

    φ_k is flow k for `steps` steps at times 1 … steps. 0 where the flows commute, also where
    neither moves.
    """
    ends = [
        flow.rollout(flow.rollout(z, first, steps)[-1], second, steps)[-1]
        for first, second in ((b, a), (a, b))
    ]
    length = ((ends[0] - z).norm(dim=-1) + (ends[1] - z).norm(dim=-1)) / 2
    gap = (ends[0] - ends[1]).norm(dim=-1)
    return torch.where(length > 0, gap / length.where(length > 0, 1.0), 0.0)
