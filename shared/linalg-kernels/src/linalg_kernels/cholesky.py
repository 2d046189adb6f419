"""The Cholesky factor of Hermitian positive definite matrices and the charts built on it.

A = L L^H with L lower triangular and a positive diagonal. The derivative of A -> L is
dL = L Φ(L^-1 dA L^-H), where Φ takes the lower triangle and halves the diagonal; all inverses
are triangular solves.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from linalg_kernels import errors
from linalg_kernels.backends import native, plain, select
from linalg_kernels.backends import torch as reference
from linalg_kernels.precision import full_precision, promote, restore
from linalg_kernels.transforms import (
    EagerRule,
    Rule,
    batch_first,
    differentiated,
    inspect,
    needs_rule,
    transformed,
)


class CholeskyEx(NamedTuple):
    """Factors (*batch, n, n) and, per matrix, 0 or the order of the first bad leading minor."""

    L: Tensor
    info: Tensor


def triangular_congruence(
    L: Inexact[Tensor, "*#batch n n"], X: Inexact[Tensor, "*#batch n n"]
) -> Inexact[Tensor, "*batch n n"]:
    """L^-1 X L^-H for lower triangular L, by two triangular solves. Batch shapes broadcast.

    With L = cholesky(A) the eigenvalues of the result are those of A^-1 X.
    """
    errors.require_float(L, "L")
    errors.require_square(L, "L")
    errors.require_square(X, "X", L.shape[-1])
    errors.require_same_kind(L, X, ("L", "X"))
    errors.broadcast_batch({"L": (L, 2), "X": (X, 2)})
    left = torch.linalg.solve_triangular(L, X, upper=False)
    return torch.linalg.solve_triangular(L.mH, left, upper=True, left=False)


def _compute(
    A: Tensor, symmetrize: bool, check: bool, raise_info: bool, name: str
) -> tuple[Tensor, Tensor | None]:
    L, info = select.cholesky(A, symmetrize, check, name)
    if raise_info and info is not None and errors.can_read(A):
        errors.check_info(info, name)
    return L, info


class _Cholesky(Rule):
    """A -> (L, info)."""

    @staticmethod
    def forward(A, symmetrize, check, raise_info, name):
        L, info = _compute(A, symmetrize, check, raise_info, name)
        if info is None:
            info = torch.zeros(A.shape[:-2], dtype=torch.int32, device=A.device)
        return L, info

    @staticmethod
    def setup_context(ctx, inputs, output):  # noqa: ARG004
        L, info = output
        ctx.mark_non_differentiable(info)
        ctx.save_for_backward(L)
        ctx.save_for_forward(L)

    @staticmethod
    @full_precision
    def backward(ctx, gL, _info):
        (L,) = ctx.saved_tensors
        return select.cholesky_vjp(L, gL), None, None, None, None

    @staticmethod
    def vmap(info, dims, A, symmetrize, check, raise_info, name):
        (A,) = batch_first(info.batch_size, dims[:1], (A,))
        return _factor(A, symmetrize, check, raise_info, name), (0, 0)


class _CholeskyEager(_Cholesky):
    @staticmethod
    @full_precision
    def jvp(ctx, dA, *_):
        (L,) = ctx.saved_tensors
        return L @ reference.half_lower(triangular_congruence(L, reference.hermitian(dA))), None


class _Factor(EagerRule):
    """A -> L, where only a gradient may be asked for."""

    @staticmethod
    def forward(ctx, A, symmetrize, check, name):
        L, _ = _compute(A, symmetrize, check, True, name)
        ctx.save_for_backward(L)
        return L

    @staticmethod
    @full_precision
    def backward(ctx, gL):
        (L,) = ctx.saved_tensors
        return select.cholesky_vjp(L, gL), None, None, None


def _factor(
    A: Tensor, symmetrize: bool, check: bool, raise_info: bool, name: str
) -> tuple[Tensor, Tensor]:
    if not needs_rule(A):
        return _Cholesky.forward(A, symmetrize, check, raise_info, name)
    rule = _Cholesky if torch.compiler.is_compiling() else _CholeskyEager
    return rule.apply(A, symmetrize, check, raise_info, name)


@full_precision
def cholesky(
    A: Inexact[Tensor, "*batch n n"],
    *,
    symmetrize: bool = True,
    check: bool = True,
    upcast: bool = False,
    name: str = "A",
) -> Inexact[Tensor, "*batch n n"]:
    """Lower triangular L with a positive diagonal and A = L L^H.

    Equivalent to `torch.linalg.cholesky`, with a Hermitian gradient. Raises `LinAlgError`
    naming the first matrix that is not positive definite, on the CPU also with `check=False`.
    Such a matrix gives NaN while a graph is traced, and with `check=False` on a GPU, which is
    not waited for: `definite_factor` does. `symmetrize`, `check`, `upcast`,
    `name`: see `linalg_kernels.spectral`.
    """
    A, dtype = promote(A, upcast)
    errors.require_float(A, name)
    errors.require_square(A, name)
    if transformed():
        L = _factor(A, symmetrize, check, True, name)[0]
    elif differentiated(A):
        L = _Factor.apply(A, symmetrize, check, name)
    else:
        L = _compute(A, symmetrize, check, True, name)[0]
    return restore(L, dtype)


@full_precision
def cholesky_ex(
    A: Inexact[Tensor, "*batch n n"],
    *,
    symmetrize: bool = True,
    upcast: bool = False,
    name: str = "A",
) -> CholeskyEx:
    """`cholesky` that never raises for a value and never waits for the device.

    Where `info` is not 0 the factor is NaN: `info` is the order of the first leading minor
    that is not positive, or n + 1 for a matrix that holds NaN or Inf.
    """
    A, dtype = promote(A, upcast)
    errors.require_float(A, name)
    errors.require_square(A, name)
    L, info = _factor(A, symmetrize, False, False, name)
    return CholeskyEx(restore(L, dtype), info)


def definite_factor(A: Inexact[Tensor, "*batch n n"], name: str) -> Inexact[Tensor, "*batch n n"]:
    """`cholesky(A, check=False)` that names what is not positive definite on a GPU too.

    For a caller that knows A to be finite and Hermitian, and promises the error. Reads one number
    a matrix back from the device, unless values may not be read.
    """
    if A.is_cpu or not errors.can_read(A):
        return cholesky(A, check=False, name=name)
    L, info = cholesky_ex(A, name=name)
    inspect(info, lambda found: errors.check_info(found, name))
    return L


# --- charts ---------------------------------------------------------------------------------


def _charted(L: Tensor, exponent: Tensor | float | None) -> Tensor:
    """⌊L⌋ beside the logarithm or a power of the (real, positive) diagonal of L."""
    diagonal = L.diagonal(dim1=-2, dim2=-1).real
    diagonal = torch.log(diagonal) if exponent is None else diagonal**exponent
    return L.tril(-1) + torch.diag_embed(diagonal).to(L.dtype)


class _Chart(EagerRule):
    """A -> X = ⌊L⌋ + h(diag L), natively; `found` are X and L."""

    @staticmethod
    def forward(ctx, A, found, exponent, symmetrize):
        X, L = found
        ctx.save_for_backward(A, L)
        ctx.exponent, ctx.symmetrize = exponent, symmetrize
        return X

    @staticmethod
    @full_precision
    def backward(ctx, G):
        A, L = ctx.saved_tensors
        if torch.is_grad_enabled() or not plain.is_plain(G):

            def compose(A: Tensor) -> Tensor:
                factor = cholesky(A, symmetrize=ctx.symmetrize, check=False)
                return _charted(factor, ctx.exponent)

            gA = torch.func.vjp(compose, A)[1](G)[0]
        else:
            gA = native.cholesky_vjp(L, G, *_native_chart(ctx.exponent))
        return gA, None, None, None


def _native_chart(exponent: float | None) -> tuple[int, float]:
    if exponent is None:
        return native.LOG_DIAGONAL, 0.0
    return native.POWER_DIAGONAL, float(exponent)


def _chart(A: Tensor, exponent: float | None, symmetrize: bool, check: bool, name: str) -> Tensor:
    errors.require_float(A, name)
    errors.require_square(A, name)
    found = select.cholesky_chart(A, *_native_chart(exponent), symmetrize, check)
    if found is None:
        return _charted(cholesky(A, symmetrize=symmetrize, check=check, name=name), exponent)
    return _Chart.apply(A, found, exponent, symmetrize) if differentiated(A) else found[0]


@full_precision
def chol_log(
    A: Inexact[Tensor, "*batch n n"],
    *,
    symmetrize: bool = True,
    check: bool = True,
    upcast: bool = False,
    name: str = "A",
) -> Inexact[Tensor, "*batch n n"]:
    """Log-Cholesky chart ⌊L⌋ + log diag(L) of A = L L^H, lower triangular.

    A diffeomorphism from positive definite to lower triangular matrices (with a real
    diagonal) whose inverse is `from_chol_log` (Lin 2019). Errors and options: `cholesky`.
    """
    A, dtype = promote(A, upcast)
    return restore(_chart(A, None, symmetrize, check, name), dtype)


def _gram_of_exp(X: Tensor) -> Tensor:
    diagonal = torch.exp(X.diagonal(dim1=-2, dim2=-1).real)
    L = X.tril(-1) + torch.diag_embed(diagonal).to(X.dtype)
    return reference.hermitian(L @ L.mH)


class _FromLog(EagerRule):
    """X -> A = L L^T, natively."""

    @staticmethod
    def forward(ctx, X, A):
        ctx.save_for_backward(X)
        return A

    @staticmethod
    @full_precision
    def backward(ctx, G):
        (X,) = ctx.saved_tensors
        if torch.is_grad_enabled() or not plain.is_plain(G):
            return torch.func.vjp(_gram_of_exp, X)[1](G)[0], None
        return native.from_chol_log_vjp(X, G), None


@full_precision
def from_chol_log(
    X: Inexact[Tensor, "*batch n n"], *, upcast: bool = False
) -> Inexact[Tensor, "*batch n n"]:
    """L L^H with L = ⌊X⌋ + exp(diag X), the inverse of `chol_log`; X is read below its diagonal."""
    X, dtype = promote(X, upcast)
    errors.require_float(X, "X")
    errors.require_square(X, "X")
    A = select.from_chol_log(X)
    if A is None:
        A = _gram_of_exp(X)
    elif differentiated(X):
        A = _FromLog.apply(X, A)
    return restore(A, dtype)


@full_precision
def chol_power(
    A: Inexact[Tensor, "*#batch n n"],
    theta: Float[Tensor, "*#batch"] | float,
    *,
    symmetrize: bool = True,
    check: bool = True,
    upcast: bool = False,
    name: str = "A",
) -> Inexact[Tensor, "*batch n n"]:
    """Diagonal-power chart ⌊L⌋ + diag(L)^theta of A = L L^H, lower triangular.

    `theta` is a number or a tensor that broadcasts with the batch shape of A, differentiable.
    The chart of the power-Cholesky metric. Errors and options: `cholesky`.
    """
    A, dtype = promote(A, upcast)
    if not isinstance(theta, Tensor):
        return restore(_chart(A, float(theta), symmetrize, check, name), dtype)
    L = cholesky(A, symmetrize=symmetrize, check=check, name=name)
    errors.broadcast_batch({name: (A, 2), "theta": (theta, 0)})
    return restore(_charted(L, theta.to(L.device)[..., None]), dtype)


def logdet(
    A: Inexact[Tensor, "*batch n n"],
    *,
    symmetrize: bool = True,
    check: bool = True,
    upcast: bool = False,
    name: str = "A",
) -> Float[Tensor, "*batch"]:
    """log det A = 2 Σ log L_ii of a Hermitian positive definite matrix.

    Never forms det A, so it does not overflow; gradient A^-1 by triangular solves. Errors and
    options: `cholesky`.
    """
    A, dtype = promote(A, upcast)
    L = cholesky(A, symmetrize=symmetrize, check=check, name=name)
    return restore(2 * torch.log(L.diagonal(dim1=-2, dim2=-1).real).sum(-1), dtype)
