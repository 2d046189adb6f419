"""Eigenvalues and eigenvectors of Hermitian matrices.

An eigenvector is a function of the matrix only where its eigenvalue is separated from the
others, and then up to a sign (a phase). A loss of several eigenvectors can still be smooth
where they meet, if it depends on their span alone.
"""

import warnings
from typing import NamedTuple

import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from linalg_kernels import errors
from linalg_kernels.backends import select
from linalg_kernels.backends import torch as reference
from linalg_kernels.precision import full_precision, promote, restore
from linalg_kernels.transforms import (
    EagerRule,
    Rule,
    batch_first,
    differentiated,
    needs_rule,
    transformed,
)

# Gaps below this many rounding errors of the largest eigenvalue carry no information.
_GAP_ULPS = 8


class Eigh(NamedTuple):
    """Eigenvalues in ascending order (*batch, n) and orthonormal eigenvectors (*batch, n, n)."""

    w: Tensor
    V: Tensor


def _inverse_gaps(w: Tensor) -> Tensor:
    """1 / (w_j - w_i), 0 where the two are equal to rounding."""
    gap = w[..., None, :] - w[..., :, None]
    size = w.detach().abs().amax(-1)[..., None, None]
    separate = gap.detach().abs() > _GAP_ULPS * torch.finfo(w.dtype).eps * size
    return torch.where(separate, 1 / torch.where(separate, gap, 1), 0)


def _warn_ill_defined(w: Tensor, M: Tensor) -> None:
    """Warn when the loss tells apart eigenvectors of one repeated eigenvalue."""
    if not (M.numel() and errors.can_read(M)):
        return
    tied = (_inverse_gaps(w) == 0).detach()
    tied.diagonal(dim1=-2, dim2=-1).fill_(False)
    turning = torch.where(tied, (M - M.mH).detach().abs(), 0).amax()
    if bool(turning > 1e3 * torch.finfo(w.dtype).eps * M.detach().abs().amax()):
        warnings.warn(
            "the loss depends on the choice of eigenvectors of a repeated eigenvalue, so its "
            "gradient through eigh is not defined there; that part was taken as 0",
            stacklevel=2,
        )


class _Eigh(Rule):
    """A -> (w, V), gap-safe: dw_i = (V^H dA V)_ii and dV = V (V^H dA V / (w_j - w_i))."""

    @staticmethod
    def forward(A, symmetrize, check, gauge_check, name):  # noqa: ARG004
        return select.eigh(A, symmetrize, check, name)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*output)
        ctx.save_for_forward(*output)
        ctx.gauge_check = inputs[3]

    @staticmethod
    @full_precision
    def backward(ctx, gw, gV):
        w, V = ctx.saved_tensors
        if not ctx.gauge_check and (gw is not None or gV is not None):
            gA = select.eigh_vjp(w, V, gw, gV)
            if gA is not None:
                return gA, None, None, None, None
        inner = None
        if gV is not None:
            M = V.mH @ gV
            if ctx.gauge_check:
                _warn_ill_defined(w, M)
            inner = M * _inverse_gaps(w)
        if gw is not None:
            diagonal = torch.diag_embed(gw).to(V.dtype)
            inner = diagonal if inner is None else inner + diagonal
        gA = None if inner is None else reference.hermitian(V @ inner @ V.mH)
        return gA, None, None, None, None

    @staticmethod
    def vmap(info, dims, A, symmetrize, check, gauge_check, name):
        (A,) = batch_first(info.batch_size, dims[:1], (A,))
        return tuple(_decompose(A, symmetrize, check, gauge_check, name)), (0, 0)


class _EighEager(_Eigh):
    @staticmethod
    @full_precision
    def jvp(ctx, dA, *_):
        w, V = ctx.saved_tensors
        M = V.mH @ reference.hermitian(dA) @ V
        return M.diagonal(dim1=-2, dim2=-1).real, V @ (M * _inverse_gaps(w))


class _EighPlain(EagerRule):
    """A -> (w, V), where only a gradient may be asked for."""

    @staticmethod
    def forward(ctx, A, symmetrize, check, gauge_check, name):
        ctx.set_materialize_grads(False)
        ctx.gauge_check = gauge_check
        w, V = select.eigh(A, symmetrize, check, name)
        ctx.save_for_backward(w, V)
        return w, V

    backward = _Eigh.backward


