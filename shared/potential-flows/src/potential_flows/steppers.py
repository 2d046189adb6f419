"""Steps along the gradient of a potential, and the way back."""

import math
import warnings
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from linalg_kernels import ConvergenceWarning, errors
from torch import Tensor

from .derivatives import gradient, hessian, step_logabsdet
from .inputs import Potential, as_time, check_points
from .potential import Time


def euler_step(
    u: Potential, z: Float[Tensor, "*batch n"], t: Time, step: float = 1.0, substeps: int = 1
) -> Float[Tensor, "*batch n"]:
    """`substeps` times z <- z + (step/substeps) ∇u(z, t), at one t.

    With the defaults z_t = z_{t-1} + ∇u(z_{t-1}, t), the transition of Song et al. 2023.

    Args:
        u, z, t: As in `gradient`.
        step: Length of the whole step; negative goes down.
        substeps: At least 1; ValueError otherwise.
    """
    _check_substeps(substeps)
    for _ in range(substeps):
        z = z + (step / substeps) * gradient(u, z, t)
    return z


def euler_step_logabsdet(
    u: Potential,
    z: Float[Tensor, "*batch n"],
    t: Time,
    step: float = 1.0,
    substeps: int = 1,
    *,
    chunk_size: int | None = None,
) -> tuple[Float[Tensor, "*batch n"], Float[Tensor, "*batch"]]:
    """`euler_step` and log|det| of its Jacobian, the sum of `step_logabsdet` over substeps."""
    _check_substeps(substeps)
    part = step / substeps
    total = step_logabsdet(u, z, t, part, chunk_size=chunk_size)
    for left in reversed(range(substeps)):
        z = z + part * gradient(u, z, t)
        if left:
            total = total + step_logabsdet(u, z, t, part, chunk_size=chunk_size)
    return z, total


def euler_path(
    u: Potential,
    z: Float[Tensor, "*batch n"],
    times: Float[Tensor, " T"],
    substeps: int = 1,
) -> Float[Tensor, "T *batch n"]:
    """Explicit Euler for dz/dt = ∇u(z, t) through `times`, which may be irregular or fall.

    Each interval is cut into `substeps` equal parts, and each part starts from the velocity at
    its own beginning; the error is of first order in their length.

    Args:
        u: The potential.
        z: Points at times[0].
        times: One or more; ValueError otherwise.
        substeps: At least 1; ValueError otherwise.
    """
    check_points(z)
    errors.require_same_kind(z, times, ("z", "times"))
    if times.ndim != 1 or len(times) == 0:
        raise ValueError(f"times must be (T,) with T >= 1, got {tuple(times.shape)}")
    _check_substeps(substeps)
    path = [z]
    for i in range(len(times) - 1):
        part = (times[i + 1] - times[i]) / substeps
        for j in range(substeps):
            z = z + part * gradient(u, z, times[i] + j * part)
        path.append(z)
    return torch.stack(path)


def langevin_step(
    u: Potential,
    z: Float[Tensor, "*batch n"],
    t: Time,
    step: float,
    noise: float = 1.0,
    *,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "*batch n"]:
    """z + α ∇u(z, t) + β √(2α) ξ with ξ standard normal (ChemFlow, section 6).

    For β = 1 and α -> 0 it samples the density exp u.

    Args:
        u, z, t: As in `gradient`.
        step: α, positive; ValueError otherwise.
        noise: β, not negative; ValueError otherwise. 0 is `euler_step`.
        generator: Source of ξ, on the device of z.
    """
    if not step > 0:
        raise ValueError(f"step must be positive, got {step}")
    if not noise >= 0:
        raise ValueError(f"noise must not be negative, got {noise}")
    slope = gradient(u, z, t)
    xi = torch.randn(z.shape, dtype=z.dtype, device=z.device, generator=generator)
    return z + step * slope + noise * math.sqrt(2 * step) * xi


class Inverse(NamedTuple):
    """Where a step came from, and how that was found; of several substeps, the worst."""

    z: Float[Tensor, "*batch n"]
    converged: Bool[Tensor, "*batch"]
    iterations: Int[Tensor, "*batch"]
    # |z + step ∇u(z) - y| over the size of its terms, at the last iterate.
    residual: Float[Tensor, "*batch"]
    # Largest ratio of one change to the one before: below 1 where iterations contract.
    contraction: Float[Tensor, "*batch"]


