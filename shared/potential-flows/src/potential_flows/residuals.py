"""Residuals of partial differential equations: what a potential leaves of each, row by row.

A residual is any callable (u, z, t) -> (*batch) that is zero where the equation holds; those
here take their coefficients by keyword (`functools.partial` fixes them), and a user's own needs
nothing more. `mean_square` makes a loss of its values.
"""

from collections.abc import Callable

from jaxtyping import Float
from linalg_kernels import errors
from torch import Tensor

from .derivatives import gradient, laplacian, spacetime_gradient, time_derivative
from .inputs import Potential, as_time, check_points, evaluate
from .potential import Time

# Δu of (u, z, t): `laplacian`, or an estimate of it.
Laplacian = Callable[[Potential, Tensor, Time], Tensor]
Coefficient = Float[Tensor, "*#batch"] | float | int


def heat_residual(
    u: Potential,
    z: Float[Tensor, "*batch n"],
    t: Time,
    *,
    diffusivity: Coefficient = 1.0,
    laplacian: Laplacian = laplacian,
) -> Float[Tensor, "*batch"]:
    """∂u/∂t - κ Δu.

    Args:
        u, z, t: As in `gradient`.
        diffusivity: κ, in z² per unit of t; a tensor is trained.
        laplacian: Δu of (u, z, t). An unbiased estimate makes the residual unbiased, but not its
            square, which grows by κ² times the estimate's variance.
    """
    return time_derivative(u, z, t) - diffusivity * laplacian(u, z, t)


def wave_residual(
    u: Potential,
    z: Float[Tensor, "*batch n"],
    t: Time,
    *,
    speed: Coefficient = 1.0,
    laplacian: Laplacian = laplacian,
) -> Float[Tensor, "*batch"]:
    """∂²u/∂t² - c² Δu (ChemFlow, equation 9).

    Args:
        u, z, t, laplacian: As in `heat_residual`.
        speed: c, in z per unit of t; a tensor is trained.
    """
    return time_derivative(u, z, t, order=2) - speed**2 * laplacian(u, z, t)


def hamilton_jacobi_residual(
    u: Potential,
    z: Float[Tensor, "*batch n"],
    t: Time,
    *,
    force: Potential | None = None,
) -> Float[Tensor, "*batch"]:
    """∂u/∂t + |∇u|²/2 - f(z, t) (ChemFlow, equation 7; Song et al. 2023 with f = -F² <= 0).

    |∇u|² is the sum over coordinates, and ∂u/∂t each row's own. (The released codes take the
    mean over coordinates and the sum over the batch.)

    Args:
        u, z, t: As in `gradient`.
        force: f, a callable as u is, e.g. `lambda z, t: -F(z, t) ** 2`; None for f = 0.
    """
    slope, rate = spacetime_gradient(u, z, t)
    residual = rate + slope.square().sum(-1) / 2
    if force is None:
        return residual
    return residual - evaluate(force, z, as_time(z, t), "force")


def fokker_planck_residual(
    u: Potential,
    z: Float[Tensor, "*batch n"],
    t: Time,
    *,
    drift: Potential,
    diffusivity: Coefficient = 1.0,
    laplacian: Laplacian = laplacian,
) -> Float[Tensor, "*batch"]:
    """∂u/∂t + ∇u·∇A + ΔA - D (Δu + |∇u|²), where u = log ρ in nats.

    It is (∂ρ/∂t + ∇·(ρ ∇A) - D Δρ) / ρ, and so zero for the density of particles that move by
    dz = ∇A dt + √(2D) dW (ChemFlow, appendix A, where D = 1).

    Args:
        u: The log density.
        z, t, laplacian: As in `heat_residual`.
        drift: A, a callable as u is.
        diffusivity: D, in z² per unit of t; a tensor is trained.
    """
    slope, rate = spacetime_gradient(u, z, t)
    transport = (slope * gradient(drift, z, t)).sum(-1) + laplacian(drift, z, t)
    return rate + transport - diffusivity * (laplacian(u, z, t) + slope.square().sum(-1))


def initial_value_residual(
    u: Potential, z: Float[Tensor, "*batch n"], values: Float[Tensor, "*batch"], t: Time = 0.0
) -> Float[Tensor, "*batch"]:
    """u(z, t₀) - values."""
    check_points(z)
    found = evaluate(u, z, as_time(z, t))
    _check_values(values, found, "values")
    return found - values


def initial_rate_residual(
    u: Potential, z: Float[Tensor, "*batch n"], rates: Float[Tensor, "*batch"], t: Time = 0.0
) -> Float[Tensor, "*batch"]:
    """∂u/∂t(z, t₀) - rates: the second condition that the wave equation needs."""
    found = time_derivative(u, z, t)
    _check_values(rates, found, "rates")
    return found - rates


def initial_speed(
    u: Potential, z: Float[Tensor, "*batch n"], t: Time = 0.0
) -> Float[Tensor, "*batch"]:
    """|∇u(z, t₀)|: zero where the sample is at rest in the beginning.

    Its `mean_square` is the initial condition of ChemFlow and of Song et al. 2023. It is a norm
    over coordinates, where their released codes take a mean, and its gradient at rest is zero.
    """
    slope = gradient(u, z, t)
    square = slope.square().sum(-1)
    # The root has an infinite slope at 0, which times 0 would be NaN.
    moves = square > 0
    return square.where(moves, 1.0).sqrt().where(moves, square)


def mean_square(
    residual: Float[Tensor, "*batch"], weights: Float[Tensor, "*#batch"] | None = None
) -> Float[Tensor, ""]:
    """Σ w r² / Σ w over the rows; the same when every row is there twice.

    Args:
        residual: Values of any residual.
        weights: Non-negative, by default 1; ValueError if one is negative or their sum is 0.
    """
    if residual.numel() == 0:
        raise ValueError(f"residual must hold at least one row, got {tuple(residual.shape)}")
    if weights is None:
        return residual.square().mean()
    errors.require_same_kind(residual, weights, ("residual", "weights"))
    errors.broadcast_batch({"residual": (residual, 0), "weights": (weights, 0)})
    weights = weights.expand(residual.shape)
    if errors.can_read(weights) and not bool((weights >= 0).all() & (weights.sum() > 0)):
        raise ValueError("weights must be >= 0 and not all 0")
    return (weights * residual.square()).sum() / weights.sum()


def _check_values(values: Tensor, found: Tensor, name: str) -> None:
    errors.require_same_kind(found, values, ("z", name))
    if values.shape != found.shape:
        raise ValueError(f"{name} must be {tuple(found.shape)}, got {tuple(values.shape)}")
