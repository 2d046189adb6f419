"""Points, tangent vectors and times as metrics read them: checked once, errors in one wording.

Shapes and dtypes are always checked. Values (NaN, asymmetry, definiteness) are checked unless
a graph is traced or captured, where the affected elements come out as NaN instead.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from linalg_kernels import cholesky, cholesky_ex, errors
from linalg_kernels.transforms import inspect, read
from torch import Tensor

Domain = Literal["raise", "nan", "clamp"]
"""What an incomplete metric does where exp leaves the manifold; see `metric.Pullback`."""

Kind = Literal["symmetric", "lower"]
"""What tangent vectors are: symmetric matrices on SPD, lower triangular ones on Cholesky."""


def point(P: Tensor, name: str) -> None:
    """TypeError or ValueError unless P is a real (..., n, n)."""
    errors.require_float(P, name)
    errors.require_real(P, name)
    errors.require_square(P, name)


def points(P: Tensor, Q: Tensor, names: tuple[str, str] = ("P", "Q")) -> None:
    """TypeError or ValueError unless P and Q are real (..., n, n) whose batches broadcast."""
    point(P, names[0])
    errors.require_float(Q, names[1])
    errors.require_square(Q, names[1], P.shape[-1])
    errors.require_same_kind(P, Q, names)
    if P.shape != Q.shape and P.ndim > 2 and Q.ndim > 2:
        errors.broadcast_batch({names[0]: (P, 2), names[1]: (Q, 2)})


def tangent(
    P: Float[Tensor, "*#batch n n"], V: Float[Tensor, "*#batch n n"], name: str, kind: Kind
) -> Float[Tensor, "*#batch n n"]:
    """V as a tangent vector at P: (V + V^T)/2, or V below its diagonal.

    Raises ValueError naming the element that is far from symmetric (or that has entries above
    its diagonal), LinAlgError naming the element that holds NaN or Inf.
    """
    points(P, V, ("P", name))
    if kind == "lower":
        return inspect(V, lambda T: _check_lower(T, name)).tril()
    if _plainly_symmetric(V):
        return V
    V = inspect(V, lambda T: errors.check_matrices(T, name))
    return (V + V.mT) / 2


def _plainly_symmetric(V: Tensor) -> bool:
    """Whether V is its own symmetric part, in values and as what autograd differentiates."""
    if torch.is_grad_enabled() and V.requires_grad:
        return False
    if not errors.can_read(V) or torch._C._are_functorch_transforms_active():
        return False
    if torch.autograd.forward_ad._current_level >= 0:
        return False
    # A sum is finite unless an entry is not; if it overflows, the general way decides.
    return torch.equal(V, V.mT) and math.isfinite(V.sum().item())


def _check_lower(V: Tensor, name: str) -> None:
    errors.check_finite(V, name)
    if V.numel() == 0:
        return
    above = V.triu(1).abs().amax((-2, -1))
    bad = above > 0
    if bool(bad.any()):
        raise ValueError(
            f"{name}{errors.element(bad)} must be lower triangular, but has "
            f"{above[bad].flatten()[0].item():.3g} above its diagonal"
        )


def cholesky_point(L: Float[Tensor, "*batch n n"], name: str) -> Float[Tensor, "*batch n n"]:
    """L, lower triangular with a positive diagonal. Raises ValueError naming the element."""
    point(L, name)

    def look(T: Tensor) -> None:
        _check_lower(T, name)
        diagonal = T.diagonal(dim1=-2, dim2=-1)
        bad = ~(diagonal > 0).all(-1)
        if bool(bad.any()):
            raise ValueError(
                f"{name}{errors.element(bad)} must have a positive diagonal, got "
                f"{diagonal[bad][0].min().item():.3g} on it"
            )

    return inspect(L, look).tril()


def factor(P: Float[Tensor, "*batch n n"], name: str) -> Float[Tensor, "*batch n n"]:
    """The Cholesky factor of a point that is known to be finite and symmetric.

    Raises LinAlgError naming the element that is not positive definite, on a GPU too, where
    `cholesky(check=False)` would give NaN.
    """
    if P.is_cpu or not errors.can_read(P):
        return cholesky(P, check=False, name=name)
    L, info = cholesky_ex(P, name=name)
    inspect(info, lambda found: errors.check_info(found, name))
    return L


def time(P: Tensor, t: Tensor | float, name: str = "t") -> Tensor | float:
    """t ready to multiply matrices: a number, or a tensor (*batch, 1, 1) in the dtype of P."""
    if not isinstance(t, Tensor):
        return float(t)
    errors.broadcast_batch({"P": (P, 2), name: (t, 0)})
    return t.to(dtype=P.dtype, device=P.device)[..., None, None]


def within_unit(t: Tensor | float) -> bool:
    """Whether 0 <= t <= 1 everywhere, False where values cannot be read."""
    if not isinstance(t, Tensor):
        return 0 <= t <= 1
    found = read(((t >= 0) & (t <= 1)).all())
    return bool(found)


def admit(
    V: Tensor, longest: Tensor, domain: Domain, compute: Callable[[Tensor], Tensor], what: str
) -> Tensor:
    """compute(V) where the geodesic along V exists up to t = 1, else what `domain` says.

    `longest` (*batch) is the time at which it ends. "clamp" stops at (1 - √eps) of it,
    and at the largest number where the end exists but is beyond it.
    """
    inside = longest > 1
    if domain == "raise":

        def look(reached: Tensor) -> None:
            bad = ~(reached > 1)
            if bool((bad & ~reached.isnan()).any()):
                bad = bad & ~reached.isnan()
                raise ValueError(
                    f"{what}{errors.element(bad)} leaves the manifold: its geodesic ends at "
                    f"t = {reached[bad].flatten()[0].item():.3g}; shorten the step (exp_domain "
                    "says how far it goes), or choose domain='nan' or 'clamp'"
                )

        longest = inspect(longest, look)
    short = (1 - torch.finfo(V.dtype).eps ** 0.5) * longest
    factor = torch.where(inside, 1, short)[..., None, None]
    result = compute(factor * V)
    if domain == "clamp":
        largest = torch.finfo(V.dtype).max
        return result.clamp(-largest, largest)
    return torch.where(inside[..., None, None], result, torch.nan)


def check_domain(domain: str) -> None:
    """ValueError unless `domain` is one of the three policies."""
    if domain not in ("raise", "nan", "clamp"):
        raise ValueError(f"domain must be 'raise', 'nan' or 'clamp', got {domain!r}")


def check_theta(theta: float) -> None:
    """TypeError or ValueError unless theta is a finite number."""
    _check_number(theta, "theta")


def check_alpha_beta(alpha: float, beta: float) -> None:
    """TypeError or ValueError unless alpha > 0 and beta are finite numbers."""
    _check_number(alpha, "alpha")
    _check_number(beta, "beta")
    if not alpha > 0:
        raise ValueError(f"alpha must be > 0, got {alpha}")


def positive_numbers(value: object, name: str) -> float | tuple[float, ...]:
    """A number or a tuple of numbers > 0 from a number, a sequence or a tensor of dimension 1."""
    listed = value.tolist() if isinstance(value, Tensor) else value
    if isinstance(listed, (int, float)):
        _check_number(listed, name)
        numbers = (float(listed),)
    elif isinstance(listed, Sequence) and not isinstance(listed, str):
        for number in listed:
            _check_number(number, f"each of {name}")
        numbers = tuple(map(float, listed))
    else:
        raise TypeError(f"{name} must be a number or a sequence, got {type(value).__name__}")
    if not all(number > 0 for number in numbers):
        raise ValueError(f"{name} must be > 0, got {min(numbers):g}")
    return numbers[0] if isinstance(listed, (int, float)) else numbers


def positive_matrix(value: object, name: str) -> tuple[tuple[float, ...], ...]:
    """The rows of a symmetric positive definite matrix, exactly symmetric, as numbers."""
    try:
        M = torch.as_tensor(value, dtype=torch.float64).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"{name} must be a matrix of numbers, got {type(value).__name__}"
        ) from error
    if M.ndim != 2:
        raise ValueError(f"{name} must be (n, n), got {tuple(M.shape)}")
    point(M, name)
    cholesky(M, name=name)
    return tuple(tuple(row) for row in ((M + M.mT) / 2).tolist())


def _check_number(value: object, name: str) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    if not abs(value) < float("inf"):
        raise ValueError(f"{name} must be finite, got {value}")
