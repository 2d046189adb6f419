"""Inner products with matrices given by the numbers of their lower triangles.

The linear layer of symmetric matrices: `inner_products` are the scores of samples X_i under
classes W_k, and in `inner_products_at` each class has a point, given by its Cholesky factor, in
the place of a bias. Packed numbers as in `linalg_kernels.packed`. Plain eager autograd on the
CPU takes the native library, one call each way; everything else composes.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from linalg_kernels import errors
from linalg_kernels.backends import choice, native
from linalg_kernels.backends.plain import NATIVE_LIMIT
from linalg_kernels.cholesky import from_chol_log
from linalg_kernels.packed import (
    multiplicities,
    order,
    pack_lower,
    pack_sum,
    symmetric,
    triangular,
)
from linalg_kernels.transforms import EagerRule, differentiated, transformed

MANY = 40
"""From so many classes on it pays to pack the samples, so that products are half as long."""


def _compose_products(X: Tensor, w: Tensor, minus: Tensor | None, lower: bool) -> Tensor:
    if len(w) > min(len(X), MANY):
        rows, columns = (pack_lower(X) if lower else pack_sum(X)), w
    else:
        W = triangular(w) if lower else symmetric(w)
        rows, columns = X.flatten(-2), W.flatten(-2)
    if minus is None:
        return rows @ columns.mT
    return torch.addmm(minus, rows, columns.mT, beta=-1)


def _compose_at(X: Tensor, w: Tensor, z: Tensor) -> Tensor:
    P = pack_lower(from_chol_log(triangular(z)))
    entries = P * multiplicities(order(z), z.dtype, z.device)
    return _compose_products(X, w, torch.linalg.vecdot(entries, w), False)


class _Products(EagerRule):
    """(X, w, minus) -> scores."""

    @staticmethod
    def forward(ctx, X, w, minus, lower):
        scores, x = native.inner_products(X, w, minus, lower)
        # Where differentiation may be asked for again, X is needed, not its numbers alone.
        ctx.save_for_backward(X, w, x)
        ctx.lower = lower
        return scores

    @staticmethod
    def backward(ctx, G):
        X, w, x = ctx.saved_tensors
        lower, wanted = ctx.lower, ctx.needs_input_grad[:3]
        if choice.native_goes_on(G):
            return *native.inner_products_vjp(x, w, G, X.shape[-1], lower, wanted), None
        gX, gw = torch.func.vjp(lambda X, w: _compose_products(X, w, None, lower), X, w)[1](G)
        return gX, gw, -G.sum(0) if wanted[2] else None, None


class _ProductsAt(EagerRule):
    """(X, w, z) -> scores less tr(W L L^T), as one rule: a second one costs 40 µs."""

    @staticmethod
    def forward(ctx, X, w, z):
        scores, kept = native.inner_products_at(X, w, z)
        ctx.save_for_backward(X, w, z, kept)
        return scores

    @staticmethod
    def backward(ctx, G):
        X, w, z, kept = ctx.saved_tensors
        if choice.native_goes_on(G):
            return native.inner_products_at_vjp(kept, w, G, X.shape[-1], ctx.needs_input_grad)
        return torch.func.vjp(_compose_at, X, w, z)[1](G)


def _check(X: Tensor, w: Tensor) -> None:
    errors.require_float(X, "X")
    n = X.shape[-1]
    if X.ndim != 3 or X.shape[-2] != n or w.ndim != 2 or w.shape[-1] != n * (n + 1) // 2:
        raise ValueError(
            "X must be (b, n, n) and w (c, n (n + 1) / 2), got "
            f"{tuple(X.shape)} and {tuple(w.shape)}"
        )


def inner_products(
    X: Float[Tensor, "b n n"],
    w: Float[Tensor, "c m"],
    minus: Float[Tensor, " c"] | None = None,
    *,
    lower: bool = False,
) -> Float[Tensor, "b c"]:
    """⟨X_i, W_k⟩ - minus_k of all pairs, with ⟨X, W⟩ = tr(X^T W).

    W_k is the symmetric matrix, or with `lower` the lower triangular one, whose lower triangle is
    w_k, row by row, m = n (n + 1)/2. Values are not looked at.
    """
    _check(X, w)
    if len(w) == 0 or transformed() or not choice.library_takes(X, w, minus):
        return _compose_products(X, w, minus, lower)
    if differentiated(X, w, minus):
        return _Products.apply(X, w, minus, lower)
    return native.inner_products(X, w, minus, lower)[0]


def inner_products_at(
    X: Float[Tensor, "b n n"], w: Float[Tensor, "c m"], z: Float[Tensor, "c m"]
) -> Float[Tensor, "b c"]:
    """⟨X_i - P_k, W_k⟩ of all pairs, P_k = L_k L_k^T with L = ⌊Z⌋ + exp diag Z.

    P is `from_chol_log` of Z, the lower triangular matrix with the numbers z; W is symmetric, as
    in `inner_products`.
    """
    _check(X, w)
    if z.shape != w.shape:
        raise ValueError(f"z must be {tuple(w.shape)} as w, got {tuple(z.shape)}")
    n = X.shape[-1]
    if len(w) == 0 or n > NATIVE_LIMIT or transformed() or not choice.library_takes(X, w, z):
        return _compose_at(X, w, z)
    if differentiated(X, w, z):
        return _ProductsAt.apply(X, w, z)
    return native.inner_products_at(X, w, z, derivatives=False)[0]
