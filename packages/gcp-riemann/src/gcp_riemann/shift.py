"""The relative shift Σ + s (tr Σ / n) I that makes singular covariances definite.

For s = None it is 1e-6, or 4 n eps where that is more, below which rounding can make a singular
matrix indefinite.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from gcp_riemann import inputs


def default_shift(n: int, dtype: torch.dtype) -> float:
    """The relative shift for matrices of order n."""
    return max(1e-6, 4 * n * torch.finfo(dtype).eps)


def shifted(
    P: Float[Tensor, "*batch n n"], shift: float | None, absolute_shift: float = 0.0
) -> Float[Tensor, "*batch n n"]:
    """P + (shift tr P / n + absolute_shift) I, or I where that is zero.

    I is the matrix whose logarithm is zero.
    """
    n = P.shape[-1]
    shift = default_shift(n, P.dtype) if shift is None else shift
    lift = shift * inputs.trace(P) / n + absolute_shift
    identity = torch.eye(n, dtype=P.dtype, device=P.device)
    zero = (inputs.trace(P) == 0) & (lift == 0)
    return torch.where(zero, identity, P + lift * identity)
