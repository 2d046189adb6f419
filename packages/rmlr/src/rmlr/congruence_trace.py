"""tr(A f(K^T T K)) of every T with every K: all that a score asks of an eigendecomposition.

One eigendecomposition M = K^T T K = U diag(w) U^T gives the value and, by Daleckii and Krein, the
derivative U (f[w_i, w_j] ∘ U^T A U) U^T for M, which is finite where eigenvalues meet.
"""

import torch
from jaxtyping import Float
from linalg_kernels import daleckii_krein, eigh
from linalg_kernels.scalar import ScalarFunction
from torch import Tensor
from torch.autograd import Function

Samples = Float[Tensor, "b n n"]
Classes = Float[Tensor, "c n n"]
Pairs = Float[Tensor, "c b n n"]
Scores = Float[Tensor, "b c"]


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
    return _CongruenceTrace.apply(T, K, A, f)[0]


def reference(T: Samples, K: Classes, A: Classes, f: ScalarFunction) -> Scores:
    """The same in three operations, with derivatives of every order that f has."""
    M = K.mT @ T[:, None] @ K
    F = daleckii_krein.spectral((M + M.mT) / 2, None, f, check=False)[0]
    return (A * F).sum((-2, -1))


def _congruences(T: Samples, K: Classes) -> Pairs:
    b, n, _ = T.shape
    c = len(K)
    # Both products are of matrices much larger than n.
    left = K.mT.reshape(c * n, n) @ T.transpose(0, 1).reshape(n, b * n)
    return (left.view(c, n * b, n) @ K).view(c, n, b, n).transpose(1, 2).contiguous()


class _CongruenceTrace(Function):
    """(T, K, A) -> (b, c), and for the backward pass the eigensystems w, U and F = f(M).

    Pairs lie with the class first, so that products with matrices of one class are one.
    """

    @staticmethod
    def forward(T, K, A, f):
        (b, n, _), c = T.shape, len(K)
        w, U = eigh(_congruences(T, K), check=False)
        F = daleckii_krein.evaluate(U, None, w, U, f)
        scores = F.view(c, b, n * n) @ A.reshape(c, n * n, 1)
        return scores[..., 0].mT, w, U, F

    @staticmethod
    def setup_context(ctx, inputs, output):
        T, K, A, ctx.f = inputs
        _, w, U, F = output
        ctx.mark_non_differentiable(w, U, F)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(T, K, A, w, U, F)

    @staticmethod
    def backward(ctx, G, *_):
        T, K, A, w, U, F = ctx.saved_tensors
        if G is None:
            return None, None, None, None
        if torch.is_grad_enabled():
            return *_differentiable_vjp(T, K, A, ctx.f, G), None
        (b, n, _), c = T.shape, len(K)
        gT = gK = gA = None
        if ctx.needs_input_grad[2]:
            gA = (G.mT[:, None] @ F.view(c, b, n * n)).view(c, n, n)
        if ctx.needs_input_grad[0] or ctx.needs_input_grad[1]:
            D = daleckii_krein.frechet(U, G.mT[..., None, None] * A[:, None], None, w, U, ctx.f)
            gT, gK = _congruence_vjp(T, K, D)
        return gT, gK, gA, None


def _congruence_vjp(T: Samples, K: Classes, D: Pairs) -> tuple[Samples, Classes]:
    """Gradients for T and K from those for M = K^T T K, which are symmetric."""
    c, b, n, _ = D.shape
    right = (D.view(c, b * n, n) @ K.mT).view(c, b, n, n)
    stacked = K.transpose(0, 1).reshape(n, c * n)
    gT = stacked @ right.transpose(0, 1).reshape(b, c * n, n)
    gK = right.transpose(1, 2).reshape(c * n, b * n) @ T.reshape(b * n, n)
    return (gT + gT.mT) / 2, 2 * gK.view(c, n, n).mT


def _differentiable_vjp(
    T: Samples, K: Classes, A: Classes, f: ScalarFunction, G: Scores
) -> tuple[Tensor | None, ...]:
    with torch.enable_grad():
        inputs = [X.view_as(X) if X.requires_grad else X.detach() for X in (T, K, A)]
        wanted = [X for X in inputs if X.requires_grad]
        scores = reference(inputs[0], inputs[1], inputs[2], f)
        found = iter(torch.autograd.grad(scores, wanted, G, create_graph=True))
    return tuple(next(found) if X.requires_grad else None for X in inputs)
