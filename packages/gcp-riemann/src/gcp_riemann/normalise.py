"""Matrix functions that normalise covariances: power, logarithm, log-Cholesky.

Covariances of M positions have rank at most M - 1, so most of them are singular. A power needs
no more than that: 0^θ = 0. Logarithm and Cholesky factor need a shift Σ + s (tr Σ / n) I, which
is relative, so that the unit of the features does not matter; for s=None it is 1e-6, or 4 n eps
where that is more, below which rounding can make a singular matrix indefinite. A zero
covariance, as of a constant map, gives zero in every one of them, with derivative zero.
"""

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from linalg_kernels import cholesky, errors, logm, pade_sqrtm, powm, scalar, spectral_fn
from torch import Tensor, nn

from gcp_riemann import inputs
from gcp_riemann.newton_schulz import SCALINGS, Scaling, newton_schulz_root, root_residual

Method = Literal["eigh", "newton_schulz", "pade"]
METHODS = ("eigh", "newton_schulz", "pade")

ROUNDING = 8
"""Eigenvalues up to this many roundings of ‖P‖_F count as zero."""


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


def _truncated(theta: float, floor: float, check: bool) -> tuple[Callable[..., Tensor], ...]:
    """x^θ above the floor, 0 about 0, NaN below: value, derivative, divided difference, second.

    Between an eigenvalue a that counts and one that does not, the divided difference is
    a^θ / a; between two that do not it is 0. That is the derivative along every perturbation
    that keeps the rank, and covariances of one number of positions have one rank.
    """
    base = scalar.SQRT if theta == 0.5 else scalar.POWER

    def where(w: Tensor, value: Tensor) -> Tensor:
        return torch.where(w > floor, value, 0)

    def safe(w: Tensor) -> Tensor:
        return torch.where(w > floor, w, 1)

    def divided(a: Tensor, b: Tensor) -> Tensor:
        p = torch.full((), theta, dtype=a.dtype, device=a.device)
        both, larger = (a > floor) & (b > floor), torch.maximum(a, b)
        one = where(larger, safe(larger) ** (theta - 1))
        return torch.where(both, base.first(safe(a), safe(b), p), one)

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
        F = spectral_fn(P / size, value, slope, divided, d2f=curvature, check=False, name="P")
        return size**theta * F


def matrix_log(
    P: Float[Tensor, "*batch n n"],
    *,
    shift: float | None = None,
    absolute_shift: float = 0.0,
    check: bool = True,
) -> Float[Tensor, "*batch n n"]:
    """log(P + s (tr P / n) I) of positive semidefinite P, relative shift s as in this module.

    Raises LinAlgError naming the element that is not positive definite even so.
    """
    with inputs.full_precision(P.device):
        P = shifted(inputs.matrices(P, check), shift, absolute_shift)
        return logm(P, check=False, nonpos="raise", name="P")


def log_cholesky(
    P: Float[Tensor, "*batch n n"],
    theta: float = 1.0,
    *,
    shift: float | None = None,
    absolute_shift: float = 0.0,
    check: bool = True,
) -> Float[Tensor, "*batch n n"]:
    """(1/θ)(⌊L⌋ + ⌊L⌋ᵀ + 2 log diag L) with L Lᵀ = (P + s (tr P / n) I)^θ.

    The logarithm at I of the log-Cholesky metric `spd_metrics.LogCholesky(theta)`. Raises
    LinAlgError naming the element that is not positive definite in spite of the shift.

    Source: Chen et al., ICLR 2025, Tab. 2; the official code shifts by 1e-6 whatever the unit,
    which is `shift=0.0, absolute_shift=1e-6`.
    """
    inputs.require_positive(theta, "theta")
    with inputs.full_precision(P.device):
        P = shifted(inputs.matrices(P, check), shift, absolute_shift)
        if theta != 1:
            P = powm(P, theta, check=False, nonpos="raise", name="P")
        L = cholesky(P, check=False, name="P")
        lower = L.tril(-1)
        X = lower + lower.mT + torch.diag_embed(2 * L.diagonal(dim1=-2, dim2=-1).log())
        return X if theta == 1 else X / theta


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
        shift: s >= 0; None: see this module.
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


class LogCholesky(nn.Module):
    """(1/θ)(⌊L⌋ + ⌊L⌋ᵀ + 2 log diag L) with L Lᵀ = (P + s (tr P / n) I)^θ.

    Args:
        theta: θ > 0; 1 costs one Cholesky factorisation.
        shift: s >= 0; None: see this module.
        absolute_shift: Added to the diagonal whatever the unit of P, as the official code does.
        check: Raise an error that names the bad element.
    """

    def __init__(
        self,
        theta: float = 1.0,
        shift: float | None = None,
        *,
        absolute_shift: float = 0.0,
        check: bool = True,
    ) -> None:
        super().__init__()
        inputs.require_positive(theta, "theta")
        if shift is not None:
            inputs.require_not_negative(shift, "shift")
        inputs.require_not_negative(absolute_shift, "absolute_shift")
        self.theta, self.shift, self.check = theta, shift, check
        self.absolute_shift = absolute_shift

    def forward(self, P: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
        """See `log_cholesky`."""
        return log_cholesky(
            P,
            self.theta,
            shift=self.shift,
            absolute_shift=self.absolute_shift,
            check=self.check,
        )

    def extra_repr(self) -> str:
        """Options."""
        return f"{self.theta}, shift={self.shift}, absolute_shift={self.absolute_shift}"
