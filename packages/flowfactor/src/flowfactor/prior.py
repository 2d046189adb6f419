"""What the prior says of latents as time goes on: p_0 = N(0, I), then a diffusion."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .flow import Flow


def standard_log_prob(z: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
    """log N(z; 0, I) in nats."""
    return -0.5 * (z.square().sum(-1) + z.shape[-1] * math.log(2 * math.pi))


class HeatPrior(nn.Module):
    """p_t = N(0, (1 + 2 D^k t) I), the solution of ∂p/∂t = D^k Δp from N(0, I).

    ψ^k = -D^k log p of Song et al. 2023 makes the continuity equation the heat equation. D is
    learned through its logarithm, in z² per unit of t.

    Args:
        flows: K.
        diffusivity: D at the start, positive; ValueError otherwise.
    """

    def __init__(self, flows: int, diffusivity: float = 0.1) -> None:
        super().__init__()
        if not diffusivity > 0:
            raise ValueError(f"diffusivity must be positive, got {diffusivity}")
        self.log_diffusivity = nn.Parameter(torch.full((flows,), math.log(diffusivity)))

    def log_prob(
        self, z: Float[Tensor, "*batch n"], t: Float[Tensor, "*#batch"] | float, k: Flow
    ) -> Float[Tensor, "*batch"]:
        """log p_t(z) = -(n/2) log(2π s) - |z|²/(2 s), s = 1 + 2 D t, in nats.

        For weights y the diffusivity is Σ_k y_k D^k, that of the sum of the potentials.
        """
        D = self.log_diffusivity.exp()
        own = D[k] if isinstance(k, int) or not k.is_floating_point() else k @ D
        s = 1 + 2 * own * torch.as_tensor(t, dtype=z.dtype, device=z.device)
        return -0.5 * (z.square().sum(-1) / s + z.shape[-1] * torch.log(2 * math.pi * s))

    def path_log_prob(
        self, path: Float[Tensor, "times *batch n"], k: Flow
    ) -> Float[Tensor, "times *batch"]:
        """log p_t(z_t) for t = 0 … T."""
        t = torch.arange(len(path), dtype=path.dtype, device=path.device)
        return torch.stack([self.log_prob(z, t[i], k) for i, z in enumerate(path)])


class OfficialPrior(nn.Module):
    """log p_t = log p_{t-1} - Σ_i log|1 + D/s²_{t-1}|, D = 1: the released code's.

    It rescales log N(z_0; 0, I) and never looks at z_t, so it is no density of z_t; `HeatPrior`
    is. At t = 1 s = 1, later s² = σ_{t-1}² + 1e-5 with a learned σ for each time and flow.

    Args:
        flows: K.
        steps: The largest time.
    """

    def __init__(self, flows: int, steps: int) -> None:
        super().__init__()
        self.sigma = nn.Parameter(torch.ones(flows, steps))

    def loss_of_density(self, steps: int, k: Flow) -> Float[Tensor, "times ..."]:
        """Σ_{s<=t} log(1 + D/s²) for one coordinate and each time t = 0 … T."""
        if steps > self.sigma.shape[1]:
            raise ValueError(f"steps must be at most {self.sigma.shape[1]}, got {steps}")
        square = self.sigma[:, :steps].square() + 1e-5
        square = torch.cat((torch.ones_like(square[:, :1]), square[:, 1:]), 1)
        lost = torch.log1p(1 / square[:, :steps]).cumsum(1)
        lost = torch.cat((torch.zeros_like(lost[:, :1]), lost), 1)
        own = lost[k] if isinstance(k, int) or not k.is_floating_point() else k @ lost
        return own.movedim(-1, 0)

    def path_log_prob(
        self, path: Float[Tensor, "times *batch n"], k: Flow
    ) -> Float[Tensor, "times *batch"]:
        """The released code's log p_t, from z_0 alone."""
        lost = self.loss_of_density(len(path) - 1, k)
        lost = lost.reshape(len(path), *lost.shape[1:], *(1,) * (path.ndim - 1 - lost.ndim))
        return standard_log_prob(path[0]) - path.shape[-1] * lost
