"""Importance-weighted bounds on the log-likelihood of images and sequences."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from .flow import Flow
from .model import FlowFactorVAE
from .networks import Gaussian
from .posterior import gaussian_log_prob, sample_gaussian
from .prior import standard_log_prob


@torch.no_grad()
def log_likelihood(
    model: FlowFactorVAE,
    frames: Float[Tensor, "batch frames c h w"],
    k: Flow | None = None,
    *,
    samples: int = 100,
    scale: float | None = None,
    noise: Float[Tensor, "samples batch n"] | None = None,
    chunk: int = 10,
) -> Float[Tensor, "batch"]:
    """log 1/S Σ_s p(x_0 … x_T|z^s, k) p(z^s)/q(z^s|x_0), z^s drawn from q(z_0|x_0): IWAE, nats.

    Burda et al. 2016. A lower bound of log p(x_0 … x_T|k) in expectation for any S, which never
    falls as S grows; S = 1 is the ELBO. Later latents are those of the flow from z_0, so that
    the map has no density to be counted. A Gaussian observation of scale 1 can give no more than
    -½ C H W log 2π a frame.

    Args:
        frames: x_0 … x_T; of a single image (batch, 1, C, H, W).
        k: The flow; not needed for single images.
        samples: S, at least 1; ValueError otherwise.
        scale: Of a Gaussian about the decoded mean, as the paper reports with 1; None for the
            model's own observation.
        noise: ε of every z^s, which fixes the bound; drawn by default.
        chunk: Samples at a time.
    """
    if samples < 1:
        raise ValueError(f"samples must be at least 1, got {samples}")
    steps = frames.shape[1] - 1
    if k is None and steps:
        raise ValueError(f"k must be given for sequences, got frames {tuple(frames.shape)}")
    mean, log_var = model.encode(frames[:, 0])
    if noise is None:
        noise = torch.randn(samples, *mean.shape, dtype=mean.dtype, device=mean.device)
    if noise.shape != (samples, *mean.shape):
        want = (samples, *mean.shape)
        raise ValueError(f"noise must be {want}, got {tuple(noise.shape)}")
    weights = []
    for some in noise.split(chunk):
        count = len(some)
        z = sample_gaussian(mean, log_var, some)
        flow = k if k is None or isinstance(k, int) else k.expand(count, *k.shape)
        path = z[None] if flow is None else model.flow.rollout(z, flow, steps)
        seen = frames.transpose(0, 1)[:, None].expand(-1, count, *(-1,) * 4)
        if scale is None:
            each = model.observation.log_prob(model.raw(path), seen)
        else:
            each = Gaussian(scale).log_prob(model.decode(path), seen)
        log_weight = each.sum(0) + standard_log_prob(z) - gaussian_log_prob(z, mean, log_var)
        weights.append(log_weight)
    return torch.cat(weights).logsumexp(0) - math.log(samples)
