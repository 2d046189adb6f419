"""Derivatives of a potential u(z, t): per row, exact, and differentiable again for training.

A potential is any callable that takes z (*batch, n) and t (*batch) to values (*batch), each row
by itself (no batch normalisation in training mode). `MLPPotential` brings closed forms; every
other potential is differentiated by torch.func, in reverse mode throughout: forward mode has
gaps (silu, for one). Weights are trained
through either.
"""

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float
from linalg_kernels import TraceEstimate, hutchinson_trace, logabsdet_sym
from torch import Tensor
from torch.func import grad, vjp, vmap

from .inputs import Potential, as_time, check_points, check_same_shape, evaluate
from .potential import MLPPotential, Time


def _point(z: Tensor, t: Tensor | float) -> Tensor:
    check_points(z)
    return as_time(z, t)


def _gradient_map(u: Potential, t: Tensor) -> Callable[[Tensor], Tensor]:
    # Rows are independent, so the gradient of the sum is each row's own.
    return grad(lambda z: evaluate(u, z, t).sum())


def _total(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return f(x).sum()


def gradient(u: Potential, z: Float[Tensor, "*batch n"], t: Time) -> Float[Tensor, "*batch n"]:
    """∇u(z, t), in units of u per unit of z.

    Args:
        u: The potential.
        z: Points.
        t: A number, or times that broadcast to the batch of z.
    """
    if type(u) is MLPPotential:
        return u.gradient(z, t)
    return _gradient_map(u, _point(z, t))(z)


def spacetime_gradient(
    u: Potential, z: Float[Tensor, "*batch n"], t: Time
) -> tuple[Float[Tensor, "*batch n"], Float[Tensor, "*batch"]]:
    """∇u and ∂u/∂t in one pass; arguments as `gradient`."""
    if type(u) is MLPPotential:
        return u.spacetime_gradient(z, t)
    times = _point(z, t).expand(z.shape[:-1])
    slopes = grad(lambda z, t: evaluate(u, z, t).sum(), argnums=(0, 1))(z, times)
    return slopes[0], slopes[1]


def time_derivative(
    u: Potential, z: Float[Tensor, "*batch n"], t: Time, order: int = 1
) -> Float[Tensor, "*batch"]:
    """∂^order u/∂t^order of each row at its own time; arguments as `gradient`.

    Args:
        order: 1 or more; ValueError otherwise.
    """
    if order < 1:
        raise ValueError(f"order must be at least 1, got {order}")
    times = _point(z, t).expand(z.shape[:-1])

    f: Callable[[Tensor], Tensor] = partial(evaluate, u, z)
    for _ in range(order):
        f = grad(partial(_total, f))
    return f(times)


def hessian_product(
    u: Potential, z: Float[Tensor, "*batch n"], t: Time, v: Float[Tensor, "*batch n"]
) -> Float[Tensor, "*batch n"]:
    """H v with H = ∇²u(z, t), without forming H; arguments as `gradient`.

    Args:
        v: One vector a row, in the shape of z; ValueError otherwise.
    """
    if type(u) is MLPPotential:
        return u.hessian_product(z, t, v)
    times = _point(z, t)
    check_same_shape(v, z, "v")
    return vjp(_gradient_map(u, times), z)[1](v)[0]


def _over_basis(
    u: Potential,
    z: Tensor,
    t: Tensor,
    f: Callable[[Tensor, Tensor], Tensor],
    chunk_size: int | None,
) -> Tensor:
    """f(e, H e) of each unit vector e, stacked in front; chunk_size of them at a time."""
    product = vjp(_gradient_map(u, t), z)[1]

    def column(e: Tensor) -> Tensor:
        e = e.expand(z.shape)
        return f(e, product(e)[0])

    return vmap(column, chunk_size=chunk_size)(
        torch.eye(z.shape[-1], dtype=z.dtype, device=z.device)
    )


def hessian(
    u: Potential, z: Float[Tensor, "*batch n"], t: Time, *, chunk_size: int | None = None
) -> Float[Tensor, "*batch n n"]:
    """H = ∇²u(z, t), exactly symmetric; arguments as `gradient`.

    Args:
        chunk_size: Columns that are computed at once, by default all n; fewer take less memory.
            The closed form of `MLPPotential` has no columns and does not use it.
    """
    if type(u) is MLPPotential:
        return u.hessian(z, t)
    columns = _over_basis(u, z, _point(z, t), lambda _, He: He, chunk_size)
    H = columns.movedim(0, -1)
    return (H + H.mT) / 2


def laplacian(
    u: Potential, z: Float[Tensor, "*batch n"], t: Time, *, chunk_size: int | None = None
) -> Float[Tensor, "*batch"]:
    """Δu = tr ∇²u(z, t), exact, by n Hessian-vector products; arguments as `hessian`."""
    if type(u) is MLPPotential:
        return u.laplacian(z, t)
    diagonal = _over_basis(u, z, _point(z, t), lambda e, He: (e * He).sum(-1), chunk_size)
    return diagonal.sum(0)


def hutchinson_laplacian(
    u: Potential,
    z: Float[Tensor, "*batch n"],
    t: Time,
    samples: int = 1,
    *,
    generator: torch.Generator | None = None,
) -> TraceEstimate:
    """Unbiased estimate of Δu from `samples` Hessian-vector products, with its standard error.

    Exact where the Hessian is diagonal. A square of the value is biased upwards by its
    variance, 2 Σ_{i≠j} H_ij² / samples: multiply two independent estimates where that matters.

    Args:
        u, z, t: As in `gradient`.
        samples: Number of vectors of random signs, at least 1; ValueError otherwise.
        generator: Source of the signs, on the device of z.
    """
    times = _point(z, t)
    return hutchinson_trace(
        lambda v: hessian_product(u, z, times, v), z, samples, generator=generator
    )


def step_logabsdet(
    u: Potential,
    z: Float[Tensor, "*batch n"],
    t: Time,
    step: float = 1.0,
    *,
    chunk_size: int | None = None,
    check: bool = True,
) -> Float[Tensor, "*batch"]:
    """log|det(I + step ∇²u(z, t))| in nats: what z -> z + step ∇u(z, t) does to log volume.

    Densities change by its negative. Song et al. 2023 write log|1 + step Δu|, which is this to
    first order.

    Args:
        u, z, t, chunk_size: As in `hessian`.
        step: Length of the step.
        check: Raise `LinAlgError` naming the row whose step is exactly singular or not finite.
            With False a singular row gives -inf.
    """
    if type(u) is MLPPotential:
        return u.step_logabsdet(z, t, step, check=check)
    return logabsdet_sym(step * hessian(u, z, t, chunk_size=chunk_size), check=check)
