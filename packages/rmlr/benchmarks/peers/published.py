"""The published construction of the five classifiers, written anew from its description.

Features X (b, 1, n, n) meet all points P (c, n, n) by broadcasting, so that every step holds
(b, c, n, n) numbers; decompositions are singular value decompositions with the plain Loewner
matrix in their backward pass, gaps below a fixed threshold being taken for equal eigenvalues;
those of P are done again in every call (Chen et al., NeurIPS 2024, and the code beside it).
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd import Function

_THRESHOLD = 1e-7


class _Spectral(Function):
    """U f(s) U^T from a singular value decomposition."""

    @staticmethod
    def forward(ctx, X, f, slope):
        U, s, _ = torch.linalg.svd(X)
        s = s.clamp(min=_THRESHOLD)
        values = f(s)
        ctx.save_for_backward(U, s, values)
        ctx.slope = slope
        return U @ torch.diag_embed(values) @ U.mT

    @staticmethod
    def backward(ctx, G):
        U, s, values = ctx.saved_tensors
        gap = s[..., :, None] - s[..., None, :]
        rise = values[..., :, None] - values[..., None, :]
        equal = gap.abs() < _THRESHOLD
        slope = ctx.slope(s)[..., :, None].expand_as(gap)
        loewner = torch.where(equal, slope, rise / torch.where(equal, 1, gap))
        G = (G + G.mT) / 2
        return U @ (loewner * (U.mT @ G @ U)) @ U.mT, None, None


def _log(X: Tensor) -> Tensor:
    return _Spectral.apply(X, torch.log, torch.reciprocal)


def _power(X: Tensor, p: float) -> Tensor:
    if p == 1:
        return X
    return _Spectral.apply(X, lambda s: s**p, lambda s: p * s ** (p - 1))


class _Lyapunov(Function):
    """X with P X + X P = V."""

    @staticmethod
    def forward(ctx, P, V):
        U, s, _ = torch.linalg.svd(P)
        ctx.sums = s[..., :, None] + s[..., None, :]
        X = _solve(U, ctx.sums, V)
        ctx.save_for_backward(U, X)
        return X

    @staticmethod
    def backward(ctx, G):
        U, X = ctx.saved_tensors
        back = _solve(U, ctx.sums, (G + G.mT) / 2)
        return -X @ back - back @ X, back


def _solve(U: Tensor, sums: Tensor, V: Tensor) -> Tensor:
    return U @ ((U.mT @ V @ U) / sums) @ U.mT


def _inner(V: Tensor, A: Tensor) -> Tensor:
    return (V * A).sum((-2, -1))


def log_euclidean(X: Tensor, P: Tensor, A: Tensor) -> Tensor:
    """<log X - log P, A>."""
    return _inner(_log(X) - _log(P), A)


def euclidean(X: Tensor, P: Tensor, A: Tensor) -> Tensor:
    """<X - P, A>."""
    return _inner(X - P, A)


def log_cholesky(X: Tensor, P: Tensor, A: Tensor) -> Tensor:
    """<⌊K⌋ - ⌊L⌋ + log diag K - log diag L, A_½>."""
    K, L = torch.linalg.cholesky(X), torch.linalg.cholesky(P)
    strict = K.tril(-1) - L.tril(-1)
    diagonals = [torch.log(M.diagonal(dim1=-2, dim2=-1)) for M in (K, L)]
    half = A.tril(-1) + torch.diag_embed(A.diagonal(dim1=-2, dim2=-1)) / 2
    return _inner(strict + torch.diag_embed(diagonals[0] - diagonals[1]), half)


def affine_invariant(X: Tensor, P: Tensor, A: Tensor) -> Tensor:
    """<log(P^-½ X P^-½), A>."""
    root = _power(P, -0.5)
    return _inner(_log(root @ X @ root), A)


def bures_wasserstein(X: Tensor, P: Tensor, A: Tensor) -> Tensor:
    """<(P X)^½ + (X P)^½ - 2 P, 𝓛_P[L A L^T]>/2, P = L L^T."""
    root, inverse = _power(P, 0.5), _power(P, -0.5)
    product = root @ _power(root @ X @ root, 0.5) @ inverse
    L = torch.linalg.cholesky(P)
    return _inner(product + product.mT - 2 * P, _Lyapunov.apply(P, L @ A @ L.mT)) / 2


SCORES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "log-Euclidean": log_euclidean,
    "log-Cholesky": log_cholesky,
    "Euclidean": euclidean,
    "affine-invariant": affine_invariant,
    "Bures-Wasserstein": bures_wasserstein,
}
"""From X (b, 1, n, n), P (c, n, n) and symmetric A (c, n, n) to (b, c), at standard θ."""
