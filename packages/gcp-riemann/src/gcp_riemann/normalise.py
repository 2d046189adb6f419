"""Matrix functions that normalise covariances: power and logarithm.

Covariances of M positions have rank at most M - 1, so most of them are singular. A power needs
no more than that: 0^θ = 0. The logarithm needs a shift (`gcp_riemann.shift`). A zero
covariance, as of a constant map, gives zero in both of them, with derivative zero.
"""

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from linalg_kernels import errors, logm, pade_sqrtm, scalar, spectral_fn
from torch import Tensor, nn

from gcp_riemann import inputs, onnx_eigen
from gcp_riemann.newton_schulz import SCALINGS, Scaling, newton_schulz_root, root_residual
from gcp_riemann.shift import shifted

Method = Literal["eigh", "newton_schulz", "pade"]
METHODS = ("eigh", "newton_schulz", "pade")

ROUNDING = 8
"""Eigenvalues up to this many roundings of ‖P‖_F count as zero."""


def _truncated(theta: float, floor: float, check: bool) -> tuple[Callable[..., Tensor], ...]:
    """x^θ above the floor, 0 about 0, NaN below: value, derivative, divided difference, second.

    Between an eigenvalue a that counts and one that does not, the divided difference is
    a^θ / a; between two that do not it is 0. That is the derivative along every perturbation
    that keeps the rank, and covariances of one number of positions have one rank.
    """

    def where(w: Tensor, value: Tensor) -> Tensor:
        return torch.where(w > floor, value, 0)

    def safe(w: Tensor) -> Tensor:
        return torch.where(w > floor, w, 1)

    def divided(a: Tensor, b: Tensor) -> Tensor:
        # Arguments are a column and a row: what is done before they meet costs nothing.
        if theta == 0.5:
            total = where(a, a).sqrt() + where(b, b).sqrt()
            return torch.where(total == 0, 0, 1 / total)
        p = torch.full((), theta, dtype=a.dtype, device=a.device)
        powers = torch.maximum(where(a, safe(a) ** theta), where(b, safe(b) ** theta))
        one = powers / safe(torch.maximum(a, b))
        both = (a > floor) & (b > floor)
        return torch.where(both, scalar.POWER.first(safe(a), safe(b), p), one)

    def value(w: Tensor) -> Tensor:
        negative = w < -w.shape[-1] * floor
        if check and errors.can_read(w) and bool(negative.any()):
            bad = negative.any(-1)
            raise errors.LinAlgError(
                f"P{errors.element(bad)} must be positive semidefinite, but has an eigenvalue of "
                f"{w[bad][0].min().item():.3g} ‖P‖_F"
            )
        return torch.where(negative, torch.nan, where(w, safe(w) ** theta))

    return (
        value,
        lambda w: where(w, theta * safe(w) ** (theta - 1)),
        divided,
        lambda w: where(w, theta * (theta - 1) * safe(w) ** (theta - 2)),
    )


def matrix_power(
    P: Float[Tensor, "*batch n n"], theta: float = 0.5, *, check: bool = True
) -> Float[Tensor, "*batch n n"]:
    """P^θ = U w^θ Uᵀ of positive semidefinite P = U diag(w) Uᵀ, θ > 0; singular P are welcome.

    Eigenvalues within rounding of zero count as zero. The derivative is exact where eigenvalues
    are equal, and finite where P is singular: it is that along perturbations of the same rank,
    such as those of the features that P is a covariance of. Half precision is computed and
    returned in float32. With `check`, NaN, Inf or a negative eigenvalue raises LinAlgError
    and P far from symmetric ValueError, naming the element.
    """
    inputs.require_positive(theta, "theta")
    with inputs.full_precision(P.device):
        P = inputs.matrices(P, check)
        size = torch.linalg.matrix_norm(P.detach())[..., None, None]
        size = torch.where(size == 0, 1, size)
        floor = ROUNDING * torch.finfo(P.dtype).eps
        value, slope, divided, curvature = _truncated(theta, floor, check)
        if onnx_eigen.exporting():
            return size**theta * onnx_eigen.spectral(P / size, value)
        F = spectral_fn(P / size, value, slope, divided, d2f=curvature, check=False, name="P")
        return size**theta * F


