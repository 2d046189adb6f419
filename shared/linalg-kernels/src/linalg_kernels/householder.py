"""Products of Householder reflections in compact WY form.

Q = H_1 H_2 ... H_k with H_i = I - 2 v_i v_i^H / ‖v_i‖² equals I - V T V^H, where the columns
of V are the v_i / ‖v_i‖ and T^-1 = striu(V^H V) + I/2: matrix products and one triangular
solve instead of k steps one after the other (Schreiber and Van Loan 1989; for this form of T
Joffrain et al. 2006). T is never formed.

Columns of any length do with T^-1 = striu(V^H V) + diag(V^H V)/2, and the derivative is

    ⟨G, dQ⟩ = ⟨V (M + M^T) - G V T^T - G^T V T, dV⟩,
    M = striu(N) + diag(N)/2,    N = T^T V^T G V T^T,

three products of the size of Q in forward and backward together. Plain eager autograd on the CPU
takes this road: in the native library, in one call each way, or without it in torch.
"""

import torch
from jaxtyping import Inexact
from torch import Tensor

from linalg_kernels import errors
from linalg_kernels.backends import choice, native, plain, select
from linalg_kernels.precision import full_precision, promote, restore
from linalg_kernels.transforms import EagerRule, differentiated, inspect, transformed

# More reflectors than this and than n are multiplied block by block: one block of k costs
# k² n, blocks of b cost k b n + k n².
_BLOCK = 64


def _unit_columns(V: Tensor) -> Tensor:
    """V with columns of norm 1, and 0 with all its derivatives where a column is 0."""
    if V.shape[-2] == 0:
        return V
    # A column's direction does not depend on its scale, so the scale is a constant.
    size = V.detach().abs().amax(-2, keepdim=True)
    zero = size == 0
    V = torch.where(zero, 0, V / torch.where(zero, 1, size))
    norm = (V.abs() ** 2 if V.is_complex() else V * V).sum(-2, keepdim=True)
    return V / torch.where(zero, 1, norm).sqrt()


def _inverse_factor(V: Tensor) -> Tensor:
    """T^-1 = striu(V^H V) + I/2 for unit (or zero) columns."""
    return (V.mH @ V).triu(1) + torch.eye(V.shape[-1], dtype=V.dtype, device=V.device) / 2


def _blocks(V: Tensor) -> list[Tensor]:
    width = max(_BLOCK, V.shape[-2])
    return list(V.split(width, -1)) if V.shape[-1] > width else [V]


def _reflect(V: Tensor, X: Tensor, adjoint: bool) -> Tensor:
    """(I - V T V^H) X, or with T^H."""
    S = _inverse_factor(V)
    S = S.mH if adjoint else S
    batch = torch.broadcast_shapes(V.shape[:-2], X.shape[:-2])
    right = (V.mH @ X).expand(*batch, -1, -1)
    return X - V @ torch.linalg.solve_triangular(S, right, upper=not adjoint)


def _read(V: Tensor, name: str, check: bool) -> Tensor:
    errors.require_float(V, name)
    errors.require_matrix(V, name)
    return inspect(V, lambda T: errors.check_finite(T, name)) if check else V


def _composed_product(V: Tensor) -> Tensor:
    *rest, last = _blocks(_unit_columns(V))
    eye = torch.eye(V.shape[-2], dtype=V.dtype, device=V.device)
    Q = eye - last @ torch.linalg.solve_triangular(_inverse_factor(last), last.mH, upper=True)
    for block in reversed(rest):
        Q = _reflect(block, Q, adjoint=False)
    return Q


def _composed_apply(V: Tensor, X: Tensor, adjoint: bool) -> Tensor:
    blocks = _blocks(_unit_columns(V))
    for block in blocks if adjoint else reversed(blocks):
        X = _reflect(block, X, adjoint)
    return X


def _in_one_block(V: Tensor) -> bool:
    """Whether the roads of plain eager autograd take V: no transform, nor too many columns."""
    n, k = V.shape[-2:]
    return k <= max(_BLOCK, n) and V.numel() > 0 and not transformed()


# --- plain eager autograd, in the native library --------------------------------------------


class _Natively(EagerRule):
    """(V, X) -> Q X or Q^T X, Q without X. Tells `refused` if a column wants another road."""

    @staticmethod
    def forward(ctx, V, X, adjoint, refused):
        found = native.reflect(V, X, adjoint)
        if found is None:
            refused.append(True)
            return V.new_empty(0)
        Y, saved = found
        ctx.save_for_backward(V, X, saved)
        ctx.adjoint = adjoint
        return Y

    @staticmethod
    def backward(ctx, G):
        V, X, saved = ctx.saved_tensors
        adjoint, wanted = ctx.adjoint, ctx.needs_input_grad[:2]
        if choice.native_goes_on(G):
            return *native.reflect_vjp(V, X, saved, G, adjoint, wanted), None, None
        if X is None:
            return _differentiable_vjp(V, G), None, None, None
        return *_differentiable_apply_vjp(V, X, adjoint, G), None, None


