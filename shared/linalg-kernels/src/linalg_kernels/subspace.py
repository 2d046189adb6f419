"""Leading singular vectors by powers of A^H A, on plain tensors.

Both iterations stop by the residual of A v = σ u, A^H u = σ v relative to the largest σ, which
bounds the error of σ whatever the gap to the next singular value.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from linalg_kernels import errors
from linalg_kernels.transforms import read

# Odd multipliers of a mixing hash in wrapping 64-bit arithmetic.
_MULTIPLIERS = (6364136223846793005, 1442695040888963407, -49064778989728563)


def default_tol(dtype: torch.dtype, n: int) -> float:
    """A few roundings of a product with n terms."""
    return 8 * max(1, n) ** 0.5 * torch.finfo(dtype).eps


def _trace_one(P: Tensor) -> Tensor:
    trace = P.diagonal(dim1=-2, dim2=-1).real.sum(-1)[..., None, None]
    first = torch.zeros_like(P)
    first[..., 0, 0] = 1
    return torch.where(trace == 0, first, P / torch.where(trace == 0, 1, trace))


def _largest_column(P: Tensor) -> Tensor:
    """The normalised column of the largest diagonal entry of positive semidefinite P."""
    j = P.diagonal(dim1=-2, dim2=-1).real.argmax(-1)[..., None, None]
    x = P.gather(-1, j.expand(*P.shape[:-1], 1))[..., 0]
    return x / torch.linalg.vector_norm(x, dim=-1, keepdim=True)


def leading_eigenvector(G: Tensor, squarings: int, tol: float) -> Tensor:
    """Unit x (*batch, n) of the largest eigenvalue λ of positive semidefinite G (*batch, n, n).

    P = G^(2^k) by repeated squaring, and of P the column of its largest diagonal entry. With
    N = 2^k that entry is at least λ^N / n, so the column's Rayleigh quotient is at least
    λ n^(-1/N): there is no start vector that could be orthogonal to the leading eigenvector,
    and no gap that is needed. Stops early where the residual is within `tol` and x^H P x
    exceeds half of tr P, more than any other eigenvector can then have.
    """
    P = _trace_one(G)
    x = _largest_column(P)
    for _ in range(squarings):
        P = _trace_one(P @ P)
        P = (P + P.mH) / 2
        x = _largest_column(P)
        if errors.can_read(G):
            Gx, Px = ((M @ x[..., None])[..., 0] for M in (G, P))
            value = (x.conj() * Gx).sum(-1, keepdim=True).real
            residual = torch.linalg.vector_norm(Gx - value * x, dim=-1)
            share = (x.conj() * Px).sum(-1).real
            unfinished = (residual > tol * value[..., 0]) | (share <= 0.5)
            if not bool(unfinished.any()):
                break
    return x


def start_block(n: int, width: int, like: Tensor, generator: torch.Generator | None) -> Tensor:
    """A random block (n, width): Gaussian from the generator, or always the same, from a hash.

    The hash of row and column needs no generator, which could not be traced.
    """
    real = like.real.dtype if like.is_complex() else like.dtype
    if generator is not None:
        X = torch.randn(n, width, generator=generator, dtype=real, device=generator.device)
        return X.to(like.device, like.dtype)
    rows = torch.arange(1, n + 1, device=like.device)[:, None]
    columns = torch.arange(1, width + 1, device=like.device)
    bits = rows * _MULTIPLIERS[0] + columns * _MULTIPLIERS[1]
    for shift in (33, 29):
        bits = (bits ^ (bits >> shift)) * _MULTIPLIERS[2]
    uniform = ((bits >> 32) & 0xFFFFFF).to(real) / 2**23 - 1
    return uniform.to(like.dtype)


def block_power(
    apply: Callable[[Tensor], Tensor],
    apply_adjoint: Callable[[Tensor], Tensor],
    X: Tensor,
    k: int,
    iters: int,
    tol: float | None,
) -> tuple[Tensor, Tensor, Tensor, float | None]:
    """k leading singular triples U, S, V of A from a start block X (*batch, n, b), b >= k.

    Subspace iteration with a Rayleigh-Ritz step each time: one product with A and one with
    A^H on b columns. Misses a singular vector only if all b columns of X are orthogonal to it.
    Stops where ‖A v - σ u‖ <= tol σ_1 for all k; gives the largest of these that was last seen,
    None if `tol` is None or values cannot be read.
    """
    X, _ = torch.linalg.qr(X)
    Y = apply(X)
    residual = None
    for step in range(1, iters + 1):
        Q, _ = torch.linalg.qr(Y)
        X, R = torch.linalg.qr(apply_adjoint(Q))
        last = step == iters
        if tol is None and not last:
            Y = apply(X)
            continue
        # Q^H A = R^H X^H, so the small R^H = W S T^H gives U = Q W and V = X T.
        W, S, Th = torch.linalg.svd(R.mH)
        U, X = Q @ W, X @ Th.mH
        if tol is not None:
            Y = apply(X)
            size = S[..., :1].clamp_min(torch.finfo(S.dtype).tiny)
            error = Y[..., :k] / size[..., None] - U[..., :k] * (S / size)[..., None, :k]
            error = torch.linalg.vector_norm(error, dim=-2)
            residual = read(error.amax()) if error.numel() else 0.0
            last = last or (residual is not None and residual <= tol)
        if last:
            return U[..., :k], S[..., :k], X[..., :k], residual
    raise ValueError(f"iters must be >= 1, got {iters}")
