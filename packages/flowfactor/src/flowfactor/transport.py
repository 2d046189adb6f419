"""How near the learned paths are to optimal transport."""

import torch
from jaxtyping import Float
from torch import Tensor

from .flow import LatentFlow


def path_cost(
    flow: LatentFlow, z: Float[Tensor, "batch n"], k: int, steps: int
) -> tuple[float, Float[Tensor, "batch n"]]:
    """T Σ_t mean |z_t - z_{t-1}|², and z_T.

    The action of Benamou and Brenier for the time T of the path cut into T steps, in units of
    z²: never below the squared distance W₂² between the clouds of z_0 and z_T.
    """
    path = flow.rollout(z, k, steps)
    return steps * path.diff(dim=0).square().sum(-1).mean(-1).sum().item(), path[-1]


def squared_wasserstein(a: Float[Tensor, "batch n"], b: Float[Tensor, "batch n"]) -> float:
    """W₂² of two clouds of as many points, by the best assignment; needs SciPy."""
    from scipy.optimize import linear_sum_assignment

    if a.shape != b.shape:
        raise ValueError(f"b must be {tuple(a.shape)}, as a is, got {tuple(b.shape)}")
    cost = torch.cdist(a.detach().double(), b.detach().double()).square().cpu().numpy()
    rows, columns = linear_sum_assignment(cost)
    return float(cost[rows, columns].mean())


@torch.no_grad()
def transport_excess(flow: LatentFlow, z: Float[Tensor, "batch n"], k: int, steps: int) -> float:
    """Cost of the flow's path over W₂² of its ends: 1 where the path is optimal, else more."""
    cost, end = path_cost(flow, z, k, steps)
    return cost / squared_wasserstein(z, end)