def _natively(V: Tensor, X: Tensor | None = None, adjoint: bool = False) -> Tensor | None:
    """Q X, Q^T X or Q of the native library, or None where it does not take V or X."""
    if not _in_one_block(V) or not choice.library_takes(V, X):
        return None
    if not differentiated(V, X):
        found = native.reflect(V, X, adjoint)
        return None if found is None else found[0]
    refused: list[bool] = []
    Y = _Natively.apply(V, X, adjoint, refused)
    return None if refused else Y


# --- plain eager autograd, in torch ---------------------------------------------------------

# Squared lengths of columns that need no scaling first.
_SHORT, _LONG = 1e-16, 1e16


def _inverse_of_factor(V: Tensor) -> Tensor | None:
    """T^-1 = striu(V^T V) + diag(V^T V)/2; None if V wants another road.

    That is what `_in_one_block` does not take, another device, and columns that are 0 or not finite
    or that are long or short.
    """
    if not (_in_one_block(V) and plain.is_plain(V)):
        return None
    gram = V.mT @ V
    squares = gram.diagonal(dim1=-2, dim2=-1)
    low, high = squares.aminmax()
    # False for NaN as well.
    if not (_SHORT < float(low) and float(high) < _LONG):
        return None
    squares *= 0.5
    return gram.triu_()


def _symmetric_half(N: Tensor) -> Tensor:
    """M + M^T with M = striu(N) + diag(N)/2; N is overwritten."""
    M = N.triu_()
    M.diagonal(dim1=-2, dim2=-1).mul_(0.5)
    return M + M.mT


def _add_through_factor(gV: Tensor, V: Tensor, N: Tensor) -> Tensor:
    """gV += V (M + M^T) with M = striu(N) + diag(N)/2; N is overwritten."""
    M = _symmetric_half(N)
    return gV.addmm_(V, M) if V.ndim == 2 else gV.add_(V @ M)


