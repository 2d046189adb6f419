"""Solutions of dz/dt = ∇u(z, t) to a tolerance, at irregular times of each row's own."""

import itertools
from typing import Literal

import torch
from jaxtyping import Float
from linalg_kernels import errors
from torch import Tensor

from .derivatives import gradient
from .inputs import Potential, check_points

Method = Literal["dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun"]


def ode_path(
    u: Potential,
    z: Float[Tensor, "*batch n"],
    times: Float[Tensor, "T *#batch"],
    *,
    tol: float = 1e-6,
    method: Method = "dopri5",
) -> Float[Tensor, "T *batch n"]:
    """The flow of dz/dt = ∇u(z, t) through `times`, by torchdiffeq's adaptive Runge-Kutta.

    Equivalent to `euler_path` with infinitely many substeps. Trained through: derivatives in z,
    in the times and in the weights are those of the steps that the solver took. Step sizes are
    shared by all rows of a call, so that a row depends on its neighbours within the tolerance.

    Args:
        u: The potential.
        z: Points at times[0].
        times: (T,), or (T, *batch) where each row has its own; in any order, T >= 1.
            ValueError otherwise.
        tol: Error of a step, relative to each coordinate and to the root mean square of z;
            positive, ValueError otherwise.
        method: Name of an adaptive solver of torchdiffeq.

    Raises ImportError without torchdiffeq (`pip install "potential-flows[ode]"`).
    """
    check_points(z)
    errors.require_same_kind(z, times, ("z", "times"))
    if times.ndim == 0 or len(times) == 0:
        raise ValueError(f"times must be (T, ...) with T >= 1, got {tuple(times.shape)}")
    if not tol > 0:
        raise ValueError(f"tol must be positive, got {tol}")
    try:
        from torchdiffeq import odeint
    except ImportError as error:
        raise ImportError(
            'ode_path needs torchdiffeq: pip install "potential-flows[ode]"'
        ) from error
    size = z.detach().square().mean().sqrt().item() if z.numel() else 1.0
    # Everything at the origin: any absolute error is then relative to the first step.
    absolute = tol * (size or 1.0)
    span = torch.linspace(0, 1, 2, dtype=z.dtype, device=z.device)
    # Without it a solver steps beyond the end and interpolates, less exactly than it steps.
    stops = {"step_t": span[1:]}
    path = [z]
    for begin, end in itertools.pairwise(times):

        def velocity(s: Tensor, z: Tensor, begin: Tensor = begin, end: Tensor = end) -> Tensor:
            # The interval as s = 0 … 1: rows have intervals of their own, also empty ones.
            length = end - begin
            return length[..., None] * gradient(u, z, begin + s * length)

        z = odeint(velocity, z, span, rtol=tol, atol=absolute, method=method, options=stops)[1]
        path.append(z)
    return torch.stack(path)
