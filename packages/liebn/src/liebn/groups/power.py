"""The power deformation P^θ that charts begin with."""

from jaxtyping import Float
from linalg_kernels import powm
from torch import Tensor


def check_power(theta: float) -> None:
    """ValueError for θ = 0, whose limit is the log-Euclidean group."""
    if theta == 0:
        raise ValueError("theta must not be 0; LogEuclideanGroup is the limit")


def power(
    P: Float[Tensor, "*batch n n"], theta: float, name: str = "X", *, check: bool = True
) -> Float[Tensor, "*batch n n"]:
    """P^θ of positive definite P, without an eigendecomposition where there is a product.

    With `check`, LinAlgError names the element that is not positive definite, unless θ = 1,
    where nothing has looked at the eigenvalues.
    """
    if theta == 1:
        return P
    if theta == 2 and not check:
        return P @ P
    return powm(P, theta, check=check, nonpos="raise" if check else "ieee", name=name)