def inverse_euler_step(
    u: Potential,
    y: Float[Tensor, "*batch n"],
    t: Time,
    step: float = 1.0,
    substeps: int = 1,
    *,
    tol: float | None = None,
    max_iter: int = 200,
) -> Inverse:
    """The z with euler_step(u, z, t, step, substeps) = y, by z <- y - (step/substeps) ∇u(z, t).

    It contracts by ‖(step/substeps) ∇²u‖: where that is below 1 everywhere the step is a
    diffeomorphism and z is its only origin. More substeps make it smaller. Rows that do not
    converge are reported, and warned of (`ConvergenceWarning`); they hold their last iterate.
    First derivatives of converged rows in y and in the weights are those of the implicit
    equation, (I + step ∇²u)⁻¹; the others are constant.

    Args:
        u, t, step, substeps: As in `euler_step`.
        y: Where the step ended.
        tol: Converged when the residual, relative to |y| + |z| + |step ∇u|, is at most this;
            16 roundings of the dtype by default.
        max_iter: At least 1; ValueError otherwise. A count for each substep.
    """
    check_points(y, "y")
    t = as_time(y, t)
    _check_substeps(substeps)
    if max_iter < 1:
        raise ValueError(f"max_iter must be at least 1, got {max_iter}")
    tol = 16 * torch.finfo(y.dtype).eps if tol is None else tol
    part = step / substeps
    report = _fixed_point(u, y, t, part, tol, max_iter)
    for _ in range(substeps - 1):
        before = _fixed_point(u, report.z, t, part, tol, max_iter)
        report = Inverse(
            before.z,
            report.converged & before.converged,
            report.iterations + before.iterations,
            torch.maximum(report.residual, before.residual),
            torch.maximum(report.contraction, before.contraction),
        )
    if not bool(report.converged.all()):
        bad = ~report.converged
        first = report.residual[bad].flatten()[0].item()
        warnings.warn(
            f"inverse_euler_step: y{errors.element(bad)} has not converged in {max_iter} "
            f"iterations (relative residual {first:.2g}, tol {tol:.2g}); more substeps contract "
            "faster",
            ConvergenceWarning,
            stacklevel=2,
        )
    return report


def _fixed_point(
    u: Potential, y: Tensor, t: Tensor, step: float, tol: float, max_iter: int
) -> Inverse:
    with torch.no_grad():
        goal, z = y.detach(), y.detach()
        batch = y.shape[:-1]
        iterations = torch.zeros(batch, dtype=torch.int64, device=y.device)
        contraction = torch.zeros(batch, dtype=y.dtype, device=y.device)
        last = torch.zeros_like(contraction)
        for _ in range(max_iter + 1):
            move = step * gradient(u, z, t)
            change = goal - move - z
            size = change.norm(dim=-1)
            scale = goal.norm(dim=-1) + z.norm(dim=-1) + move.norm(dim=-1)
            converged = size <= tol * scale
            # Below the tolerance a ratio is of roundings, not of the map.
            seen = (last > 0) & ~converged
            ratio = torch.where(seen, size / last.where(last > 0, 1.0), 0.0)
            contraction = torch.maximum(contraction, ratio)
            if bool(converged.all()) or int(iterations.max()) == max_iter:
                break
            # A row that has converged stays: its result does not depend on its neighbours.
            z = torch.where(converged[..., None], z, z + change)
            iterations = iterations + (~converged)
            last = torch.where(converged, 0.0, size)
        residual = torch.where(scale > 0, size / scale.where(scale > 0, 1.0), 0.0)
    return Inverse(
        _implicit(u, y, z, t, step, converged), converged, iterations, residual, contraction
    )


def _implicit(
    u: Potential, y: Tensor, z: Tensor, t: Tensor, step: float, converged: Tensor
) -> Tensor:
    """z, with the derivatives of z + step ∇u(z) = y: those of one Newton step."""
    if not torch.is_grad_enabled():
        return z
    defect = y - z - step * gradient(u, z, t)
    if not defect.requires_grad:
        return z
    with torch.no_grad():
        eye = torch.eye(z.shape[-1], dtype=z.dtype, device=z.device)
        jacobian = torch.where(converged[..., None, None], eye + step * hessian(u, z, t), eye)
    # The defect is zero up to the tolerance; only its derivative is wanted.
    wanted = torch.where(converged[..., None], defect - defect.detach(), 0.0)
    return z + torch.linalg.solve(jacobian, wanted[..., None])[..., 0]


def _check_substeps(substeps: int) -> None:
    if substeps < 1:
        raise ValueError(f"substeps must be at least 1, got {substeps}")
