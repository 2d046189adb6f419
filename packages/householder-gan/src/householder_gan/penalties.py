"""Regularisers of a generator: R1, path length, Hessian penalty. All can be back-propagated."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor


def r1_penalty(
    discriminator: Callable[[Tensor], Tensor], images: Float[Tensor, "batch c h w"]
) -> Float[Tensor, ""]:
    """E ‖∂D/∂x‖² over real images (Mescheder et al., ICML 2018)."""
    images = images.detach().requires_grad_()
    (slope,) = torch.autograd.grad(discriminator(images).sum(), images, create_graph=True)
    return slope.square().sum((1, 2, 3)).mean()


def path_lengths(
    synthesis: Callable[[Tensor], Tensor], ws: Float[Tensor, "batch slots w"]
) -> Float[Tensor, " batch"]:
    """‖Jᵀy‖ for y ~ N(0, I/(h w)), J the Jacobian of the image: (Σ_w mean over slots)^½."""
    images = synthesis(ws)
    y = torch.randn_like(images) / math.sqrt(images.shape[-2] * images.shape[-1])
    (slope,) = torch.autograd.grad((images * y).sum(), ws, create_graph=True)
    return slope.square().sum(2).mean(1).sqrt()


def hessian_penalty(
    function: Callable[[Tensor], Tensor],
    z: Float[Tensor, "batch d"],
    *,
    probes: int = 2,
    epsilon: float = 0.1,
    rng: torch.Generator | None = None,
) -> Float[Tensor, ""]:
    """The largest variance over random signs x of the second difference along x.

    max over outputs of Var_x [(G(z + ε x) - 2 G(z) + G(z - ε x))/ε²], which is about twice the
    sum of squares of the Hessian's off-diagonal entries (Peebles et al., ECCV 2020). Costs
    1 + 2·probes evaluations. The paper's comparison uses weight 0.1 and ε = 1; its script leaves
    the term out of the loss that it back-propagates.
    """
    if probes < 2:
        raise ValueError(f"probes must be >= 2 for a variance, got {probes}")
    if not epsilon > 0:
        raise ValueError(f"epsilon must be > 0, got {epsilon}")
    middle = function(z)
    seconds = []
    for _ in range(probes):
        signs = torch.randint(0, 2, z.shape, generator=rng).to(z) * 2 - 1
        both = function(z + epsilon * signs) + function(z - epsilon * signs)
        seconds.append((both - 2 * middle) / epsilon**2)
    return torch.stack(seconds).var(0).amax()
