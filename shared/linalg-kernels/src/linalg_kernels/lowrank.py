"""The leading singular triples of a matrix, and what is built on them.

Gradients: see `linalg_kernels.singular_triples`.
"""

from typing import Literal

import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from linalg_kernels import errors, singular_triples, subspace
from linalg_kernels.backends import select
from linalg_kernels.linear_operator import LinearOperator
from linalg_kernels.precision import full_precision, promote, restore
from linalg_kernels.transforms import EagerRule, differentiated, inspect, transformed

Method = Literal["block_power", "randomized", "exact"]


def _read(A: Tensor, name: str, check: bool) -> Tensor:
    errors.require_float(A, name)
    errors.require_matrix(A, name)
    return inspect(A, lambda T: errors.check_finite(T, name)) if check else A


def _check_steps(iters: int, tol: float | None) -> None:
    if iters < 1:
        raise ValueError(f"iters must be >= 1, got {iters}")
    if tol is not None and not tol > 0:
        raise ValueError(f"tol must be > 0, got {tol}")


@full_precision
def rank1(
    A: Inexact[Tensor, "*batch m n"] | LinearOperator,
    iters: int = 20,
    tol: float | None = None,
    *,
    check: bool = True,
    upcast: bool = False,
) -> tuple[Inexact[Tensor, "*batch m"], Float[Tensor, "*batch"], Inexact[Tensor, "*batch n"]]:
    """Leading singular triple (u, s, v): A v = s u, A^H u = s v, with unit u and v.

    By powers of the smaller Gram matrix, from a start that depends on A alone: for min(m, n)
    <= 256 repeated squaring, for which no A is unfavourable (`subspace.leading_eigenvector`);
    above, and for operators, subspace iteration on 8 fixed columns, which squaring follows where
    it has not converged (up to 4096; beyond, a `ConvergenceWarning` says so). Where the largest
    singular value is repeated, u and v are some pair of its space. A = 0 gives s = 0 with unit
    u and v.

    Args:
        A: Matrices, or a `LinearOperator`, e.g. a Jacobian that is never formed. Of an
            operator only s carries gradient, the exact one of Re u^H A v; u and v are constants.
        iters: Most squarings, of which k are 2^k power steps; above size 256 and for
            operators most steps. While a graph is traced exactly so many.
        tol: Stop where ‖A v - s u‖ and ‖A^H u - s v‖ are at most tol s. By default at a few
            roundings; a `ConvergenceWarning` says when a tol that was given is not met.
        check: Raise `LinAlgError` naming the first element that holds NaN or Inf.
        upcast: Compute float16 and bfloat16 in float32.

    Gradients of u and v are those of any loss that does not depend on their common sign
    (phase), and Inf or NaN where the largest singular value is repeated or 0. That of s alone
    is always u v^H.
    """
    _check_steps(iters, tol)
    if isinstance(A, LinearOperator):
        if 0 in A.shape:
            raise ValueError(f"A must have at least one row and column, got {tuple(A.shape)}")
        U, S, V = singular_triples.operator_triples(
            A, 1, singular_triples.RANK1_OVERSAMPLE, iters, tol, None, "rank1"
        )
        return U[..., 0], S[..., 0], V[..., 0]
    A, dtype = promote(A, upcast)
    A = _read(A, "A", check)
    if 0 in A.shape[-2:]:
        raise ValueError(f"A must have at least one row and column, got {tuple(A.shape)}")
    U, S, V = singular_triples.triples(A, 1, "power", singular_triples.RANK1_OVERSAMPLE, iters, tol)
    return restore(U[..., 0], dtype), restore(S[..., 0], dtype), restore(V[..., 0], dtype)


class _Rest(EagerRule):
    """(X, rest) -> rest, which has the gradient of X: what was removed is a constant."""

    @staticmethod
    def forward(_ctx, _X, rest):
        return rest

    @staticmethod
    def backward(ctx, G):  # noqa: ARG004
        return G, None


@full_precision
def remove_rank1(
    X: Inexact[Tensor, "*batch m n"],
    iters: int = 20,
    tol: float | None = None,
    *,
    detach: bool = True,
    check: bool = True,
    upcast: bool = False,
) -> Inexact[Tensor, "*batch m n"]:
    """X - s u v^H with the leading singular triple of X, what is left of each matrix.

    With `detach` the removed component is a constant to autograd, as for scores that are
    computed after training, and the gradient passes unchanged; with False it is differentiated
    as well, where the largest singular value is not repeated. Other arguments as in `rank1`.
    """
    _check_steps(iters, tol)
    X, dtype = promote(X, upcast)
    X = _read(X, "X", check)
    if 0 in X.shape[-2:]:
        return restore(X.clone(), dtype)
    if detach and tol is None and not transformed():
        rest = select.without_leading_triple(
            X.detach(), iters, subspace.default_tol(X.dtype, max(X.shape[-2:]))
        )
        if rest is not None:
            return restore(_Rest.apply(X, rest) if differentiated(X) else rest, dtype)
    source = X.detach() if detach else X
    U, S, V = singular_triples.triples(
        source, 1, "power", singular_triples.RANK1_OVERSAMPLE, iters, tol
    )
    return restore(torch.addcmul(X, U * S[..., None, :], V.mH, value=-1), dtype)


_DEFAULTS: dict[str, tuple[int, int]] = {
    # iters, oversample
    "block_power": (20, 8),
    "randomized": (3, 32),
    "exact": (1, 0),
}


