"""Leading singular triples with their derivatives.

Singular vectors are determined up to a sign (a phase), and only where their singular value is
not repeated; their gradients are those of any loss that does not depend on that phase. With
A v = s u, A^H u = s v the derivatives of each triple are

    ds = Re u^H dA v,   (s² I - A^H A) dv = s dA^H u + A^H dA v - 2 s ds v,
    s du = dA v + A dv - ds u,

so singular values that are not asked for are not needed either.
"""

import warnings
from typing import Literal

import torch
from torch import Tensor
from torch.autograd import Function

from linalg_kernels import errors, subspace
from linalg_kernels.backends import select
from linalg_kernels.barycenter import ConvergenceWarning
from linalg_kernels.linear_operator import LinearOperator
from linalg_kernels.precision import full_precision
from linalg_kernels.transforms import batch_first

# "power" is what rank1 does: by the Gram matrix where it is small, else by a block first.
Method = Literal["block_power", "randomized", "exact", "power"]

# Up to this size the Gram matrix is squared repeatedly, beyond it is iterated on a block.
_SQUARING = 256
# Where the block has not converged, squaring follows up to this size: its Gram matrix fits.
_SQUARING_AFTER = 4096
# Columns of that block beyond the one that is asked for.
RANK1_OVERSAMPLE = 7


# --- values ---------------------------------------------------------------------------------


def _unit(y: Tensor) -> tuple[Tensor, Tensor]:
    """y / ‖y‖ along the last dimension, the first unit vector for y = 0, and ‖y‖."""
    norm = torch.linalg.vector_norm(y, dim=-1, keepdim=True)
    first = torch.zeros_like(y)
    first[..., 0] = 1
    return torch.where(norm == 0, first, y / torch.where(norm == 0, 1, norm)), norm[..., 0]


def _in_range(gram: Tensor) -> bool:
    """Whether all A are finite, and none so large or small that A^H A needs scaling."""
    # Read on the CPU alone: elsewhere the wait costs more than the scaling.
    if gram.device.type != "cpu" or not errors.can_read(gram) or gram.numel() == 0:
        return False
    low, high = gram.diagonal(dim1=-2, dim2=-1).real.sum(-1).aminmax()
    return 1e-16 < float(low) and float(high) < 1e16


def _by_squaring(A: Tensor, iters: int, tol: float) -> tuple[Tensor, Tensor, Tensor]:
    """The leading triple of A (*batch, m, n), m >= n; NaN where A is not finite."""
    gram = A.mH @ A
    size = None
    if not _in_range(gram):
        A, size = _scaled(A)
        gram = A.mH @ A
    v = subspace.leading_eigenvector(gram, iters, tol)
    u, s = _unit((A @ v[..., None])[..., 0])
    s = s[..., None] if size is None else s[..., None] * size[..., 0]
    return u[..., None], s, v[..., None]


def _residual(A: Tensor, U: Tensor, S: Tensor, V: Tensor) -> Tensor:
    """Largest ‖A v - s u‖ and ‖A^H u - s v‖ in units of the largest s, (*batch)."""
    errors_of = (A @ V - U * S[..., None, :], A.mH @ U - V * S[..., None, :])
    largest = [torch.linalg.vector_norm(E, dim=-2).amax(-1) for E in errors_of]
    return torch.maximum(*largest) / torch.where(S[..., 0] == 0, 1, S[..., 0])


def _warn_unless(residual: float | None, tol: float, name: str) -> None:
    if residual is not None and residual > tol:
        warnings.warn(
            f"{name} stopped with a residual of {residual:.2g} of the largest singular value, "
            f"tol is {tol:.2g}; raise iters",
            ConvergenceWarning,
            stacklevel=3,
        )


def _scaled(A: Tensor) -> tuple[Tensor, Tensor]:
    """A with largest entry 1 and that entry, 1 for a zero matrix; NaN where A is not finite."""
    size = A.abs().amax((-2, -1), keepdim=True)
    size = torch.where(size == 0, 1, torch.where(torch.isfinite(size), size, torch.nan))
    return A / size, size


