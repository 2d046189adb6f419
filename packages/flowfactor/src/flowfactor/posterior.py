"""What is inferred: z_0 from the first frame, and the flow from the whole sequence."""

import itertools
import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn


def sample_gaussian(
    mean: Float[Tensor, "*batch n"],
    log_var: Float[Tensor, "*batch n"],
    noise: Float[Tensor, "*#shape n"] | None = None,
) -> Float[Tensor, "*#shape n"]:
    """μ + exp(log σ²/2) ε, differentiable in μ and log σ².

    Args:
        noise: ε, standard normal; drawn in the shape of the mean by default.
    """
    noise = torch.randn_like(mean) if noise is None else noise
    return mean + (log_var / 2).exp() * noise


def gaussian_log_prob(
    z: Float[Tensor, "*#shape n"],
    mean: Float[Tensor, "*batch n"],
    log_var: Float[Tensor, "*batch n"],
) -> Float[Tensor, "*#shape"]:
    """log N(z; μ, diag σ²) in nats."""
    square = (z - mean).square() * (-log_var).exp()
    return -0.5 * (square + log_var + math.log(2 * math.pi)).sum(-1)


def standard_normal_kl(
    mean: Float[Tensor, "*batch n"], log_var: Float[Tensor, "*batch n"]
) -> Float[Tensor, "*batch"]:
    """KL(N(μ, diag σ²) ‖ N(0, I)) in nats, never negative."""
    return 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum(-1)


def uniform_kl(logits: Float[Tensor, "*batch flows"]) -> Float[Tensor, "*batch"]:
    """KL(q ‖ uniform) = log K + Σ_k q_k log q_k in nats, q = softmax(logits)."""
    log_q = logits.log_softmax(-1)
    return math.log(logits.shape[-1]) + (log_q.exp() * log_q).sum(-1)


def gumbel_softmax(
    logits: Float[Tensor, "*batch flows"],
    temperature: float,
    *,
    hard: bool = False,
    uniform: Float[Tensor, "*batch flows"] | None = None,
) -> Float[Tensor, "*batch flows"]:
    """softmax((logits - log(-log U))/τ): a relaxed draw of softmax(logits).

    Args:
        temperature: τ, positive; ValueError otherwise. The draw is one-hot as τ -> 0.
        hard: One-hot at the largest entry, with the gradient of the soft draw.
        uniform: U in (0, 1); drawn by default.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    # -log U is a standard exponential; drawn as such it is never 0 or infinite.
    exponential = torch.empty_like(logits).exponential_() if uniform is None else -uniform.log()
    soft = ((logits - exponential.log()) / temperature).softmax(-1)
    if not hard:
        return soft
    one_hot = torch.zeros_like(soft).scatter(-1, soft.argmax(-1, keepdim=True), 1.0)
    # The bracket is zero; written this way the sum is exactly one-hot.
    return one_hot + (soft - soft.detach())


@dataclass(frozen=True)
class Temperature:
    """τ(i) = max(exp(-rate · i), floor), renewed every `every` iterations."""

    rate: float = 3e-5
    floor: float = 0.05
    every: int = 100

    def __call__(self, iteration: int) -> float:
        """τ at the iteration, counted from 0."""
        return max(math.exp(-self.rate * (iteration // self.every * self.every)), self.floor)


class FlowClassifier(nn.Module):
    """log q(k | x_0 … x_T) up to a constant, from frames stacked along channels.

    Args:
        body: (*batch, (T+1)·C, H, W) to features (*batch, features).
        features: Their number.
        flows: K.
        frames: T + 1.
    """

    def __init__(self, body: nn.Module, features: int, flows: int, frames: int) -> None:
        super().__init__()
        self.body = body
        self.head = nn.Linear(features, flows)
        self.frames = frames

    def forward(
        self, frames: Float[Tensor, "batch frames channels height width"]
    ) -> Float[Tensor, "batch flows"]:
        """Logits. ValueError unless there are as many frames as it was made for."""
        if frames.shape[1] != self.frames:
            raise ValueError(
                f"frames must be (batch, {self.frames}, ...), got {tuple(frames.shape)}"
            )
        return self.head(self.body(frames.flatten(1, 2)))


@torch.no_grad()
def match_flows(
    logits: Float[Tensor, "rows flows"], k: Int64[Tensor, " rows"]
) -> tuple[tuple[int, ...], float]:
    """Which flow stands for each transformation, and how often it is the one inferred.

    Flows found without labels come in any order; the permutation with the most hits is taken,
    among all K! of them.

    Args:
        logits: Of q(k|x); the largest is inferred.
        k: The true transformations.

    Returns `flow_of`, flow_of[j] being the flow of transformation j, and the share of rows.
    """
    flows = logits.shape[-1]
    counts = torch.zeros(flows, flows, dtype=torch.int64)
    counts.index_put_((k.cpu(), logits.argmax(-1).cpu()), torch.ones(len(k)).long(), True)
    table = counts.tolist()

    def hits(order: tuple[int, ...]) -> int:
        return sum(table[j][flow] for j, flow in enumerate(order))

    best = max(itertools.permutations(range(flows)), key=hits)
    return best, hits(best) / len(k)
