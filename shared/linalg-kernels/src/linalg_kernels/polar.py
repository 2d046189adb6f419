"""The unitary polar factor: the orthonormal matrix nearest to a given one."""

import math
from typing import Literal

import torch
from jaxtyping import Inexact
from torch import Tensor
from torch.autograd import Function

from linalg_kernels import errors
from linalg_kernels.iterative import CUSHION, boost, norm_bound
from linalg_kernels.lyapunov import lyapunov
from linalg_kernels.precision import full_precision, promote, restore
from linalg_kernels.transforms import batch_first, inspect

Method = Literal["svd", "newton_schulz"]

# Plain steps that reach rounding from singular values in [CUSHION, 1].
_FINISH = 12


def _raise_singular(bad: Tensor) -> None:
    if bool(bad.any()):
        raise errors.LinAlgError(
            f"A{errors.element(bad)} must have full rank for its polar factor to be unique, but "
            "is singular to working precision"
        )


def _by_svd(A: Tensor) -> tuple[Tensor, Tensor]:
    """Unitary factor, and which elements are singular to working precision."""
    finite = errors.finite_elements(A)[..., None, None]
    eye = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    U, s, Vh = torch.linalg.svd(torch.where(finite, A, eye))
    bound = A.shape[-1] * torch.finfo(A.dtype).eps * s[..., 0]
    return torch.where(finite, U @ Vh, torch.nan), s[..., -1] <= bound


def _by_newton_schulz(A: Tensor) -> tuple[Tensor, Tensor]:
    """X <- α X (3I - α² X^H X) / 2, until X^H X = I."""
    n, eps = A.shape[-1], torch.finfo(A.dtype).eps
    eye = torch.eye(n, dtype=A.dtype, device=A.device)
    tol = 4 * n * eps
    X = A / norm_bound(A)
    reading = errors.can_read(A)
    alpha = boost(CUSHION)
    lifting, steps = True, math.ceil(math.log(CUSHION / eps, 1.5 * alpha))
    error = torch.zeros(A.shape[:-2], dtype=X.real.dtype, device=A.device)
    for step in range(steps + _FINISH):
        gram = X.mH @ X
        error = (gram - eye).abs().amax((-2, -1))
        lifting = lifting and step < steps
        if reading and lifting:
            _, info = torch.linalg.cholesky_ex(gram - CUSHION**2 * eye)
            lifting = bool((info != 0).any())
        elif reading and not bool((error > tol).any()):
            break
        alpha = alpha if lifting else 1.0
        X = (alpha / 2) * X @ (3 * eye - alpha**2 * gram)
    # Negated, so that NaN counts as singular.
    return X, ~(error <= tol)


class _Polar(Function):
    """A -> U for square A = U H, dU = U Ω with H Ω + Ω H = U^H dA - dA^H U."""

    @staticmethod
    def forward(A, method, check):
        U, singular = (_by_svd if method == "svd" else _by_newton_schulz)(A)
        if check and errors.can_read(A):
            _raise_singular(singular)
        return U

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(inputs[0], output)
        ctx.save_for_forward(inputs[0], output)

    @staticmethod
    @full_precision
    def backward(ctx, G):
        A, U = ctx.saved_tensors
        M = U.mH @ G
        return U @ lyapunov(U.mH @ A, M - M.mH, check=False), None, None

    @staticmethod
    def vmap(info, dims, A, method, check):
        (A,) = batch_first(info.batch_size, dims[:1], (A,))
        return _factor(A, method, check), 0


class _PolarEager(_Polar):
    @staticmethod
    @full_precision
    def jvp(ctx, dA, *_):
        A, U = ctx.saved_tensors
        M = U.mH @ dA
        return U @ lyapunov(U.mH @ A, M - M.mH, check=False)


def _factor(A: Tensor, method: Method, check: bool) -> Tensor:
    rule = _Polar if torch.compiler.is_compiling() else _PolarEager
    return rule.apply(A, method, check)


@full_precision
def polar(
    A: Inexact[Tensor, "*batch m n"],
    method: Method = "svd",
    *,
    check: bool = True,
    upcast: bool = False,
) -> Inexact[Tensor, "*batch m n"]:
    """U of A = U H: orthonormal columns (rows for m < n), H = (A^H A)^1/2 positive definite.

    The nearest such matrix to A in the Frobenius norm. Equivalent to
    `scipy.linalg.polar(A)[0]`. Gradients solve a Lyapunov equation with H and are exact at
    repeated singular values.

    Args:
        A: Any matrices of full rank; those that are not square are first reduced by QR.
        method: "svd", or "newton_schulz": matrix products alone in the forward pass, as
            accurate, for hardware on which they are fast.
        check: Raise `LinAlgError` naming the first element that holds NaN or Inf or is
            singular to working precision. With False a singular element gives some matrix of
            its kind, or one that is not orthonormal ("newton_schulz").
        upcast: Compute float16 and bfloat16 in float32.
    """
    if method not in ("svd", "newton_schulz"):
        raise ValueError(f"method must be 'svd' or 'newton_schulz', got {method!r}")
    A, dtype = promote(A, upcast)
    errors.require_float(A, "A")
    errors.require_matrix(A, "A")
    if check:
        A = inspect(A, lambda T: errors.check_finite(T, "A"))
    m, n = A.shape[-2:]
    if 0 in (m, n):
        return restore(A.clone(), dtype)
    if m == n:
        return restore(_factor(A, method, check), dtype)
    Q, R = torch.linalg.qr(A if m > n else A.mH)
    U = Q @ _factor(R, method, check)
    return restore(U if m > n else U.mH, dtype)
