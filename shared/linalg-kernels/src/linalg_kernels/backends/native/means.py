"""The Karcher mean, all its steps in one call."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from linalg_kernels.backends.native import library


class Means(NamedTuple):
    """Karcher means with the most steps taken, the largest residual, and what was found in X.

    M is not to be used where something was found.
    """

    M: Float[Tensor, "*batch n n"]
    steps: int
    residual: float
    found: int


def karcher_mean(
    X: Float[Tensor, "*batch b n n"],
    weights: Float[Tensor, "*batch b"] | Float[Tensor, " b"],
    start: Float[Tensor, "*batch n n"],
    tol: float,
    max_iter: int,
    step: float | None,
) -> Means:
    """Each set from its start until its residual is at most `tol`; X is not empty.

    `weights` sum to one; `step` None is the length of Barzilai and Borwein.
    """
    X, weights = X.contiguous(), weights.contiguous()
    M = start.clone(memory_format=torch.contiguous_format)
    count, n = X.shape[-3], X.shape[-1]
    batch = M.numel() // (n * n)
    steps = torch.empty(batch, dtype=torch.int32)
    residual = torch.empty(batch, dtype=torch.float64)
    found = library.call(
        *("lk_karcher", X.dtype, batch, n, count, X.data_ptr(), weights.data_ptr()),
        *(weights.ndim == 1, tol, max_iter, 0.0 if step is None else step),
        *(M.data_ptr(), steps.data_ptr(), residual.data_ptr()),
    )
    if found:
        return Means(M, 0, float("nan"), found)
    return Means(M, int(steps.max()), float(residual.max()), 0)
