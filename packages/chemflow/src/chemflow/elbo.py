"""The β-VAE objective per molecule, and how ChemFlow's released code weighs the same two terms."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn


class Elbo(NamedTuple):
    """Means over the batch, in nats per molecule."""

    loss: Float[Tensor, ""]
    """Σ_i -log p(x_i | z) + β KL."""
    nll: Float[Tensor, ""]
    """Σ_i -log p(x_i | z)."""
    kl: Float[Tensor, ""]
    """KL(q(z | x), N(0, I))."""


def kl_to_standard_normal(
    mu: Float[Tensor, "b d"], log_var: Float[Tensor, "b d"]
) -> Float[Tensor, " b"]:
    """KL(N(μ, σ²), N(0, I)) = ½ Σ_d (μ² + σ² - 1 - log σ²), in nats."""
    return (mu.square() + log_var.exp() - 1 - log_var).sum(-1) / 2


def negative_elbo(
    logits: Float[Tensor, "b l v"],
    ids: Int64[Tensor, "b l"],
    mu: Float[Tensor, "b d"],
    log_var: Float[Tensor, "b d"],
    beta: float,
    weights: Float[Tensor, "b l"] | None = None,
) -> Elbo:
    """E_q[-log p(x | z)] + β KL(q, N(0, I)) of one z per molecule (Higgins et al. 2017).

    Args:
        logits: Of each token at each position.
        ids: The tokens.
        mu, log_var: Of q(z | x).
        beta: β; 1 is the evidence bound. `official_beta` converts the released code's weight.
        weights: Which positions count; all by default.
    """
    nll = nn.functional.cross_entropy(logits.mT, ids, reduction="none")
    nll = (nll if weights is None else nll * weights.to(nll)).sum(-1).mean()
    kl = kl_to_standard_normal(mu, log_var).mean()
    return Elbo(nll + beta * kl, nll, kl)


def official_beta(p: float, length: int, vocabulary: int) -> float:
    """β of the released code's (1-p) nll + p kl, which averages over L positions and V tokens.

    It divides the likelihood by B L and the divergence by B V; times L/(1-p) this is the objective
    per molecule with β = p/(1-p) · L/V. The paper's p = 0.1, L = 72 and V = 244 make 0.033.

    Raises ValueError unless 0 <= p < 1.
    """
    if not 0 <= p < 1:
        raise ValueError(f"p must be in [0, 1), got {p}")
    return p / (1 - p) * length / vocabulary


def official_loss(
    logits: Float[Tensor, "b l v"],
    ids: Int64[Tensor, "b l"],
    mu: Float[Tensor, "b d"],
    log_var: Float[Tensor, "b d"],
    p: float,
) -> Elbo:
    """The released code's loss, likelihood (mean over B L) and divergence (over B V)."""
    _, length, vocabulary = logits.shape
    _, nll, kl = negative_elbo(logits, ids, mu, log_var, 1.0)
    nll, kl = nll / length, kl / vocabulary
    return Elbo(torch.lerp(nll, kl, p), nll, kl)
