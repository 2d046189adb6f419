"""Scaling and biasing under the affine-invariant metrics as one rule of autograd.

    Y = K (W X W^T)^f K^T = U diag(w^f) U^T,   W X W^T = V diag(w) V^T,   U = K V

Composed of single operations this keeps three batches more and takes twice as many products.
"""

import torch
from jaxtyping import Float
from linalg_kernels import daleckii_krein, scalar
from linalg_kernels.precision import full_precision
from torch import Tensor
from torch.autograd import Function

from liebn.first_order import refuse_second_derivative


class _Move(Function):
    """(X, K, f) -> Y; W, w and V are constants."""

    @staticmethod
    def forward(ctx, X, K, f, W, w, V):  # noqa: ARG004
        half = (K @ V).mul_((w ** (f[..., None] / 2))[..., None, :])
        Y = half @ half.mT
        ctx.save_for_backward(K, f, W, w, V, Y)
        return Y

    @staticmethod
    @full_precision
    def backward(ctx, G):
        refuse_second_derivative("normalisation with constant statistics")
        K, f, W, w, V, Y = ctx.saved_tensors
        gX = gK = gf = None
        # Two buffers serve all products: memory that is fresh costs more than a product in it.
        spare = G @ K
        if ctx.needs_input_grad[0] or ctx.needs_input_grad[2]:
            S = K.mT @ spare
            if ctx.needs_input_grad[2]:
                # ∂ w^f/∂f = w^f log w, seen by the diagonal of V^T S V.
                seen = torch.matmul(S, V, out=spare).mul_(V).sum(-2)
                gf = (seen * w ** f[..., None] * torch.log(w)).sum(-1)
            if ctx.needs_input_grad[0]:
                D = daleckii_krein.frechet(V, S, f, w, V, scalar.POWER)
                torch.matmul(D, W, out=spare)
                gX = torch.matmul(W.mT, spare, out=S)
        if ctx.needs_input_grad[1]:
            # 2 sym(G) K S with K S K^T = Y.
            both = torch.add(G, G.mT, out=spare)
            if K.ndim == 2:
                n = K.shape[-1]
                product = both.reshape(-1, n).mT @ Y.reshape(-1, n)
            else:
                product = (both @ Y).sum_to_size(K.shape)
            gK = torch.linalg.solve_triangular(K.mT, product, upper=True, left=False)
        return gX, gK, gf, None, None, None


def move(
    X: Float[Tensor, "*batch n n"],
    K: Float[Tensor, "..."],
    f: Float[Tensor, "*batch"],
    W: Float[Tensor, "..."],
    w: Float[Tensor, "*batch n"],
    V: Float[Tensor, "*batch n n"],
) -> Float[Tensor, "*batch n n"]:
    """K (W X W^T)^f K^T with first derivatives in X, lower triangular K and f.

    W X W^T = V diag(w) V^T is given; W and K broadcast with X. A second derivative raises
    NotImplementedError.
    """
    return _Move.apply(X, K, f, W, w, V)
