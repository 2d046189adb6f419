"""Approximate square roots from matrix products or linear solves alone.

They trade accuracy for hardware that multiplies fast and decomposes slowly; `sqrtm` is exact
to rounding. Each returns how wrong it is, per matrix, so that the caller can fall back.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Inexact
from torch import Tensor

from linalg_kernels import errors
from linalg_kernels.backends import torch as reference
from linalg_kernels.precision import full_precision, promote, restore
from linalg_kernels.transforms import inspect


class ApproximateRoot(NamedTuple):
    """S ≈ A^1/2, Z ≈ A^-1/2 (*batch, n, n), and per matrix the larger relative residual.

    `residual` (*batch) = max(‖S² - A‖_F / ‖A‖_F, ‖Z A Z - I‖_F / √n), a constant to autograd;
    NaN where an indefinite A has no such root.
    """

    S: Tensor
    Z: Tensor
    residual: Tensor


def _read(A: Tensor, check: bool) -> Tensor:
    errors.require_float(A, "A")
    errors.require_square(A, "A")
    if check:
        A = inspect(A, lambda T: errors.check_matrices(T, "A"))
    return reference.hermitian(A)


def norm_bound(A: Tensor) -> Tensor:
    """An upper bound of the largest singular value within √n, a constant, 1 for a zero matrix."""
    A = A.detach().abs()
    size = A.amax((-2, -1))[..., None, None]
    A = A / torch.where(size == 0, 1, size)
    rows, columns = A.sum(-1).amax(-1), A.sum(-2).amax(-1)
    bound = torch.minimum((rows * columns).sqrt(), A.square().sum((-2, -1)).sqrt())
    bound = (bound * size[..., 0, 0])[..., None, None]
    return torch.where(bound == 0, 1, bound)


# Optimal factors for a lower end below this would shrink values near 1 to it and lose their
# digits, and would lift small ones hardly faster (2.60 instead of 2.46 a step).
CUSHION = 0.1


def boost(lower: float) -> float:
    """The α for which x <- α x (3 - α² x²) / 2 takes [lower, 1] to [l, 1] with the largest l."""
    lower = max(lower, CUSHION)
    return math.sqrt(3 / (1 + lower + lower**2))


def _scalings(lower: float, iters: int) -> list[float]:
    """Factors α of `iters` steps that take [lower, 1] to 1 (Chen and Chow 2014).

    The last two are plain (α = 1): they square what error is left.
    """
    scalings = []
    for step in range(iters):
        plain = lower > 0.999 or step >= iters - 2
        alpha = 1.0 if plain else boost(lower)
        lower = min(alpha * x * (3 - (alpha * x) ** 2) / 2 for x in (lower, 1.0))
        scalings.append(alpha)
    return scalings


def _with_residual(A: Tensor, S: Tensor, Z: Tensor, dtype: torch.dtype | None) -> ApproximateRoot:
    a, s, z = A.detach(), S.detach(), Z.detach()
    if A.shape[-1] == 0:
        return ApproximateRoot(S, Z, a.real.sum((-2, -1)))
    eye = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
    scale = norm_bound(a)
    size = torch.linalg.matrix_norm(a / scale)
    root = torch.linalg.matrix_norm((s / scale.sqrt()) @ (s / scale.sqrt()) - a / scale)
    root = root / torch.where(size == 0, 1, size)
    inverse = torch.linalg.matrix_norm(z @ a @ z - eye) / math.sqrt(a.shape[-1])
    residual = torch.maximum(root, inverse)
    return ApproximateRoot(*(restore(T, dtype) for T in (S, Z, residual)))


@full_precision
def newton_schulz_sqrtm(
    A: Inexact[Tensor, "*batch n n"],
    iters: int = 15,
    *,
    lower: float = 1e-4,
    check: bool = True,
    upcast: bool = False,
) -> ApproximateRoot:
    """Approximate square root and inverse square root of a Hermitian positive definite matrix.

    Coupled Newton-Schulz iteration Y <- Y T, Z <- T Z, T = α (3I - α² Z Y) / 2 from
    Y = A / bound, Z = I: three products a step and nothing else. Derivatives are those of the
    iteration at a fixed bound. Use `sqrtm` and `inv_sqrtm` where accuracy matters.

    Args:
        A: Stands for (A + A^H)/2.
        iters: Number of steps. 15 reach rounding up to a condition number of about 1e5.
        lower: λ_min / λ_max for which the scalings α are chosen. A smaller ratio converges
            more slowly, a larger one too; 1 gives the plain iteration.
        check: Raise `LinAlgError` for NaN or Inf and `ValueError` for an A that is far from
            Hermitian, naming the batch element. An A that is not positive definite is not
            found out but by its `residual`.
        upcast: Compute float16 and bfloat16 in float32.
    """
    A, dtype = promote(A, upcast)
    A = _read(A, check)
    if iters < 1:
        raise ValueError(f"iters must be >= 1, got {iters}")
    if not 0 < lower <= 1:
        raise ValueError(f"lower must lie in (0, 1], got {lower}")
    n = A.shape[-1]
    if n == 0:
        return _with_residual(A, A, A, dtype)
    bound = norm_bound(A)
    eye = torch.eye(n, dtype=A.dtype, device=A.device)
    Y, Z = A / bound, eye.expand_as(A)
    for alpha in _scalings(math.sqrt(lower), iters):
        T = (alpha / 2) * (3 * eye - alpha**2 * Z @ Y)
        Y, Z = Y @ T, T @ Z
    root = bound.sqrt()
    return _with_residual(A, reference.hermitian(Y) * root, reference.hermitian(Z) / root, dtype)


@full_precision
def pade_sqrtm(
    A: Inexact[Tensor, "*batch n n"],
    degree: int = 5,
    *,
    check: bool = True,
    upcast: bool = False,
) -> ApproximateRoot:
    """Approximate square root and inverse square root by a diagonal Padé approximant.

    √(1 + x) ≈ 1 + Σ_j a_j x / (1 + b_j x), j = 1..degree, with a_j = 2 sin²(jφ) / (2 degree + 1),
    b_j = cos²(jφ), φ = π / (2 degree + 1), at x = A / (tr A / n) - I: the [degree/degree]
    approximant in partial fractions (Higham 2008, §5.4), `degree` solves at once. Relative
    error of an eigenvalue t times the mean: 2 |(√t - 1)/(√t + 1)|^(2 degree + 1), so exact for
    multiples of I and poor for small eigenvalues. Derivatives are those of the approximant.
    Arguments as in `newton_schulz_sqrtm`.
    """
    A, dtype = promote(A, upcast)
    A = _read(A, check)
    if degree < 1:
        raise ValueError(f"degree must be >= 1, got {degree}")
    n = A.shape[-1]
    if n == 0:
        return _with_residual(A, A, A, dtype)
    mean = A.diagonal(dim1=-2, dim2=-1).real.mean(-1)[..., None, None]
    eye = torch.eye(n, dtype=A.dtype, device=A.device)
    angles = [j * math.pi / (2 * degree + 1) for j in range(1, degree + 1)]
    real = mean.dtype
    a, b = (
        torch.tensor([f(angle) ** 2 for angle in angles], dtype=real, device=A.device)
        for f in (math.sin, math.cos)
    )
    a = a * 2 / (2 * degree + 1)
    X = (A / mean - eye).unsqueeze(-3)
    a, b = a[:, None, None], b[:, None, None]
    fractions, _ = torch.linalg.solve_ex(eye + b * X, (a * X).expand(*X.shape[:-3], degree, n, n))
    S = reference.hermitian(eye + fractions.sum(-3)) * mean.sqrt()
    Z, _ = torch.linalg.solve_ex(S, eye.expand_as(S))
    return _with_residual(A, S, reference.hermitian(Z), dtype)
