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
from .inputs import Potential
from .ode import ode_path
from .potential import MLPPotential
from .residuals import (
    fokker_planck_residual,
    hamilton_jacobi_residual,
    heat_residual,
    initial_rate_residual,
    initial_speed,
    initial_value_residual,
    mean_square,
    wave_residual,
)
from .steppers import (
    Inverse,
    euler_path,
    euler_step,
    euler_step_logabsdet,
    inverse_euler_step,
    langevin_step,
)
from .time_embedding import sinusoidal_embedding

__all__ = [
    "MLPPotential", "Potential", "sinusoidal_embedding",
    "gradient", "spacetime_gradient", "time_derivative",
    "hessian", "hessian_product", "laplacian", "hutchinson_laplacian", "step_logabsdet",
    "heat_residual", "wave_residual", "hamilton_jacobi_residual", "fokker_planck_residual",
    "initial_value_residual", "initial_rate_residual", "initial_speed", "mean_square",
    "euler_step", "euler_step_logabsdet", "euler_path", "ode_path", "langevin_step",
    "inverse_euler_step", "Inverse",
]  # fmt: skip
