"""A learned prior of codes: an ordinary differential equation from N(0, I) to the encoder's codes.

A VAE's codes do not fill N(0, I): most draws from it lie where no molecule was encoded, and what
they decode to looks like none. Flow matching (Lipman et al. 2023, with the straight paths of Liu et
al. 2023) learns the velocity that carries one to the other.
"""

from typing import Any

import torch
from jaxtyping import Float, Int64
from potential_flows import sinusoidal_embedding
from torch import Tensor, nn

from .draws import normal_rows
from .training import Losses, Task

PURPOSE = 2
"""Of draws, beside those of other parts under the same seed."""


class _Block(nn.Module):
    """x + W2 silu(W1 norm(x) (1 + scale) + shift), shift and scale from the time."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden, elementwise_affine=False)
        self.time = nn.Linear(hidden, 2 * hidden)
        self.up = nn.Linear(hidden, hidden)
        self.down = nn.Linear(hidden, hidden)
        nn.init.zeros_(self.down.weight)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        shift, scale = self.time(time).chunk(2, -1)
        return x + self.down(nn.functional.silu(self.up(self.norm(x) * (1 + scale) + shift)))


class LatentPrior(nn.Module):
    """Codes as the end of dz/dt = v(z, t) from z ~ N(0, I) at t = 0 to t = 1.

    Args:
        latent: D.
        hidden: Width.
        blocks: Number of residual blocks.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, latent: int, hidden: int = 512, blocks: int = 4) -> None:
        super().__init__()
        self.sizes = {"latent": latent, "hidden": hidden, "blocks": blocks}
        self.input = nn.Linear(latent, hidden)
        self.time = nn.Sequential(nn.Linear(64, hidden), nn.SiLU())
        self.blocks = nn.ModuleList(_Block(hidden) for _ in range(blocks))
        self.output = nn.Linear(hidden, latent)
        # Codes are modelled in units of their own spread.
        self.register_buffer("mean", torch.zeros(latent))
        self.register_buffer("scale", torch.ones(latent))

    def config(self) -> dict[str, Any]:
        """What it is built from."""
        return dict(self.sizes)

    def velocity(self, z: Float[Tensor, "b d"], t: Float[Tensor, " b"]) -> Float[Tensor, "b d"]:
        """v(z, t), of standardised codes."""
        time = self.time(sinusoidal_embedding(1000 * t, 64))
        x = self.input(z)
        for block in self.blocks:
            x = block(x, time)
        return self.output(x)

    @torch.no_grad()
    def sample(self, rows: Int64[Tensor, " b"], seed: int, steps: int = 32) -> Float[Tensor, "b d"]:
        """Codes of some rows of an endless sample: those of a row depend on it and on the seed.

        Args:
            rows: Numbers of the rows, on the model's device.
            seed: Of the sample.
            steps: Of Heun's method, two evaluations each.
        """
        z = normal_rows(seed, rows, self.sizes["latent"], purpose=PURPOSE).to(self.mean)
        step = 1 / steps
        for i in range(steps):
            t = torch.full((len(z),), i * step, dtype=z.dtype, device=z.device)
            first = self.velocity(z, t)
            z = z + step / 2 * (first + self.velocity(z + step * first, t + step))
        return self.mean + self.scale * z


class PriorTask(Task):
    """E |v((1-t) ε + t z, t) - (z - ε)|² / D over codes z, noise ε and times t.

    Args:
        prior: Trained in place; takes mean and spread of the codes.
        codes: Posterior means, (n, D).
        spread: Posterior standard deviations, added as noise anew at every update; None for none.
    """

    def __init__(
        self,
        prior: LatentPrior,
        codes: Float[Tensor, "n d"],
        spread: Float[Tensor, "n d"] | None = None,
    ) -> None:
        super().__init__()
        self.size = len(codes)
        self.prior = prior
        self.codes = codes
        self.spread = spread
        variance = codes.var(0)
        if spread is not None:
            variance = variance + spread.square().mean(0)
        prior.mean.copy_(codes.mean(0))
        prior.scale.copy_(variance.sqrt())
        # A dimension that is the same in all codes has nothing to be divided by.
        self.unit = torch.where(variance > 0, variance.sqrt(), 1.0)

    def loss(self, rows: Int64[Tensor, " b"], generator: torch.Generator, share: float) -> Losses:  # noqa: ARG002
        """See the class."""
        shape = (len(rows), self.codes.shape[1])
        z = self.codes[rows]
        if self.spread is not None:
            z = z + self.spread[rows] * torch.randn(shape, generator=generator).to(z)
        z = (z - self.prior.mean) / self.unit
        noise = torch.randn(shape, generator=generator).to(z)
        # Times of a logistic normal: most of what is to be learned lies in the middle.
        t = torch.sigmoid(torch.randn(len(rows), generator=generator)).to(z)
        mixed = torch.lerp(noise, z, t[:, None])
        loss = (self.prior.velocity(mixed, t) - (z - noise)).square().mean()
        return Losses(loss, {})


def standard_sample(rows: Int64[Tensor, " b"], size: int, seed: int) -> Float[Tensor, "b d"]:
    """Codes from N(0, I), as `LatentPrior.sample` numbers them."""
    return normal_rows(seed, rows, size, purpose=PURPOSE)