def _product(V: Tensor, S: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Q, -T and -V T, from S = T^-1.

    T itself is a solve with k right sides, and what is left are products: a solve with n of
    them takes five times as long.
    """
    minus = torch.eye(S.shape[-1], dtype=S.dtype, device=S.device).neg_()
    T = torch.linalg.solve_triangular(S, minus.expand_as(S), upper=True)
    W = V @ T
    Q = W @ V.mT
    Q.diagonal(dim1=-2, dim2=-1).add_(1)
    return Q, T, W


class _Product(EagerRule):
    """V -> Q = I + W V^T with W = -V T."""

    @staticmethod
    def forward(ctx, V, S):
        Q, T, W = _product(V, S)
        ctx.save_for_backward(V, T, W)
        return Q

    @staticmethod
    def backward(ctx, G):
        V, T, W = ctx.saved_tensors
        if torch.is_grad_enabled() or transformed() or not plain.is_plain(G):
            return _differentiable_vjp(V, G), None
        # -G V T^T and -G^T V T.
        gV = (G @ V) @ T.mT
        N = W.mT @ gV
        # Transposed afterwards, as the product of a transposed matrix takes longer.
        gV.add_((W.mT @ G).mT)
        return _add_through_factor(gV, V, N), None


@full_precision
def _differentiable_vjp(V: Tensor, G: Tensor) -> Tensor:
    return torch.func.vjp(_composed_product, V)[1](G)[0]


@full_precision
def _differentiable_apply_vjp(
    V: Tensor, X: Tensor, adjoint: bool, G: Tensor
) -> tuple[Tensor, Tensor]:
    return torch.func.vjp(lambda v, x: _composed_apply(v, x, adjoint), V, X)[1](G)


class _Apply(EagerRule):
    """(V, X) -> Q X or Q^T X, of one batch shape."""

    @staticmethod
    def forward(ctx, V, X, S, adjoint):
        F = S.mT if adjoint else S
        W = torch.linalg.solve_triangular(F, V.mT @ X, upper=not adjoint).neg_()
        ctx.save_for_backward(V, X, F, W)
        ctx.adjoint = adjoint
        return X + V @ W

    @staticmethod
    @full_precision
    def backward(ctx, G):
        V, X, F, W = ctx.saved_tensors
        adjoint = ctx.adjoint
        if torch.is_grad_enabled() or not plain.is_plain(G):
            return *_differentiable_apply_vjp(V, X, adjoint, G), None, None
        R = torch.linalg.solve_triangular(F.mT, V.mT @ G, upper=adjoint).neg_()
        gX = G + V @ R if ctx.needs_input_grad[1] else None
        gV = None
        if ctx.needs_input_grad[0]:
            N = W @ R.mT if adjoint else R @ W.mT
            gV = _add_through_factor((G @ W.mT).add_(X @ R.mT), V, N)
        return gV, gX, None, None


class _Reflected(EagerRule):
    """(V, X) -> Y = Q X or Q^T X that a kernel found; differentiated as the composed road is."""

    @staticmethod
    def forward(ctx, V, X, Y, adjoint):
        ctx.save_for_backward(V, X)
        ctx.adjoint = adjoint
        return Y

    @staticmethod
    def backward(ctx, G):
        V, X = ctx.saved_tensors
        return *_differentiable_apply_vjp(V, X, ctx.adjoint, G), None, None


def _by_kernel(V: Tensor, X: Tensor, adjoint: bool) -> Tensor | None:
    """Q X or Q^T X of one batch shape on a GPU, or None where no kernel takes it."""
    if transformed():
        return None
    Y = select.reflections(V.detach(), X.detach(), adjoint)
    if Y is None or not differentiated(V, X):
        return Y
    return _Reflected.apply(V, X, Y, adjoint)


@full_precision
def householder_product(
    V: Inexact[Tensor, "*batch n k"], *, check: bool = True, upcast: bool = False
) -> Inexact[Tensor, "*batch n n"]:
    """Q = H_1 H_2 ... H_k, a product of reflections H_i = I - 2 v_i v_i^H / ‖v_i‖².

    Args:
        V: The reflectors v_i are its columns, of any length; a zero column means H_i = I and
            has zero gradient. Any k, also above n.
        check: Raise `LinAlgError` naming the first element that holds NaN or Inf.
        upcast: Compute float16 and bfloat16 in float32.

    Q is unitary with determinant (-1)^(number of nonzero columns). Not the
    `torch.linalg.householder_product` of LAPACK, whose reflectors carry separate scales.
    """
    V, dtype = promote(V, upcast)
    errors.require_float(V, "V")
    errors.require_matrix(V, "V")
    if not V.is_cpu or choice.prefers_kernels():
        V = _read(V, "V", check)
        n = V.shape[-2]
        eye = torch.eye(n, dtype=V.dtype, device=V.device).expand(*V.shape[:-2], n, n)
        if (Q := _by_kernel(V, eye, False)) is not None:
            return restore(Q, dtype)
    if (Q := _natively(V)) is not None:
        return restore(Q, dtype)
    S = _inverse_of_factor(V.detach())
    if S is None:
        Q = _composed_product(_read(V, "V", check))
    elif differentiated(V):
        Q = _Product.apply(V, S)
    else:
        Q, *_ = _product(V, S)
    return restore(Q, dtype)


@full_precision
def householder_apply(
    V: Inexact[Tensor, "*#batch n k"],
    X: Inexact[Tensor, "*#batch n m"],
    *,
    adjoint: bool = False,
    check: bool = True,
    upcast: bool = False,
) -> Inexact[Tensor, "*batch n m"]:
    """Q X, or Q^H X with `adjoint`, for Q of `householder_product(V)` without forming Q.

    Batch shapes broadcast. Arguments and errors as in `householder_product`.
    """
    V, dtype = promote(V, upcast)
    X, _ = promote(X, upcast)
    errors.require_float(V, "V")
    errors.require_matrix(V, "V")
    X = _read(X, "X", check)
    errors.require_matrix(X, "X", m=V.shape[-2])
    errors.require_same_kind(V, X, ("V", "X"))
    batch = errors.broadcast_batch({"V": (V, 2), "X": (X, 2)})
    if not V.is_cpu or choice.prefers_kernels():
        V = _read(V, "V", check)
        wide = V.expand(*batch, *V.shape[-2:]), X.expand(*batch, *X.shape[-2:])
        if (Y := _by_kernel(*wide, adjoint)) is not None:
            return restore(Y, dtype)
    S = None
    # Others broadcast: one V is not factored for every X.
    if V.shape[:-2] == X.shape[:-2]:
        if X.numel() and (Y := _natively(V, X, adjoint)) is not None:
            return restore(Y, dtype)
        S = _inverse_of_factor(V.detach()) if plain.is_plain(X) else None
    if S is None:
        X = _composed_apply(_read(V, "V", check), X, adjoint)
        return restore(X.expand(*batch, *X.shape[-2:]), dtype)
    return restore(_Apply.apply(V, X, S, adjoint), dtype)
