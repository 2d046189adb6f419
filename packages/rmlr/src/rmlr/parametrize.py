"""Points as functions of unconstrained numbers: n (n + 1)/2 a point, 0 for the identity.

Each metric takes the one in which its scores cost least: exp of a symmetric matrix where the
logarithm or a power of a point is wanted, a Cholesky factor where that is.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from linalg_kernels import cholesky, expm, from_chol_log, logm, powm
from linalg_kernels.packed import pack, pack_lower, symmetric, triangular
from spd_metrics import CholeskyLog
from spd_metrics.charts import power
from torch import Tensor

Numbers = Float[Tensor, "*batch m"]
Matrices = Float[Tensor, "*batch n n"]


@runtime_checkable
class Trivialisation(Protocol):
    """A smooth map of R^(n (n + 1)/2) onto the points."""

    def point(self, z: Numbers) -> Matrices:
        """The point P."""
        ...

    def numbers(self, P: Matrices) -> Numbers:
        """The inverse. LinAlgError naming the element that is no point."""
        ...


@dataclass(frozen=True)
class Exponential:
    """P = exp(Z), Z symmetric."""

    def log(self, z: Numbers) -> Matrices:
        """log P = Z."""
        return symmetric(z)

    def point(self, z: Numbers) -> Matrices:
        return expm(self.log(z))

    def numbers(self, P: Matrices) -> Numbers:
        return pack(logm(P, nonpos="raise", name="P"))


def _log_diagonal(L: Matrices) -> Matrices:
    """⌊L⌋ + log diag L."""
    return L.tril(-1) + torch.diag_embed(torch.log(L.diagonal(dim1=-2, dim2=-1)))


def _exp_diagonal(Z: Matrices) -> Matrices:
    """⌊Z⌋ + exp diag Z."""
    return Z.tril(-1) + torch.diag_embed(torch.exp(Z.diagonal(dim1=-2, dim2=-1)))


@dataclass(frozen=True)
class LowerFactor:
    """The Cholesky factor L = ⌊Z⌋ + exp diag Z, Z lower triangular, is the point itself."""

    def point(self, z: Numbers) -> Matrices:
        return _exp_diagonal(triangular(z))

    def numbers(self, P: Matrices) -> Numbers:
        return pack_lower(_log_diagonal(CholeskyLog().chart(P, "P")))


@dataclass(frozen=True)
class CholeskyOfPower:
    """P^s = L L^T with L = ⌊Z⌋ + exp diag Z. With a learned s the point moves as s does."""

    s: float | Tensor = 1.0

    def factor(self, z: Numbers) -> Matrices:
        """L."""
        return _exp_diagonal(triangular(z))

    def power(self, z: Numbers) -> Matrices:
        """P^s, exactly symmetric."""
        return from_chol_log(triangular(z))

    def point(self, z: Numbers) -> Matrices:
        if isinstance(self.s, Tensor):
            return powm(self.power(z), 1 / self.s)
        return power(1 / self.s)(self.power(z), "P")

    def numbers(self, P: Matrices) -> Numbers:
        if isinstance(self.s, Tensor):
            X = powm(P, self.s.detach(), nonpos="raise", name="P")
        else:
            X = power(self.s)(P, "P")
        return pack_lower(_log_diagonal(cholesky(X, name="P")))
