"""What flows are compared with: VAEs with linear directions, beta-VAE, SlowVAE, PoFlow.

All have the backbone of the flow model. They train an ordinary VAE on the frames of sequences
as single images (SlowVAE: on neighbouring pairs), and move its latents afterwards: along one
direction a transformation, or by potentials that obey the wave equation (PoFlow).
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .data import SequenceSource
from .elbo import Objective
from .flow import LatentFlow
from .model import FlowFactorVAE
from .posterior import sample_gaussian, standard_normal_kl
from .prior import HeatPrior
from .train import Options, Trainer

Kind = Literal["vae", "beta-vae", "slow-vae"]


class LinearPotential(nn.Module):
    """u(z, t) = w·z, whose flow adds w at each step."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.direction = nn.Parameter(torch.zeros(dim))

    def forward(
        self, z: Float[Tensor, "*batch n"], _t: Float[Tensor, "*#batch"] | float
    ) -> Float[Tensor, "*batch"]:
        """w·z; the time has no part."""
        return z @ self.direction


def train_vae(
    model: FlowFactorVAE,
    source: SequenceSource,
    kind: Kind,
    options: Options,
    *,
    beta: float | None = None,
    slowness: float = 6.0,
    report: Callable[[int, float], object] | None = None,
) -> None:
    """Trains encoder and decoder on frames, without any flow.

    Args:
        model: Trained in place.
        kind: "vae"; "beta-vae" weighs the KL by `beta`; "slow-vae" takes pairs of neighbouring
            frames and adds KL(q(z_t|x_t) ‖ Laplace(μ_{t-1}, 1/slowness)) (Klindt et al. 2021).
        options: As many images an update as a flow model decodes: batch · (T + 1).
        beta: 4 for "beta-vae", 1 for the others by default.
        report: Called with the iteration and the loss.
    """
    if kind not in ("vae", "beta-vae", "slow-vae"):
        raise ValueError(f"kind must be 'vae', 'beta-vae' or 'slow-vae', got {kind!r}")
    beta = (4.0 if kind == "beta-vae" else 1.0) if beta is None else beta
    generator = torch.Generator().manual_seed(options.seed)
    parts = [*model.encoder.parameters(), *model.decoder.parameters()]
    optimizer = torch.optim.Adam(parts, lr=options.learning_rate, fused=True)
    model.train()
    model.autocast = torch.bfloat16 if options.half else None
    for iteration in range(options.iterations):
        if options.schedule == "cosine":
            turn = math.pi * iteration / options.iterations
            optimizer.param_groups[0]["lr"] = options.learning_rate * (1 + math.cos(turn)) / 2
        rows = torch.randint(source.size, (options.batch,), generator=generator)
        k = torch.randint(len(source.names), (options.batch,), generator=generator)
        frames = source.frames(rows, k).to(next(model.parameters()))
        mean, log_var = model.encode(frames)
        noise = torch.randn(mean.shape, generator=generator).to(mean)
        z = sample_gaussian(mean, log_var, noise)
        each = model.observation.log_prob(model.raw(z), frames)
        loss = (beta * standard_normal_kl(mean, log_var) - each).sum(1).mean()
        if kind == "slow-vae":
            slow = laplace_kl(mean[:, 1:], log_var[:, 1:], mean[:, :-1], slowness)
            loss = loss + slow.sum(1).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parts, options.clip or math.inf)
        optimizer.step()
        if report is not None:
            report(iteration + 1, loss.item())
    model.autocast = None
    model.eval()


def laplace_kl(
    mean: Float[Tensor, "*batch n"],
    log_var: Float[Tensor, "*batch n"],
    centre: Float[Tensor, "*batch n"],
    rate: float,
) -> Float[Tensor, "*batch"]:
    """KL(N(μ, diag σ²) ‖ Π Laplace(c_i, 1/λ)) in nats.

    E|z - c| of a Gaussian is σ√(2/π) exp(-d²/2σ²) + d erf(d/σ√2), d = μ - c.
    """
    d, sigma = mean - centre, (log_var / 2).exp()
    distance = sigma * math.sqrt(2 / math.pi) * (-0.5 * (d / sigma).square()).exp()
    distance = distance + d * torch.erf(d / (sigma * math.sqrt(2)))
    entropy = 0.5 * (log_var + math.log(2 * math.pi) + 1)
    return (rate * distance - math.log(rate / 2) - entropy).sum(-1)


@torch.no_grad()
def linear_directions(
    model: FlowFactorVAE, source: SequenceSource, rows: Tensor
) -> Float[Tensor, "flows n"]:
    """The step w_k that best explains μ(x_t) - μ(x_0) = t w_k: Σ t d_t / Σ t²."""
    found = []
    for k in range(len(source.names)):
        total, weight = torch.zeros(model.flow.dim), 0.0
        for chunk in rows.split(250):
            frames = source.frames(chunk, torch.full((len(chunk),), k))
            mean = model.encode(frames.to(next(model.parameters())))[0].cpu()
            t = torch.arange(1, mean.shape[1], dtype=mean.dtype)
            total += ((mean[:, 1:] - mean[:, :1]) * t[:, None]).sum((0, 1))
            weight += len(chunk) * t.square().sum().item()
        found.append(total / weight)
    return torch.stack(found)


def with_directions(model: FlowFactorVAE, directions: Float[Tensor, "flows n"]) -> FlowFactorVAE:
    """The same encoder and decoder, with flows that add one direction a step."""
    flows, dim = directions.shape
    potentials = [LinearPotential(dim) for _ in range(flows)]
    for potential, direction in zip(potentials, directions, strict=True):
        potential.direction.data.copy_(direction)
    # Forces have no part here, but a flow has some.
    flow = LatentFlow(
        dim, flows, potentials=potentials, forces=[LinearPotential(dim) for _ in range(flows)]
    )
    return FlowFactorVAE(
        model.encoder, model.decoder, flow, prior=HeatPrior(flows), observation=model.observation
    ).eval()


def with_wave_potentials(
    model: FlowFactorVAE, source: SequenceSource, options: Options, hidden: int | None = 64
) -> FlowFactorVAE:
    """PoFlow (Song et al., ICML 2023): potentials under the wave equation on a frozen VAE.

    They are fitted to labelled sequences here, where the paper finds directions of a pretrained
    generator without them; so it is the paper's equation on our task.
    """
    flow = LatentFlow(model.flow.dim, len(source.names), hidden, output=None)
    moved = FlowFactorVAE(model.encoder, model.decoder, flow, observation=model.observation)
    objective = Objective(
        kl="shared",
        constraint="wave",
        weight=options.objective.weight,
        subset=options.objective.subset,
    )
    # Training freezes encoder and decoder; they are given back as they were.
    trainable = [p.requires_grad for p in model.parameters()]
    Trainer(moved, source, dataclasses.replace(options, frozen=True, objective=objective)).run()
    for p, was in zip(model.parameters(), trainable, strict=True):
        p.requires_grad_(was)
    return moved
