"""Covariance matrices of signals and their regularisation towards the identity."""

from typing import Literal

import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from linalg_kernels import errors
from linalg_kernels.backends import torch as reference
from linalg_kernels.precision import full_precision, promote, restore
from linalg_kernels.transforms import inspect

Shrinkage = float | Literal["ledoit_wolf", "oas"]


@full_precision
def covariance(
    X: Inexact[Tensor, "*batch channels samples"],
    *,
    ddof: int = 1,
    shrinkage: Tensor | Shrinkage = 0.0,
    assume_centered: bool = False,
    check: bool = True,
    upcast: bool = False,
) -> Inexact[Tensor, "*batch channels channels"]:
    """Sample covariance C = (X - mean)(X - mean)^H / (samples - ddof) of each signal.

    Args:
        X: Signals, one row a channel, in any unit u; C is in u².
        ddof: Degrees of freedom taken off the number of samples. Not used with
            `assume_centered`, where the divisor is the number of samples.
        shrinkage: Weight in [0, 1] of the target tr(C)/n I, a number or a tensor that
            broadcasts with the batch; or "ledoit_wolf" (Ledoit and Wolf 2004) or "oas" (Chen
            et al. 2010), which estimate it for each signal and are defined for ddof=0.
        assume_centered: Do not subtract the mean.
        check: Raise `LinAlgError` naming the first signal that holds NaN or Inf.
        upcast: Compute float16 and bfloat16 in float32.

    Equivalent to `numpy.cov(X, ddof=ddof)` for one signal; the estimated shrinkages to
    `sklearn.covariance.ledoit_wolf` and `oas` of X^T.
    """
    X, dtype = promote(X, upcast)
    errors.require_float(X, "X")
    if X.ndim < 2:
        raise ValueError(f"X must be (..., channels, samples), got {tuple(X.shape)}")
    if check:
        X = inspect(X, lambda T: errors.check_finite(T, "X"))
    samples = X.shape[-1]
    divisor = samples if assume_centered else samples - ddof
    if divisor < 1:
        raise ValueError(
            f"X has {samples} samples, too few for ddof={0 if assume_centered else ddof}"
        )
    if not assume_centered:
        X = X - X.mean(-1, keepdim=True)
    C = reference.hermitian(X @ X.mH) / divisor
    if isinstance(shrinkage, str):
        if divisor != samples:
            raise ValueError(f"shrinkage={shrinkage!r} is defined for ddof=0, got ddof={ddof}")
        shrinkage = _estimated_shrinkage(X, C, shrinkage)
    elif not isinstance(shrinkage, Tensor) and shrinkage == 0.0:
        return restore(C, dtype)
    return restore(_shrink(C, shrinkage), dtype)


@full_precision
def shrink_covariance(
    C: Inexact[Tensor, "*#batch n n"],
    shrinkage: Float[Tensor, "*#batch"] | float,
    *,
    check: bool = True,
    upcast: bool = False,
) -> Inexact[Tensor, "*batch n n"]:
    """(1 - s) C + s tr(C)/n I: the same trace, eigenvalues drawn towards their mean.

    `shrinkage` s in [0, 1] is a number or a tensor that broadcasts with the batch,
    differentiable. The weight is relative to the matrix, so the unit of C does not matter; a
    singular C becomes positive definite for s > 0 unless it is zero.
    """
    C, dtype = promote(C, upcast)
    errors.require_float(C, "C")
    errors.require_square(C, "C")
    if check:
        C = inspect(C, lambda T: errors.check_matrices(T, "C"))
    return restore(_shrink(reference.hermitian(C), shrinkage), dtype)


def _shrink(C: Tensor, shrinkage: Tensor | float) -> Tensor:
    real = C.real.dtype if C.is_complex() else C.dtype
    if isinstance(shrinkage, Tensor):
        errors.broadcast_batch({"C": (C, 2), "shrinkage": (shrinkage, 0)})
        shrinkage = inspect(shrinkage, _check_weights_of_target)
        s = shrinkage.to(dtype=real, device=C.device)[..., None, None]
    else:
        if not 0 <= shrinkage <= 1:
            raise ValueError(f"shrinkage must lie in [0, 1], got {shrinkage}")
        s = shrinkage
    n = C.shape[-1]
    mean = C.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None] / max(n, 1)
    return (1 - s) * C + s * mean * torch.eye(n, dtype=C.dtype, device=C.device)


def _check_weights_of_target(shrinkage: Tensor) -> None:
    if not bool(((shrinkage >= 0) & (shrinkage <= 1)).all()):
        worst = shrinkage.min() if bool((shrinkage < 0).any()) else shrinkage.max()
        raise ValueError(f"shrinkage must lie in [0, 1], got {worst.item():.3g}")


def _estimated_shrinkage(X: Tensor, C: Tensor, rule: str) -> Tensor:
    """Optimal weight of tr(C)/n I for centred X with C = X X^H / samples."""
    n, samples = X.shape[-2:]
    trace = C.diagonal(dim1=-2, dim2=-1).real.sum(-1)
    squared = (C.abs() ** 2).sum((-2, -1))
    distance = squared - trace**2 / n
    if rule == "ledoit_wolf":
        norms = (X.abs() ** 2).sum(-2)
        noise = ((norms**2).mean(-1) - squared) / samples
    elif rule == "oas":
        # Chen et al. 2010, eq. 23, without its factors 2/n, as scikit-learn and pyRiemann do.
        noise = (squared + trace**2) / (samples + 1)
    else:
        raise ValueError(f"shrinkage must be a number, 'ledoit_wolf' or 'oas', got {rule!r}")
    certain = distance <= 0
    return torch.where(certain, 1, noise / torch.where(certain, 1, distance)).clamp(0, 1)