def _decompose(
    A: Tensor, symmetrize: bool, check: bool, gauge_check: bool = False, name: str = "A"
) -> Eigh:
    if not transformed():
        if not differentiated(A):
            return Eigh(*select.eigh(A, symmetrize, check, name))
        return Eigh(*_EighPlain.apply(A, symmetrize, check, gauge_check, name))
    rule = _Eigh if torch.compiler.is_compiling() else _EighEager
    return Eigh(*rule.apply(A, symmetrize, check, gauge_check, name))


@full_precision
def eigh(
    A: Inexact[Tensor, "*batch n n"],
    *,
    symmetrize: bool = True,
    check: bool = True,
    gauge_check: bool = False,
    upcast: bool = False,
    name: str = "A",
) -> Eigh:
    """Eigendecomposition A = V diag(w) V^H of a Hermitian matrix, w ascending.

    Equivalent to `torch.linalg.eigh`, with finite gradients at repeated eigenvalues: the part
    that would divide by a gap below 8 ulp of the largest |w| is 0. That is right for losses of
    the eigenspaces (projectors V_k V_k^H) and for symmetric functions of the eigenvalues;
    `gauge_check=True` warns in backward when a loss depends on the basis chosen within an
    eigenspace. It is not enough for a function of A put together from w and V, whose
    derivative at a tie is lost in the parts: take `logm` and its kin, or `spectral_fn`.

    `symmetrize`, `check`, `upcast`, `name`: see `linalg_kernels.spectral`.
    """
    A, dtype = promote(A, upcast)
    errors.require_float(A, name)
    errors.require_square(A, name)
    w, V = _decompose(A, symmetrize, check, gauge_check, name)
    return Eigh(restore(w, dtype), restore(V, dtype))


class _Eigvalsh(Rule):
    """A -> w without eigenvectors; they are computed when a derivative asks for them."""

    @staticmethod
    def forward(A, symmetrize, check, name):
        return select.eigvalsh(A, symmetrize, check, name)

    @staticmethod
    def setup_context(ctx, inputs, output):  # noqa: ARG004
        A, ctx.symmetrize, *_ = inputs
        ctx.save_for_backward(A)
        ctx.save_for_forward(A)

    @staticmethod
    @full_precision
    def backward(ctx, gw):
        (A,) = ctx.saved_tensors
        _, V = _decompose(A, ctx.symmetrize, False)
        gA = reference.hermitian((V * gw[..., None, :]) @ V.mH)
        return gA, None, None, None

    @staticmethod
    def vmap(info, dims, A, symmetrize, check, name):
        (A,) = batch_first(info.batch_size, dims[:1], (A,))
        return _values(A, symmetrize, check, name), 0


class _EigvalshEager(_Eigvalsh):
    @staticmethod
    @full_precision
    def jvp(ctx, dA, *_):
        (A,) = ctx.saved_tensors
        _, V = _decompose(A, ctx.symmetrize, False)
        return (V.conj() * (reference.hermitian(dA) @ V)).real.sum(-2)


def _values(A: Tensor, symmetrize: bool, check: bool, name: str) -> Tensor:
    if not needs_rule(A):
        return select.eigvalsh(A, symmetrize, check, name)
    rule = _Eigvalsh if torch.compiler.is_compiling() else _EigvalshEager
    return rule.apply(A, symmetrize, check, name)


@full_precision
def eigvalsh(
    A: Inexact[Tensor, "*batch n n"],
    *,
    symmetrize: bool = True,
    check: bool = True,
    upcast: bool = False,
    name: str = "A",
) -> Float[Tensor, "*batch n"]:
    """Eigenvalues of a Hermitian matrix in ascending order.

    Equivalent to `torch.linalg.eigvalsh`. Its gradient at a repeated eigenvalue is that of
    one choice of eigenvectors, exact for symmetric functions of the eigenvalues.

    `symmetrize`, `check`, `upcast`, `name`: see `linalg_kernels.spectral`.
    """
    A, dtype = promote(A, upcast)
    errors.require_float(A, name)
    errors.require_square(A, name)
    if torch.is_grad_enabled() and A.requires_grad:
        # One decomposition serves both passes.
        return restore(_decompose(A, symmetrize, check, name=name).w, dtype)
    return restore(_values(A, symmetrize, check, name), dtype)
