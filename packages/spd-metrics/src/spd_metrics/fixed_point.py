"""Fixed points that are reached in few steps, differentiated through the steps."""

import math
import warnings
from collections.abc import Callable

import torch
from linalg_kernels import ConvergenceWarning
from linalg_kernels.transforms import read
from torch import Tensor

_LIMIT = 60
# The count where values cannot be read.
_BLIND = 12


def iterate(
    step: Callable[[Tensor], tuple[Tensor, Tensor]],
    start: Tensor,
    name: str,
    tol: float | None = None,
) -> Tensor:
    """x <- step(x) until the size that step returns beside it stops falling.

    Or until it is at most `tol` of the norm of x. Steps must contract. Warns
    (ConvergenceWarning) if that takes too long.
    """
    x, best = start, math.inf
    tiny = 1e3 * torch.finfo(start.dtype).eps
    for done in range(_LIMIT):
        x, size = step(x)
        moved = read(size.detach().amax()) if size.numel() else 0.0
        if moved is None:
            if done + 1 == _BLIND:
                return x
            continue
        reached = read(torch.linalg.matrix_norm(x.detach()).amax()) or 0.0
        # Below rounding a step no longer shrinks; before it, one that grows is not one.
        close = tol is not None and moved <= tol * reached
        still = moved <= tiny * reached and moved >= 0.5 * best
        if close or still or moved == 0 or math.isnan(moved):
            return x
        best = min(best, moved)
    warnings.warn(f"{name} stopped after {_LIMIT} steps", ConvergenceWarning, stacklevel=4)
    return x
