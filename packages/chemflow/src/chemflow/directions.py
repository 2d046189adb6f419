"""Directions of codes: linear ones of a property, and those that change the molecule most."""

from collections.abc import Callable
from typing import cast

import torch
from jaxtyping import Float
from linalg_kernels import LinearOperator, svd_topk
from torch import Tensor

from .pace import unit
from .surrogate import Decodes


def boundary_direction(
    codes: Float[Tensor, "n d"],
    values: Float[Tensor, " n"],
    *,
    share: float = 0.02,
    penalty: float = 1.0,
    max_iter: int = 200,
) -> Float[Tensor, " d"]:
    """The unit normal of the plane between codes of high and low values (ChemSpace).

    Du et al. 2023: a linear support vector machine, ½ |w|² + C Σ max(0, 1 - y (w·z + b))², on the
    highest and the lowest share of the codes among those at least one standard deviation from the
    mean. Equivalent to `sklearn.svm.LinearSVC(C=penalty)` of codes in units of their spread, but
    that the intercept has no penalty.

    Args:
        codes: z.
        values: Of the property; NaN is left out.
        share: Of all codes, taken from each end.
        penalty: C.
        max_iter: Of L-BFGS, in float64.

    Raises ValueError where no codes lie beyond a standard deviation on either side.
    """
    if not 0 < share <= 0.5:
        raise ValueError(f"share must be in (0, 0.5], got {share}")
    low, high = _ends(codes, values, share)
    z = torch.cat((low, high)).double()
    y = torch.cat((-torch.ones(len(low)), torch.ones(len(high)))).to(z)
    z = (z - z.mean(0)) / z.std()
    w = torch.zeros(z.shape[1] + 1, dtype=z.dtype, device=z.device)
    solver = torch.optim.LBFGS(
        [w.requires_grad_()],
        max_iter=max_iter,
        tolerance_grad=1e-10,
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        solver.zero_grad()
        short = (1 - y * (z @ w[:-1] + w[-1])).clamp_min(0)
        loss = w[:-1].square().sum() / 2 + penalty * short.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        solver.step(closure)
    return unit(w[:-1].detach()).to(codes)


def _ends(codes: Tensor, values: Tensor, share: float) -> tuple[Tensor, Tensor]:
    finite = values.isfinite()
    codes, values = codes[finite], values[finite]
    keep = max(1, round(share * len(values)))
    order = values.argsort()
    mean, std = values.mean(), values.std()
    if not std > 0:
        raise ValueError("values must differ from one another")
    low = order[:keep][values[order[:keep]] <= mean - std]
    high = order[-keep:][values[order[-keep:]] >= mean + std]
    if not len(low) or not len(high):
        raise ValueError(
            "values must lie beyond a standard deviation from their mean on both sides"
        )
    return codes[low], codes[high]


def ridge_direction(
    codes: Float[Tensor, "n d"], values: Float[Tensor, " n"], penalty: float = 1.0
) -> Float[Tensor, " d"]:
    """The unit vector of the ridge regression of values on codes: uses all of them.

    Args:
        codes: z.
        values: Of the property; NaN is left out.
        penalty: λ of λ |w|², relative to the mean eigenvalue of ZᵀZ / n.
    """
    finite = values.isfinite()
    z, y = codes[finite].double(), values[finite].double()
    z, y = z - z.mean(0), y - y.mean()
    gram = z.mT @ z / len(z)
    ridge = penalty * gram.diagonal().mean() * torch.eye(z.shape[1], dtype=z.dtype).to(z)
    return unit(torch.linalg.solve(gram + ridge, z.mT @ y / len(z))).to(codes)


def jacobian_directions(
    model: Decodes | Callable[[Tensor], Tensor], codes: Float[Tensor, "n d"], k: int
) -> tuple[Float[Tensor, "k d"], Float[Tensor, " k"]]:
    """The k unit directions that change decoded probabilities most, over all codes together.

    Right singular vectors of the Jacobians J_i stacked over the codes, (n·L·V, D), and the root
    mean square of |J_i v| over codes. Nothing of that size squared is formed: a product with the
    stack is one pass in forward mode, with its transpose one in reverse mode. Unsupervised flows
    are compared with it, as they look for directions of large |J v| too (Wei et al. 2024,
    equation 13).

    Args:
        model: Decodes, or any function of (b, D) that treats rows by themselves.
        codes: Where; their graph is held in memory, so that some hundreds are enough.
        k: At most D.
    """
    if len(codes) == 0:
        raise ValueError("codes must hold at least one row")
    if not 1 <= k <= codes.shape[1]:
        raise ValueError(f"k must be in 1 … {codes.shape[1]}, got {k}")
    decode = cast(Callable[[Tensor], Tensor], getattr(model, "probabilities", model))
    codes = codes.detach()
    # A common shift of all codes has the stacked Jacobians as its derivative.
    stacked = LinearOperator.jacobian(
        lambda v: decode(codes + v).flatten(), torch.zeros_like(codes[0])
    )
    _, s, v = svd_topk(stacked, k, oversample=min(8, codes.shape[1] - k))
    return v.mT.contiguous(), s / len(codes) ** 0.5
