"""The evidence lower bound of a sequence, term by term, and the flow's constraints."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from .flow import Flow
from .model import FlowFactorVAE
from .posterior import (
    gaussian_log_prob,
    gumbel_softmax,
    sample_gaussian,
    standard_normal_kl,
    uniform_kl,
)

KL = Literal["telescoped", "marginals", "shared"]


@dataclass(frozen=True)
class Objective:
    """What is added to the negative ELBO, and how the divergence of the path is counted.

    Args:
        kl: With r_t = log q_t(z_t) - log p_t(z_t): "telescoped" counts KL_0 and the steps
            r_t - r_{t-1}, in all r_T; "marginals" counts KL_0 + Σ_t r_t; "shared" lets the
            prior be moved by the same map as the posterior, so that KL_0 is all there is.
        beta: Weight of every divergence; 1 for a bound.
        constraint: "hamilton-jacobi" of the paper, "wave" of PoFlow.
        weight: Weight of the constraint and its initial condition.
        reduction: Whether the constraint is summed over steps or averaged.
        transport: Weight of Σ_t |∇u|²/2, the cost of the path (Benamou and Brenier).
        encoded: Weight of the ELBO of later frames encoded on their own, so that the encoder
            knows transformed frames too; 0 in the paper.
        balance: Weight of KL(mean of q(k|x) over the batch ‖ uniform), in nats. Without it
            unlabelled sequences tend to share the flow that learns first.
        subset: How many of the frames 1 … T are decoded, drawn anew each time and weighted so
            that the expectation is that of all; None for all.
    """

    kl: KL = "telescoped"
    beta: float = 1.0
    constraint: Literal["hamilton-jacobi", "wave"] = "hamilton-jacobi"
    weight: float = 1.0
    reduction: Literal["sum", "mean"] = "sum"
    transport: float = 0.0
    encoded: float = 0.0
    balance: float = 0.0
    subset: int | None = None

    def __post_init__(self) -> None:
        for name, allowed in (
            ("kl", ("telescoped", "marginals", "shared")),
            ("constraint", ("hamilton-jacobi", "wave")),
            ("reduction", ("sum", "mean")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {allowed}, got {getattr(self, name)!r}")


class Bound(NamedTuple):
    """Terms in nats, each a mean over the batch; `loss` is what is minimised."""

    log_likelihood: Float[Tensor, " frames"]  # E log p(x_t|z_t), NaN where not decoded
    kl_0: Float[Tensor, ""]
    kl_steps: Float[Tensor, " steps"]
    kl_flow: Float[Tensor, ""]
    imbalance: Float[Tensor, ""]  # KL(mean of q(k|x) over the batch ‖ uniform)
    constraint: Float[Tensor, " steps"]  # mean r² of each step
    initial: Float[Tensor, ""]
    transport: Float[Tensor, " steps"]  # mean |∇u|²/2 of each step
    encoded: Float[Tensor, ""]
    elbo: Float[Tensor, ""]
    loss: Float[Tensor, ""]


def sequence_bound(
    model: FlowFactorVAE,
    frames: Float[Tensor, "batch frames c h w"],
    k: Flow | None,
    objective: Objective = Objective(),
    *,
    noise: Float[Tensor, "batch n"] | None = None,
    temperature: float = 1.0,
    uniform: Float[Tensor, "batch flows"] | None = None,
) -> Bound:
    """One sample of the bound of each sequence x_0 … x_T, and its loss.

    Σ_t log p(x_t|z_t) - KL(q(z_0|x_0) ‖ p(z_0)) - Σ_t [r_t - r_{t-1}] - KL(q(k|x) ‖ uniform),
    z_0 drawn from q(z_0|x_0) and moved by the flow.

    Args:
        frames: x_0 … x_T.
        k: The flow where it is known (supervised), as in `LatentFlow`; None to infer it by the
            model's classifier (weakly supervised), as one Gumbel-softmax draw that mixes flows.
        noise: ε of z_0; drawn by default.
        temperature: τ of the draw of k.
        uniform: U of the draw of k; drawn by default.
    """
    steps = frames.shape[1] - 1
    mean, log_var = model.encode(frames[:, 0])
    z0 = sample_gaussian(mean, log_var, noise)
    if k is None:
        logits = model.flow_logits(frames)
        flow: Flow = gumbel_softmax(logits, temperature, uniform=uniform)
        kl_flow = uniform_kl(logits).mean()
        imbalance = uniform_kl(logits.log_softmax(-1).logsumexp(0))
    else:
        flow, kl_flow, imbalance = k, mean.new_zeros(()), mean.new_zeros(())

    if objective.kl == "shared":
        path = model.flow.rollout(z0, flow, steps)
        kl_steps = mean.new_zeros(steps)
    else:
        path, logabsdet = model.flow.transport(z0, flow, steps)
        log_q = gaussian_log_prob(z0, mean, log_var) - logabsdet.cumsum(0)
        log_p = model.prior.path_log_prob(path, flow)
        excess = torch.cat((gaussian_log_prob(z0, mean, log_var)[None], log_q)) - log_p
        kept = excess[1:] if objective.kl == "marginals" else excess.diff(dim=0)
        kl_steps = kept.mean(-1)
    kl_0 = standard_normal_kl(mean, log_var).mean()

    log_likelihood, reconstructed = _reconstruction(model, path, frames, objective.subset)
    elbo = reconstructed - objective.beta * (kl_0 + kl_steps.sum() + kl_flow)
    constraint, initial, transport = _constraints(model, path, flow, objective)
    over = torch.sum if objective.reduction == "sum" else torch.mean
    loss = -elbo + objective.balance * imbalance
    if steps:
        loss = loss + objective.weight * (over(constraint) + initial)
        loss = loss + objective.transport * over(transport)
    encoded = mean.new_zeros(())
    if objective.encoded and steps:
        encoded = _encoded(model, frames[:, 1:], objective)
        loss = loss - objective.encoded * encoded
    return Bound(
        log_likelihood,
        kl_0,
        kl_steps,
        kl_flow,
        imbalance,
        constraint,
        initial,
        transport,
        encoded,
        elbo,
        loss,
    )


def _reconstruction(
    model: FlowFactorVAE, path: Tensor, frames: Tensor, subset: int | None
) -> tuple[Tensor, Tensor]:
    """E log p(x_t|z_t) of each frame, and their sum or its unbiased estimate."""
    steps = len(path) - 1
    if subset is None or subset >= steps:
        chosen = torch.arange(steps + 1, device=path.device)
    else:
        if subset < 1:
            raise ValueError(f"subset must be at least 1, got {subset}")
        chosen = torch.randperm(steps, device=path.device)[:subset].sort().values + 1
        chosen = torch.cat((chosen.new_zeros(1), chosen))
    # Decoded in one call: this is most of the cost of a step.
    raw = model.raw(path[chosen])
    found = model.observation.log_prob(raw, frames.transpose(0, 1)[chosen]).mean(-1)
    share = steps / max(len(chosen) - 1, 1)
    each = found.new_full((steps + 1,), torch.nan).index_copy(0, chosen, found)
    return each, found[0] + share * found[1:].sum()


def _constraints(
    model: FlowFactorVAE, path: Tensor, k: Flow, objective: Objective
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean r² and |∇u|²/2 of each step at its beginning, and |∇u(z_0, 0)|²."""
    steps = len(path) - 1
    before = path[:-1]
    transport = 0.5 * path.diff(dim=0).square().sum(-1).mean(-1)
    if steps == 0:
        return transport, transport.sum(), transport
    t = torch.arange(1, steps + 1, dtype=path.dtype, device=path.device)[:, None]
    every = k if isinstance(k, int) else k.expand(steps, *k.shape)
    if objective.constraint == "wave":
        square = model.flow.wave_square(before, t, every)
    else:
        square = model.flow.hamilton_jacobi_square(before, t, every)
    return square.mean(-1), model.flow.initial_square(path[0], k).mean(), transport


def _encoded(model: FlowFactorVAE, frames: Tensor, objective: Objective) -> Tensor:
    """Σ_t of the ELBO of each frame as an image by itself."""
    mean, log_var = model.encode(frames)
    raw = model.raw(sample_gaussian(mean, log_var))
    each = model.observation.log_prob(raw, frames)
    each = each - objective.beta * standard_normal_kl(mean, log_var)
    return each.sum(1).mean()