def matrix_log(
    P: Float[Tensor, "*batch n n"],
    *,
    shift: float | None = None,
    absolute_shift: float = 0.0,
    check: bool = True,
) -> Float[Tensor, "*batch n n"]:
    """log(P + s (tr P / n) I) of positive semidefinite P, with the relative shift s.

    Raises LinAlgError naming the element that is not positive definite even so.
    """
    with inputs.full_precision(P.device):
        P = shifted(inputs.matrices(P, check), shift, absolute_shift)
        if onnx_eigen.exporting():
            return onnx_eigen.spectral(P, torch.log)
        return logm(P, check=False, nonpos="raise", name="P")


class MatrixPower(nn.Module):
    """P^θ, exactly or by an iteration for hardware that multiplies fast.

    Args:
        theta: θ > 0; the iterations know ½ only.
        method: "eigh", exact to rounding (`matrix_power`); "newton_schulz", matrix products
            alone (`newton_schulz_root`); "pade", `degree` linear solves (`pade_sqrtm` of
            linalg-kernels), good for well-conditioned matrices only.
        iters: Steps of Newton-Schulz.
        scaling: Of Newton-Schulz: "spectrum", or "trace" as published.
        degree: Of the Padé approximant.
        check: Raise an error that names the bad element.

    ValueError for θ <= 0, for another θ than ½ with an iteration, and for unknown options.
    """

    def __init__(
        self,
        theta: float = 0.5,
        method: Method = "eigh",
        *,
        iters: int = 5,
        scaling: Scaling = "spectrum",
        degree: int = 10,
        check: bool = True,
    ) -> None:
        super().__init__()
        inputs.require_positive(theta, "theta")
        inputs.require_one_of(method, METHODS, "method")
        inputs.require_one_of(scaling, SCALINGS, "scaling")
        if method != "eigh" and theta != 0.5:
            raise ValueError(f"theta must be 0.5 for method={method!r}, got {theta}")
        for count, name in ((iters, "iters"), (degree, "degree")):
            if count < 1:
                raise ValueError(f"{name} must be >= 1, got {count}")
        self.theta, self.method, self.check = theta, method, check
        self.iters, self.scaling, self.degree = iters, scaling, degree

    def forward(self, P: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
        """P^θ; see `matrix_power` and `newton_schulz_root` for what may come and what raises."""
        if self.method == "eigh":
            return matrix_power(P, self.theta, check=self.check)
        if self.method == "newton_schulz":
            return newton_schulz_root(P, self.iters, scaling=self.scaling, check=self.check)
        with inputs.full_precision(P.device):
            P = inputs.matrices(P, self.check)
            zero = inputs.trace(P) == 0
            root = pade_sqrtm(shifted(P, 0.0), self.degree, check=False).S
            return torch.where(zero, 0, root)

    def residual(self, P: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch"]:
        """How far the result is from a square root, ‖R² - P‖_F / ‖P‖_F for each P; θ = ½ only."""
        if self.theta != 0.5:
            raise ValueError(f"theta must be 0.5 for a residual, got {self.theta}")
        with torch.no_grad():
            return root_residual(P, self(P))

    def extra_repr(self) -> str:
        """Options."""
        told = {
            "eigh": "",
            "newton_schulz": f", iters={self.iters}, scaling={self.scaling!r}",
            "pade": f", degree={self.degree}",
        }
        return f"{self.theta}, {self.method!r}{told[self.method]}"


class MatrixLog(nn.Module):
    """log(P + s (tr P / n) I).

    Args:
        shift: s >= 0; None: see `gcp_riemann.shift`.
        check: Raise an error that names the bad element.
    """

    def __init__(self, shift: float | None = None, *, check: bool = True) -> None:
        super().__init__()
        if shift is not None:
            inputs.require_not_negative(shift, "shift")
        self.shift, self.check = shift, check

    def forward(self, P: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
        """See `matrix_log`."""
        return matrix_log(P, shift=self.shift, check=self.check)

    def extra_repr(self) -> str:
        """Options."""
        return f"shift={self.shift}"
