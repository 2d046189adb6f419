"""The generative model and its inference in one module, and the sizes it is published in."""

import contextlib
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .flow import LatentFlow, LogDet
from .networks import (
    Bernoulli,
    GaussianEncoder,
    Observation,
    Shape,
    conv_body_a,
    conv_body_b,
    conv_decoder_a,
    conv_decoder_b,
    mlp_body,
    mlp_decoder,
)
from .posterior import FlowClassifier
from .prior import HeatPrior, OfficialPrior

Backbone = Literal["mlp", "conv-a", "conv-b"]


class FlowFactorVAE(nn.Module):
    """p(k) p(z_0) p(x_0|z_0) Π_t p(z_t|z_{t-1}, k) p(x_t|z_t), and q(z_0|x_0) (and q(k|x)).

    Song, Keller, Sebe, Welling (NeurIPS 2023). Only the first frame is encoded; the flow moves
    z from there.

    Args:
        encoder: Images (batch, C, H, W) to (μ, log σ²), each (batch, n); also a frozen one.
        decoder: Latents (batch, n) to images as `observation` takes them.
        flow: K flows on n latents.
        prior: p(z_t|k); `HeatPrior` by default.
        classifier: Logits of q(k|x_0 … x_T), for the weakly supervised setting.
        observation: p(x|z) given what the decoder returns; `Bernoulli` (of logits) by default.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        flow: LatentFlow,
        *,
        prior: HeatPrior | OfficialPrior | None = None,
        classifier: FlowClassifier | None = None,
        observation: Observation | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.flow = flow
        self.prior = HeatPrior(flow.flows) if prior is None else prior
        self.classifier = classifier
        self.observation = Bernoulli() if observation is None else observation
        # bfloat16 for the networks over pixels; the flow's derivatives stay in full precision.
        self.autocast: torch.dtype | None = None

    def encode(
        self, x: Float[Tensor, "*batch c h w"]
    ) -> tuple[Float[Tensor, "*batch n"], Float[Tensor, "*batch n"]]:
        """(μ, log σ²) of q(z_0|x_0), for any number of batch dimensions."""
        batch = x.shape[:-3]
        with self._precision(x):
            mean, log_var = self.encoder(x.reshape(-1, *x.shape[-3:]))
        mean, log_var = mean.to(x.dtype), log_var.to(x.dtype)
        return mean.reshape(*batch, -1), log_var.reshape(*batch, -1)

    def raw(self, z: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch c h w"]:
        """What the decoder returns (logits, under `Bernoulli`)."""
        with self._precision(z):
            found = self.decoder(z.reshape(-1, z.shape[-1]))
        return found.to(z.dtype).reshape(*z.shape[:-1], *found.shape[1:])

    def decode(self, z: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch c h w"]:
        """E[x|z]: images in the units of the data."""
        return self.observation.mean(self.raw(z))

    def flow_logits(
        self, frames: Float[Tensor, "batch frames c h w"]
    ) -> Float[Tensor, "batch flows"]:
        """Logits of q(k|x_0 … x_T); ValueError without a classifier."""
        if self.classifier is None:
            raise ValueError("this model has no classifier of the flow: give k")
        with self._precision(frames):
            return self.classifier(frames).to(frames.dtype)

    def traverse(
        self, x: Float[Tensor, "*batch c h w"], k: int | Tensor | list, steps: int
    ) -> Float[Tensor, "times *batch c h w"]:
        """Decoded frames 0 … T from the posterior mean of x, moved by flow k."""
        mean, _ = self.encode(x)
        return self.decode(self.flow.rollout(mean, k, steps))

    def _precision(self, x: Tensor) -> contextlib.AbstractContextManager:
        if self.autocast is None:
            return contextlib.nullcontext()
        return torch.autocast(x.device.type, self.autocast)


@dataclass(frozen=True)
class Config:
    """What a model is built from; plain values, so that it is saved beside the weights.

    Args:
        shape: C, H, W.
        flows: K.
        dim: n.
        backbone: "mlp"; "conv-a", the paper's for MNIST (n = 324) and Shapes3D (n = 226);
            "conv-b", for Falcol3D and Isaac3D (n = 324).
        hidden: Widths of the MLP's hidden layers, towards the latent.
        potential_hidden: Width of potentials and forces; None for n, as published.
        bounded: Whether potentials end with tanh, |u| < 1, as published.
        frames: T + 1 of the sequences that the classifier of k sees; 0 for none.
        prior: "heat", or "official" for the released code's (of `frames` - 1 or 64 times).
        logdet, substeps: As in `LatentFlow`.
    """

    shape: Shape
    flows: int
    dim: int = 32
    backbone: Backbone = "mlp"
    hidden: tuple[int, ...] = (512, 256)
    potential_hidden: int | None = 64
    bounded: bool = False
    frames: int = 0
    prior: Literal["heat", "official"] = "heat"
    logdet: LogDet = "exact"
    substeps: int = 1

    def build(self) -> FlowFactorVAE:
        """The model with fresh weights. ValueError for a backbone or prior of another name."""
        if self.prior not in ("heat", "official"):
            raise ValueError(f"prior must be 'heat' or 'official', got {self.prior!r}")
        encoder, decoder, classifier = self._networks()
        return FlowFactorVAE(
            encoder,
            decoder,
            LatentFlow(
                self.dim,
                self.flows,
                self.potential_hidden,
                output=torch.tanh if self.bounded else None,
                substeps=self.substeps,
                logdet=self.logdet,
            ),
            prior=HeatPrior(self.flows)
            if self.prior == "heat"
            else OfficialPrior(self.flows, max(self.frames - 1, 64)),
            classifier=classifier,
        )

    def _networks(self) -> tuple[nn.Module, nn.Module, FlowClassifier | None]:
        shape, n = self.shape, self.dim
        stacked = (self.frames * shape[0], *shape[1:])
        match self.backbone:
            case "mlp":
                features = self.hidden[-1]
                encoder = GaussianEncoder(mlp_body(shape, self.hidden), features, n)
                decoder = mlp_decoder(shape, n, self.hidden)
                body = mlp_body(stacked, self.hidden) if self.frames else None
            case "conv-a":
                features = n
                encoder = GaussianEncoder(conv_body_a(shape, n, 2 * n), 2 * n, n)
                decoder = conv_decoder_a(shape, n, n)
                body = conv_body_a(stacked, n, n) if self.frames else None
            case "conv-b":
                features = n
                encoder = GaussianEncoder(conv_body_b(shape, n), n, n)
                decoder = conv_decoder_b(shape, n, n)
                body = conv_body_b(stacked, n) if self.frames else None
            case other:
                raise ValueError(f"backbone must be 'mlp', 'conv-a' or 'conv-b', got {other!r}")
        if body is None:
            return encoder, decoder, None
        return encoder, decoder, FlowClassifier(body, features, self.flows, self.frames)
