"""SPD matrices under the gyrogroups of the power- and Bures-Wasserstein-Cholesky metrics.

Both are flat and incomplete: ⌊L⌋ and the diagonal entries (l^a - 1)/a add up, as long as the
sum is the image of a positive diagonal, 1 + a x > 0. Centring and scaling may leave that image
in between; only where the normalised matrix itself lies outside does `domain` decide.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from linalg_kernels import cholesky
from spd_metrics import BuresWassersteinCholesky, PowerCholesky
from spd_metrics.inputs import Domain, admit
from torch import Tensor

from liebn.groups.flat import Flat, squares

Matrix = Float[Tensor, "*batch n n"]


class _DiagonalPower(Flat):
    """Coordinates ⌊L⌋ + (diag(L)^a - 1)/a, log diag L for a = 0."""

    @property
    def _power(self) -> float:
        raise NotImplementedError

    @property
    def _domain(self) -> Domain:
        raise NotImplementedError

    def chart(self, P: Matrix, name: str = "X") -> Matrix:
        """⌊L⌋ + (diag(L)^a - 1)/a."""
        L = cholesky(P, name=name)
        logs = torch.log(L.diagonal(dim1=-2, dim2=-1))
        a = self._power
        return L.tril(-1) + torch.diag_embed(logs if a == 0 else torch.expm1(a * logs) / a)

    def chart_inverse(self, X: Matrix) -> Matrix:
        """L L^T; where there is no such L, what `domain` says."""

        def compute(Y: Tensor) -> Tensor:
            x = Y.diagonal(dim1=-2, dim2=-1)
            a = self._power
            diagonal = torch.exp(x if a == 0 else torch.log1p(a * x) / a)
            L = Y.tril(-1) + torch.diag_embed(diagonal)
            return L @ L.mT

        if self._power == 0 or X.shape[-1] == 0:
            return compute(X)
        # The straight line from E = 0 to X leaves the image at time -1/(a x).
        lowest = (self._power * X.diagonal(dim1=-2, dim2=-1)).amin(-1)
        longest = torch.where(lowest < 0, -1 / lowest, torch.inf)
        return admit(X, longest, self._domain, compute, "the normalised X")

    def lift(self, Z: Matrix) -> Matrix:
        """The lower triangle of Z."""
        return Z.tril()

    def lift_inverse(self, X: Matrix) -> Matrix:
        """X."""
        return X


@dataclass(frozen=True)
class PowerCholeskyGroup(_DiagonalPower):
    """a = θ; d²(P, I) = ‖X‖_F².

    Args:
        theta: Any number.
        domain: What happens to a normalised matrix that does not exist: "raise" a ValueError
            that names it, "nan", or "clamp": stop just short of the boundary.

    Source: Chen et al., ICLR 2026, Table 1 (θ-PCM).
    """

    theta: float = 1.0
    domain: Domain = "raise"

    def __post_init__(self) -> None:
        PowerCholesky(self.theta, self.domain)

    @property
    def _power(self) -> float:
        return float(self.theta)

    @property
    def _domain(self) -> Domain:
        return self.domain

    def norm2(self, X: Matrix) -> Float[Tensor, "*batch"]:
        """‖X‖_F²."""
        return squares(X)


@dataclass(frozen=True)
class BuresWassersteinCholeskyGroup(_DiagonalPower):
    """a = θ/2; d²(P, I) = ‖⌊X⌋‖_F² + ‖diag X‖²/(4 m), m the weight.

    Args:
        theta: Any number.
        weight: m > 0, of every diagonal entry.
        domain: See `PowerCholeskyGroup`.

    Source: Chen et al., ICLR 2026, Table 1 ((θ, M)-BWCM).
    """

    theta: float = 1.0
    weight: float = 1.0
    domain: Domain = "raise"

    def __post_init__(self) -> None:
        BuresWassersteinCholesky(self.theta, self.weight, self.domain)

    @property
    def _power(self) -> float:
        return self.theta / 2

    @property
    def _domain(self) -> Domain:
        return self.domain

    def norm2(self, X: Matrix) -> Float[Tensor, "*batch"]:
        """‖⌊X⌋‖_F² + ‖diag X‖²/(4 m)."""
        diagonal = X.diagonal(dim1=-2, dim2=-1)
        return squares(X.tril(-1)) + diagonal.square().sum(-1) / (4 * self.weight)
