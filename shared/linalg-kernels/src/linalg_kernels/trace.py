"""The trace of a linear map that is known by its products with vectors (Hutchinson 1990)."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Inexact
from torch import Tensor

from linalg_kernels import errors


class TraceEstimate(NamedTuple):
    """Estimates of the trace (*batch) and their standard errors, NaN for a single sample."""

    value: Tensor
    standard_error: Tensor


def hutchinson_trace(
    matvec: Callable[[Tensor], Tensor],
    like: Inexact[Tensor, "*batch n"],
    samples: int = 1,
    *,
    generator: torch.Generator | None = None,
) -> TraceEstimate:
    """Unbiased estimate of tr A, the mean of z^T A z over vectors z of random signs.

    For a real symmetric A the variance is 2 Σ_{i≠j} a_ij² / samples: a diagonal A is exact
    with one sample. Differentiable wherever `matvec` is; the standard error is not.

    Args:
        matvec: A z for z (*batch, n), one product a batch element, e.g. a Hessian-vector
            product. Called `samples` times.
        like: A tensor whose shape, dtype and device the z take; its values are not read.
        samples: Number of vectors z, at least 1.
        generator: Source of the signs, on the device of `like`.
    """
    errors.require_float(like, "like")
    if like.ndim == 0:
        raise ValueError("like must be (..., n), got a single number")
    if samples < 1:
        raise ValueError(f"samples must be >= 1, got {samples}")
    values = []
    for _ in range(samples):
        signs = torch.randint(0, 2, like.shape, generator=generator, device=like.device)
        z = (2 * signs - 1).to(like.dtype)
        Az = matvec(z)
        if Az.shape != z.shape:
            raise ValueError(
                f"matvec must return {tuple(z.shape)}, the shape of like, got {tuple(Az.shape)}"
            )
        values.append((z * Az).sum(-1))
    drawn = torch.stack(values)
    value = drawn.mean(0)
    if samples == 1:
        return TraceEstimate(value, torch.full_like(value.detach().abs(), torch.nan))
    spread = (drawn - value).detach().abs().square().sum(0) / (samples - 1)
    return TraceEstimate(value, (spread / samples).sqrt())