@full_precision
def svd_topk(
    A: Inexact[Tensor, "*batch m n"] | LinearOperator,
    k: int,
    method: Method = "block_power",
    *,
    iters: int | None = None,
    tol: float | None = None,
    oversample: int | None = None,
    generator: torch.Generator | None = None,
    check: bool = True,
    upcast: bool = False,
) -> tuple[Inexact[Tensor, "*batch m k"], Float[Tensor, "*batch k"], Inexact[Tensor, "*batch n k"]]:
    """The k largest singular values S, descending, with vectors U and V: A ≈ U diag(S) V^H.

    Args:
        A: Matrices, or a `LinearOperator` (of which only S carries gradient, the exact one of
            Re u_i^H A v_i).
        k: Number of triples, at most min(m, n).
        method: "block_power" iterates a block of k + oversample columns until every triple
            has converged to `tol`; "randomized" does a fixed, small number of such steps
            (Halko, Martinsson and Tropp 2011); "exact" is the full decomposition, of which k
            triples are kept.
        iters: Most steps, each a product with A and one with A^H: 20, and exactly 3 (a sketch
            and 2 power steps) for "randomized". While a graph is traced exactly so many.
        tol: ‖A v_i - s_i u_i‖ <= tol s_1 is converged. By default a few roundings; a
            `ConvergenceWarning` says when a tol that was given is not met.
        oversample: Columns beyond k, 8, and 32 for "randomized". The error falls as
            (s_(k + oversample + 1) / s_k)^(2 iters).
        generator: Of the start block, which is otherwise always the same.
        check: Raise `LinAlgError` naming the first element that holds NaN or Inf.
        upcast: Compute float16 and bfloat16 in float32.

    Gradients as in `rank1`; those of U and V solve k systems of size min(m, n).
    """
    if method not in _DEFAULTS:
        raise ValueError(f"method must be one of {', '.join(map(repr, _DEFAULTS))}, got {method!r}")
    steps, extra = _DEFAULTS[method]
    iters = steps if iters is None else iters
    oversample = extra if oversample is None else oversample
    _check_steps(iters, tol)
    if oversample < 0:
        raise ValueError(f"oversample must be >= 0, got {oversample}")
    dtype = None
    if not isinstance(A, LinearOperator):
        A, dtype = promote(A, upcast)
        A = _read(A, "A", check)
    elif method == "exact":
        raise ValueError("method 'exact' needs a matrix, got a LinearOperator")
    m, n = A.shape[-2:]
    if not 0 <= k <= min(m, n):
        raise ValueError(f"k must lie in [0, {min(m, n)}] for A (..., {m}, {n}), got {k}")
    if isinstance(A, LinearOperator):
        if k == 0:
            like = torch.empty(0, dtype=A.dtype, device=A.device)
            return like.new_empty(m, 0), like.real.new_empty(0), like.new_empty(n, 0)
        return singular_triples.operator_triples(
            A, k, oversample, iters, tol, generator, "svd_topk"
        )
    if k == 0:
        batch = A.shape[:-2]
        return A.new_empty(*batch, m, 0), A.real.new_empty(*batch, 0), A.new_empty(*batch, n, 0)
    U, S, V = singular_triples.triples(A, k, method, oversample, iters, tol, generator)
    return restore(U, dtype), restore(S, dtype), restore(V, dtype)


@full_precision
def whitened_lowrank(
    W: Inexact[Tensor, "*#batch m n"],
    S: Inexact[Tensor, "*#batch n p"] | Inexact[Tensor, "*#batch n"],
    k: int,
    *,
    diagonal: bool = False,
    method: Method = "exact",
    iters: int | None = None,
    oversample: int | None = None,
    generator: torch.Generator | None = None,
    check: bool = True,
    upcast: bool = False,
) -> tuple[Inexact[Tensor, "*batch m k"], Inexact[Tensor, "*batch k n"]]:
    """Factors A, B with the product of rank k nearest to W for inputs of second moment S S^H.

    Minimises ‖(W - A B) S‖_F: with the k leading triples of W S = U Σ V^H it is A = U Σ^1/2,
    B = Σ^-1/2 U^H W. S is never inverted and may be singular; where Σ_i vanishes to rounding
    the factors are u_i and u_i^H W, of the same product.

    Args:
        W: Weight of a linear map x -> W x.
        S: A factor of the second moment X X^H = S S^H of the inputs, e.g. its Cholesky factor.
        diagonal: S is a vector (*batch, n), the diagonal of a diagonal factor.
        k: Rank, at most min(m, n, p).
        method, iters, oversample, generator: As in `svd_topk`.
        check: Raise `LinAlgError` naming the first element that holds NaN or Inf.
        upcast: Compute float16 and bfloat16 in float32.
    """
    W, dtype = promote(W, upcast)
    S, _ = promote(S, upcast)
    W = _read(W, "W", check)
    m, n = W.shape[-2:]
    factor = S[..., None, :] if diagonal else S
    errors.require_same_kind(W, S, ("W", "S"))
    if diagonal and (S.ndim < 1 or S.shape[-1] != n):
        raise ValueError(f"S must be (..., n) with n={n}, got {tuple(S.shape)}")
    factor = _read(factor, "S", check)
    if not diagonal:
        errors.require_matrix(S, "S", m=n)
    errors.broadcast_batch({"W": (W, 2), "S": (factor, 2)})
    most = min(m, n, factor.shape[-1])
    if not 0 <= k <= most:
        raise ValueError(f"k must lie in [0, {most}], the rank of W S, got {k}")
    product = W * factor if diagonal else W @ factor
    U, sigma, _ = svd_topk(
        product, k, method, iters=iters, oversample=oversample, generator=generator, check=False
    )
    size = sigma[..., :1].detach()
    idle = sigma <= max(m, n) * torch.finfo(sigma.dtype).eps * size
    root = torch.where(idle, 1, sigma).sqrt()
    A, B = U * root[..., None, :], U.mH @ W / root[..., :, None]
    return restore(A, dtype), restore(B, dtype)
