"""Smooth scalar potentials u(z, t), their derivatives, PDE residuals and steppers for PyTorch."""

from .derivatives import (
    gradient,
    hessian,
    hessian_product,
    hutchinson_laplacian,
    laplacian,
    spacetime_gradient,
    step_logabsdet,
    time_derivative,
)
from .potential import MLPPotential
from .time_embedding import sinusoidal_embedding

__all__ = [
    "MLPPotential", "sinusoidal_embedding",
    "gradient", "spacetime_gradient", "time_derivative",
    "hessian", "hessian_product", "laplacian", "hutchinson_laplacian", "step_logabsdet",
]  # fmt: skip
