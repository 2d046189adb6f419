"""tr(A f(K^T T K)) of every T with every K: all that a score asks of an eigendecomposition.

The function f(M) of M = K^T T K = U diag(w) U^T is not formed: tr(A f(M)) = Σ_i f(w_i) u_i^T A u_i,
and the derivative for M is U (f[w_i, w_j] ∘ U^T A U) U^T, finite where eigenvalues meet.
"""

import torch
from jaxtyping import Float
from linalg_kernels import LinAlgError, daleckii_krein, eigh, errors
from linalg_kernels.scalar import ScalarFunction
from torch import Tensor
from torch.autograd import Function

Samples = Float[Tensor, "b n n"]
Classes = Float[Tensor, "c n n"]
Scores = Float[Tensor, "b c"]


def congruence_trace(T: Samples, K: Classes, A: Classes, f: ScalarFunction) -> Scores:
    """tr(A_k f(K_k^T T_i K_k)) for symmetric positive definite T, any invertible K, symmetric A.

    First derivatives are computed without one of f(M), second ones and transforms of torch.func
    through `reference`. LinAlgError names the sample S[i] and class k whose M is not positive
    definite to working precision.
    """
    if (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or torch.autograd.forward_ad._current_level >= 0
    ):
        return reference(T, K, A, f)
    return _CongruenceTrace.apply(T, K, A, f)[0]


def reference(T: Samples, K: Classes, A: Classes, f: ScalarFunction) -> Scores:
    """The same in three operations, with derivatives of every order that f has."""
    M = K.mT @ T[:, None] @ K
    F = daleckii_krein.spectral((M + M.mT) / 2, None, f, check=False)[0]
    return (A * F).sum((-2, -1))


def _congruences(T: Samples, K: Classes) -> Float[Tensor, "b c n n"]:
    b, n, _ = T.shape
    c = K.shape[0]
    # T K for all classes at once is one product of large matrices.
    right = T.reshape(b * n, n) @ K.permute(1, 0, 2).reshape(n, c * n)
    return K.mT @ right.view(b, n, c, n).transpose(1, 2)


def _check(w: Float[Tensor, "b c n"]) -> None:
    bad = ~(w[..., 0] > 0)
    if errors.can_read(w) and bool(bad.any()):
        i, k = torch.nonzero(bad)[0].tolist()
        raise LinAlgError(
            f"S[{i}] seen from P[{k}] must be positive definite, but has the eigenvalue "
            f"{w[i, k, 0].item():.3g}; add shrinkage, as linalg_kernels.shrink_covariance does"
        )


class _CongruenceTrace(Function):
    """(T, K, A) -> (b, c) with the eigensystems kept."""

    @staticmethod
    def forward(T, K, A, f):
        M = _congruences(T, K)
        w, U = eigh(M, check=False)
        del M
        if w.shape[-1]:
            _check(w)
        seen = (U * (A @ U)).sum(-2)
        return (f.value(w, None) * seen).sum(-1), w, U

    @staticmethod
    def setup_context(ctx, inputs, output):
        T, K, A, ctx.f = inputs
        _, w, U = output
        ctx.mark_non_differentiable(w, U)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(T, K, A, w, U)

    @staticmethod
    def backward(ctx, G, _w, _U):
        T, K, A, w, U = ctx.saved_tensors
        if G is None:
            return None, None, None, None
        if torch.is_grad_enabled():
            return *_differentiable_vjp(T, K, A, ctx.f, G), None
        gT = gK = gA = None
        if ctx.needs_input_grad[2]:
            weighted = U * (G[..., None] * ctx.f.value(w, None))[..., None, :]
            gA = torch.einsum("bcij,bckj->cik", weighted, U)
        if ctx.needs_input_grad[0] or ctx.needs_input_grad[1]:
            D = daleckii_krein.frechet(U, G[..., None, None] * A, None, w, U, ctx.f)
            right = D @ K.mT
            del D
            gT, gK = _congruence_vjp(T, K, right)
        return gT, gK, gA, None


def _congruence_vjp(
    T: Samples, K: Classes, right: Float[Tensor, "b c n n"]
) -> tuple[Samples, Classes]:
    """Gradients for T and K from `right` = G K^T, G being those for the M = K^T T K."""
    b, c, n, _ = right.shape
    stacked = K.permute(1, 0, 2).reshape(n, c * n)
    gT = stacked @ right.reshape(b, c * n, n)
    gK = 2 * torch.einsum("bil,bcjl->cij", T, right)
    return (gT + gT.mT) / 2, gK


def _differentiable_vjp(
    T: Samples, K: Classes, A: Classes, f: ScalarFunction, G: Scores
) -> tuple[Tensor | None, ...]:
    with torch.enable_grad():
        inputs = [X.view_as(X) if X.requires_grad else X.detach() for X in (T, K, A)]
        wanted = [X for X in inputs if X.requires_grad]
        scores = reference(inputs[0], inputs[1], inputs[2], f)
        found = iter(torch.autograd.grad(scores, wanted, G, create_graph=True))
    return tuple(next(found) if X.requires_grad else None for X in inputs)
