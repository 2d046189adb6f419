"""Sums over the logarithms of the eigenvalues of pencils, by the library or by a kernel.

As in `select`, what neither can settle is left to the reference.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from linalg_kernels import errors
from linalg_kernels.backends import gpu, native
from linalg_kernels.backends.choice import (
    SPECTRAL,
    native_goes_on,
    native_takes,
    settled_on_gpu,
    triton_takes,
    watched,
)
from linalg_kernels.transforms import transformed


def pencil(
    P: Tensor, Q: Tensor, alpha: float, beta: float, root: bool, vectors: bool
) -> tuple[Tensor, tuple[Tensor, ...]] | None:
    """Sums over the log spectrum of P^-1 Q and, with `vectors`, what `pencil_vjp` needs; or None.

    None where neither the native library nor a kernel takes it, or something was found that is
    to be worded.
    """
    # Whichever is the larger set says whether it is worth it.
    A, other = (P, Q) if P.numel() >= Q.numel() else (Q, P)
    if native_takes(SPECTRAL, A, other):
        value, packed, found = native.pencil(
            P, Q, alpha=alpha, beta=beta, root=root, vectors=vectors, tolerance=errors.ASYMMETRY
        )
        return None if found else (value, () if packed is None else (packed,))
    if triton_takes(A.shape[-1], gpu.LIMIT, A, other) and not watched(A):
        logs, U, told = gpu.operators().pencil(P, Q, errors.ASYMMETRY, vectors)
        if settled_on_gpu(told, True):
            value = sum_of_logs(logs, alpha, beta, root)
            return value, (value, logs, U) if vectors else ()
    return None


def sum_of_logs(logs: Tensor, alpha: float, beta: float, root: bool) -> Tensor:
    """α Σ l² + β (Σ l)² of the trace and the rest apart, neither of which is negative."""
    n = logs.shape[-1]
    trace = logs.sum(-1)
    rest = logs - trace[..., None] / n
    value = alpha * rest.square().sum(-1) + (alpha / n + beta) * trace.square()
    return value.sqrt() if root else value


def pencil_vjp(
    of: Sequence[Tensor],
    n: int,
    g: Tensor,
    alpha: float,
    beta: float,
    root: bool,
    wanted: tuple[bool, bool],
) -> tuple[Tensor | None, Tensor | None] | None:
    """Gradients with respect to P and Q of order n of a loss with gradient g in `pencil`.

    `of` is what `pencil` gave for it. None where they are asked for with a derivative of
    their own, or g is no plain tensor.
    """
    if len(of) == 1:
        if native_goes_on(g) and native.is_packed(of[0]):
            return native.pencil_vjp(of[0], g, n, alpha, beta, root, wanted)
        return None
    value, logs, U = of
    if torch.is_grad_enabled() or transformed() or not triton_takes(n, gpu.LIMIT, U, logs, g):
        return None
    slopes = slopes_of_logs(value, logs, g, alpha, beta, root)
    return gpu.operators().pencil_vjp(slopes, logs, U, wanted)


def slopes_of_logs(
    value: Tensor, logs: Tensor, g: Tensor, alpha: float, beta: float, root: bool
) -> Tensor:
    """The gradient in the logarithms of a loss with gradient g in `sum_of_logs`; 0 at a root 0."""
    weights = alpha * logs + beta * logs.sum(-1, keepdim=True)
    zero = value == 0
    factor = torch.where(zero, 0, g / torch.where(zero, 1, value)) if root else 2 * g
    return factor[..., None] * weights
