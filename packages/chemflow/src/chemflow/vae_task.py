"""Training of a molecule VAE on tokens."""

import torch
from jaxtyping import Int64, UInt8, UInt16
from torch import Tensor

from .elbo import negative_elbo
from .training import Losses, Task
from .vae import MoleculeVAE


class VAETask(Task):
    """The β-VAE objective of `negative_elbo`, in nats per molecule.

    Args:
        model: Trained in place.
        ids: Tokens, (n, L).
        beta: β of the Kullback-Leibler term.
        warm_up: Share of all updates over which β grows from 0.
    """

    def __init__(
        self,
        model: MoleculeVAE,
        ids: Int64[Tensor, "n l"] | UInt8[Tensor, "n l"] | UInt16[Tensor, "n l"],
        beta: float,
        warm_up: float = 0.0,
    ) -> None:
        super().__init__()
        if not beta >= 0:
            raise ValueError(f"beta must not be negative, got {beta}")
        self.size = len(ids)
        self.model = model
        self.ids = ids
        self.beta = beta
        self.warm_up = warm_up

    def settings(self) -> dict[str, object]:
        """What the objective is."""
        return {"beta": self.beta, "warm_up": self.warm_up}

    def loss(self, rows: Int64[Tensor, " b"], generator: torch.Generator, share: float) -> Losses:
        """One code a molecule."""
        weight = self.model.embedding.weight
        ids = self.ids[rows].to(weight.device).long()
        mu, log_var = self.model.encode(ids)
        noise = torch.randn(mu.shape, generator=generator).to(mu)
        z = mu + (log_var / 2).exp() * noise
        beta = self.beta * min(1.0, share / self.warm_up) if self.warm_up else self.beta
        decoder = self.model.decoder
        found = negative_elbo(
            decoder.logits(z, ids), ids, mu, log_var, beta, decoder.log_weights(ids)
        )
        return Losses(found.loss, {"nll": found.nll.detach(), "kl": found.kl.detach()})