def _by_block_power(
    A: Tensor, k: int, oversample: int, iters: int, tol: float | None,
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor, Tensor, float | None]:  # fmt: skip
    n = A.shape[-1]
    width = min(k + oversample, *A.shape[-2:])
    X = subspace.start_block(n, width, A, generator).expand(*A.shape[:-2], n, width)
    return subspace.block_power(lambda X: A @ X, lambda Y: A.mH @ Y, X, k, iters, tol)


def _by_power(A: Tensor, iters: int, tol: float) -> tuple[Tensor, Tensor, Tensor]:
    """The leading triple of A (*batch, m, n), whatever the gap to the next one."""
    m, n = A.shape[-2:]
    if min(m, n) > _SQUARING:
        scaled, poison, size = _finite(A)
        U, S, V, residual = _by_block_power(scaled, 1, RANK1_OVERSAMPLE, iters, tol, None)
        if residual is None or residual <= tol or min(m, n) > _SQUARING_AFTER:
            _warn_unless(residual, tol, "rank1")
            return U + poison, S * size[..., 0], V + poison
    if m >= n:
        return _by_squaring(A, iters, tol)
    V, S, U = _by_squaring(A.mH, iters, tol)
    return U, S, V


def _finite(A: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A scaled to largest entry 1, what to add to its vectors (0 or NaN), and the scale.

    A matrix that is not finite becomes 0: LAPACK refuses NaN for the whole batch.
    """
    scaled, size = _scaled(A)
    return torch.where(torch.isnan(size), 0, scaled), size - size, size


def _triples_of(
    A: Tensor, k: int, method: Method, oversample: int, iters: int,
    tol: float | None, generator: torch.Generator | None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """k leading triples of plain A (*batch, m, n) by `method`; NaN where A is not finite."""
    m, n = A.shape[-2:]
    aim = subspace.default_tol(A.dtype, max(m, n)) if tol is None else tol
    by_kernel = select.leading_triple(A, iters, aim) if method == "power" else None
    if by_kernel is not None:
        u, s, v = by_kernel
        U, S, V = u[..., None], s[..., None], v[..., None]
    elif method == "power":
        U, S, V = _by_power(A, iters, aim)
        # What did not converge beyond the size of squaring has been told of already.
        tol = None if min(m, n) > _SQUARING_AFTER else tol
    else:
        scaled, poison, size = _finite(A)
        if method == "exact":
            U, S, Vh = torch.linalg.svd(scaled, full_matrices=False)
            U, S, V = U[..., :k], S[..., :k], Vh.mH[..., :k]
        else:
            # A fixed number of steps is what "randomized" is; it looks at no residual.
            stop = None if method == "randomized" else aim
            U, S, V, _ = _by_block_power(scaled, k, oversample, iters, stop, generator)
        U, S, V = U + poison, S * size[..., 0], V + poison
    if tol is not None and method != "exact" and A.numel() and errors.can_read(A):
        residual = _residual(A, U, S, V).nan_to_num(0).max()
        _warn_unless(float(residual), tol, "rank1" if method == "power" else "svd_topk")
    return U, S, V


# --- derivatives ----------------------------------------------------------------------------


def _solve_shifted(A: Tensor, S: Tensor, V: Tensor, H: Tensor) -> Tensor:
    """Columns (s_i² I - A^H A + s_i² v_i v_i^H)^-1 h_i."""
    n = A.shape[-1]
    gram = A.mH @ A
    eye = torch.eye(n, dtype=A.dtype, device=A.device)
    columns = []
    for i in range(S.shape[-1]):
        v = V[..., i : i + 1]
        M = (S[..., i, None, None] ** 2) * (eye + v @ v.mH) - gram
        # Where s_i is repeated M is singular and the derivative does not exist: Inf or NaN.
        columns.append(torch.linalg.solve_ex(M, H[..., i].unsqueeze(-1))[0][..., 0])
    return torch.stack(columns, -1)


def _along(X: Tensor, Y: Tensor) -> Tensor:
    """Re x_i^H y_i of each column, (*batch, k)."""
    return (X.conj() * Y).real.sum(-2)


def _vjp(
    A: Tensor, U: Tensor, S: Tensor, V: Tensor,
    gU: Tensor | None, gS: Tensor | None, gV: Tensor | None,
) -> Tensor:  # fmt: skip
    """Gradient with respect to A (*batch, m, n), m >= n."""
    s = S[..., None, :]
    gS = torch.zeros_like(S) if gS is None else gS
    if gU is None and gV is None:
        return (U * gS[..., None, :]) @ V.mH
    gU = torch.zeros_like(U) if gU is None else gU
    gV = torch.zeros_like(V) if gV is None else gV
    H = gV + A.mH @ gU / s
    H = H - V * (V.conj() * H).sum(-2, keepdim=True)
    Q = _solve_shifted(A, S, V, H)
    radial = gS - _along(U, gU) / S
    return (gU / s + U * radial[..., None, :] + A @ Q) @ V.mH + (U * s) @ Q.mH


def _jvp(A: Tensor, U: Tensor, S: Tensor, V: Tensor, dA: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Tangents of the triples for A (*batch, m, n), m >= n."""
    s = S[..., None, :]
    dAV = dA @ V
    dS = _along(U, dAV)
    ds = dS[..., None, :]
    right = (dA.mH @ U) * s + A.mH @ dAV - 2 * s * ds * V
    dV = _solve_shifted(A, S, V, right)
    dU = (dAV + A @ dV - U * ds) / s
    return dU, dS, dV


class _Triples(Function):
    """A -> (U, S, V), k leading triples by some method."""

    @staticmethod
    def forward(A, k, method, oversample, iters, tol, generator):
        return _triples_of(A, k, method, oversample, iters, tol, generator)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(inputs[0], *output)
        ctx.save_for_forward(inputs[0], *output)

    @staticmethod
    @full_precision
    def backward(ctx, gU, gS, gV):
        A, U, S, V = ctx.saved_tensors
        # Scaled by s_1, as squares of S leave the range of float32 at 1e±19.
        unit = S.detach()[..., :1]
        gS = None if gS is None else gS * unit
        wide = unit[..., None]
        if A.shape[-2] >= A.shape[-1]:
            gA = _vjp(A / wide, U, S / unit, V, gU, gS, gV)
        else:
            gA = _vjp(A.mH / wide, V, S / unit, U, gV, gS, gU).mH
        return gA / wide, None, None, None, None, None, None

    @staticmethod
    def vmap(info, in_dims, *args):
        (A,) = batch_first(info.batch_size, in_dims[:1], args[:1])
        return triples(A, *args[1:]), (0, 0, 0)


class _TriplesEager(_Triples):
    @staticmethod
    @full_precision
    def jvp(ctx, dA, *_):
        A, U, S, V = ctx.saved_tensors
        unit = S.detach()[..., :1]
        wide = unit[..., None]
        if A.shape[-2] >= A.shape[-1]:
            dU, dS, dV = _jvp(A / wide, U, S / unit, V, dA / wide)
        else:
            dV, dS, dU = _jvp(A.mH / wide, V, S / unit, U, dA.mH / wide)
        return dU, dS * unit, dV


def triples(
    A: Tensor, k: int, method: Method, oversample: int, iters: int,
    tol: float | None, generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    rule = _Triples if torch.compiler.is_compiling() else _TriplesEager
    return rule.apply(A, k, method, oversample, iters, tol, generator)


def operator_triples(
    A: LinearOperator, k: int, oversample: int, iters: int, tol: float | None,
    generator: torch.Generator | None, name: str,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """k leading triples from products alone; S carries the gradient of Re u^H A v."""
    m, n = A.shape
    aim = subspace.default_tol(A.dtype, max(m, n)) if tol is None else tol
    like = torch.empty(0, dtype=A.dtype, device=A.device)
    X = subspace.start_block(n, min(k + oversample, m, n), like, generator)
    with torch.no_grad():
        products = (A.apply, A.apply_adjoint)
        U, S, V, residual = subspace.block_power(*products, X, k, iters, aim)
    if tol is not None:
        _warn_unless(residual, tol, name)
    if torch.is_grad_enabled():
        S = _along(U, A.apply(V))
    return U, S, V
