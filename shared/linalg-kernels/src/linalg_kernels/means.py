"""Means that a chart makes arithmetic."""

from jaxtyping import Float, Inexact
from torch import Tensor

from linalg_kernels.barycenter import read_set
from linalg_kernels.cholesky import chol_log, from_chol_log
from linalg_kernels.precision import promote, restore


def log_cholesky_mean(
    X: Inexact[Tensor, "*batch b n n"],
    weights: Float[Tensor, "*#batch b"] | None = None,
    *,
    check: bool = True,
    upcast: bool = False,
) -> Inexact[Tensor, "*batch n n"]:
    """Fréchet mean of the log-Cholesky metric, from_chol_log(Σ w_i chol_log(X_i)), over dim -3.

    `weights` are nonnegative and normalised here; None means equal. Errors: `karcher_mean`.
    Source: Lin 2019, Prop. 9.
    """
    X, dtype = promote(X, upcast)
    X, weights = read_set(X, weights, check)
    chart = chol_log(X, check=False, name="X")
    return restore(from_chol_log((weights[..., None, None] * chart).sum(-3)), dtype)
