"""tr(A f(K^T T K)) of every T with every K: all that a score asks of an eigendecomposition.

One eigendecomposition M = K^T T K = U diag(w) U^T gives the value and, by Daleckii and Krein, the
derivative U (f[w_i, w_j] ∘ U^T A U) U^T for M, which is finite where eigenvalues meet.
"""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from linalg_kernels import congruence, daleckii_krein
from linalg_kernels.scalar import ScalarFunction
from torch import Tensor
from torch.autograd import Function

Samples = Float[Tensor, "b n n"]
Classes = Float[Tensor, "c n n"]
Pairs = Float[Tensor, "c b n n"]
Scores = Float[Tensor, "b c"]

_BLOCK_BYTES = 1 << 22
"""Of the matrices of pairs that are worked on at a time: larger ones leave the caches."""


def congruence_trace(T: Samples, K: Classes, A: Classes, f: ScalarFunction) -> Scores:
    """tr(A_k f(K_k^T T_i K_k)) for symmetric positive definite T, invertible K, symmetric A.

    A pair whose M is not positive definite to working precision gets NaN or an infinity. Second
    derivatives and transforms of torch.func go through `reference`.
    """
    if (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or torch.autograd.forward_ad._current_level >= 0
    ):
        return reference(T, K, A, f)
    return _CongruenceTrace.apply(T, K, A, f)


def reference(T: Samples, K: Classes, A: Classes, f: ScalarFunction) -> Scores:
    """The same in three operations, with derivatives of every order that f has."""
    M = K.mT @ T[:, None] @ K
    F = daleckii_krein.spectral((M + M.mT) / 2, None, f, check=False)[0]
    return (A * F).sum((-2, -1))


def _blocks(T: Samples, K: Classes) -> Iterator[slice]:
    """Classes whose pairs stay in a cache from one operation to the next."""
    c = len(K)
    classes = max(1, _BLOCK_BYTES // max(1, T.numel() * T.element_size()))
    return (slice(k, min(k + classes, c)) for k in range(0, c, classes))


class _CongruenceTrace(Function):
    """(T, K, A) -> (b, c), and for the backward pass F = f(M) and D, the derivative for M.

    Pairs lie with the class first, so that products with matrices of one class are one.
    """

    @staticmethod
    def forward(ctx, T, K, A, f):
        ctx.f = f
        of_T, of_K, of_A, _ = ctx.needs_input_grad
        scores, kept = [], []
        for some in _blocks(T, K):
            score, F, D = congruence.traces(
                T, K[some], A[some], f, value=of_A, derivative=of_T or of_K
            )
            scores.append(score)
            kept += [F, D]
        ctx.save_for_backward(T, K, A, *kept)
        return torch.cat(scores).mT if scores else T.new_empty(len(T), 0)

    @staticmethod
    def backward(ctx, G):
        T, K, A, *kept = ctx.saved_tensors
        if torch.is_grad_enabled():
            return *_differentiable_vjp(T, K, A, ctx.f, G), None
        b, n, _ = T.shape
        gT: Tensor | None = None
        gK: list[Tensor] = []
        gA: list[Tensor] = []
        for some, F, D in zip(_blocks(T, K), kept[::2], kept[1::2], strict=True):
            if F is not None:
                gA.append(G.mT[some, None] @ F.view(len(F), b, n * n))
            if D is not None:
                of_M = D * G.mT[some, :, None, None]
                of_T, of_K = _congruence_vjp(T, K[some], of_M, ctx.needs_input_grad)
                if of_T is not None:
                    # Not in place: this runs under vmap for batched gradients.
                    gT = of_T if gT is None else gT + of_T
                if of_K is not None:
                    gK.append(of_K)
        return (
            None if gT is None else (gT + gT.mT) / 2,
            torch.cat(gK) if gK else None,
            torch.cat(gA).view_as(A) if gA else None,
            None,
        )


def _congruence_vjp(
    T: Samples, K: Classes, D: Pairs, wanted: Sequence[bool]
) -> tuple[Samples | None, Classes | None]:
    """Gradients for T, before they are made symmetric, and K from those for M = K^T T K."""
    c, b, n, _ = D.shape
    right = (D.view(c, b * n, n) @ K.mT).view(c, b, n, n)
    gT = gK = None
    if wanted[0]:
        stacked = K.transpose(0, 1).reshape(n, c * n)
        gT = stacked @ right.transpose(0, 1).reshape(b, c * n, n)
    if wanted[1]:
        rows = right.transpose(1, 2).reshape(c * n, b * n) @ T.reshape(b * n, n)
        gK = 2 * rows.view(c, n, n).mT
    return gT, gK


def _differentiable_vjp(
    T: Samples, K: Classes, A: Classes, f: ScalarFunction, G: Scores
) -> tuple[Tensor | None, ...]:
    with torch.enable_grad():
        inputs = [X.view_as(X) if X.requires_grad else X.detach() for X in (T, K, A)]
        wanted = [X for X in inputs if X.requires_grad]
        scores = reference(inputs[0], inputs[1], inputs[2], f)
        found = iter(torch.autograd.grad(scores, wanted, G, create_graph=True))
    return tuple(next(found) if X.requires_grad else None for X in inputs)
