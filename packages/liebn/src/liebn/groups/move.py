"""Scaling and biasing under the affine-invariant metrics as one rule of autograd.

    Y = K (W X W^T)^f K^T

Composed of single operations this keeps three batches more and takes twice as many products.
"""

import torch
from jaxtyping import Float
from linalg_kernels import congruence, scalar
from linalg_kernels.precision import full_precision
from torch import Tensor
from torch.autograd import Function

from liebn.first_order import refuse_second_derivative


class _Move(Function):
    """(X, K, f) -> Y; the eigensystem S of W X W^T is a constant."""

    @staticmethod
    def forward(ctx, X, K, f, S):  # noqa: ARG004
        Y = congruence.carry(S, K, scalar.POWER, f)
        ctx.save_for_backward(K, f, Y, *S)
        return Y

    @staticmethod
    @full_precision
    def backward(ctx, G):
        refuse_second_derivative("normalisation with constant statistics")
        K, f, Y, *of_S = ctx.saved_tensors
        S = congruence.Congruence(*of_S)
        of_X, of_K, of_f, _ = ctx.needs_input_grad
        gX = gK = gf = None
        if of_X or of_f:
            gX, gf = congruence.carry_vjp(S, K, scalar.POWER, f, G, (of_X, of_f))
        if of_K:
            # 2 sym(G) K S with K S K^T = Y.
            both = G + G.mT
            if K.ndim == 2:
                n = K.shape[-1]
                product = both.reshape(-1, n).mT @ Y.reshape(-1, n)
            else:
                product = (both @ Y).sum_to_size(K.shape)
            gK = torch.linalg.solve_triangular(K.mT, product, upper=True, left=False)
        return gX, gK, gf, None


def move(
    X: Float[Tensor, "*batch n n"],
    K: Float[Tensor, "..."],
    f: Float[Tensor, "*batch"],
    S: congruence.Congruence,
) -> Float[Tensor, "*batch n n"]:
    """K S^f K^T with first derivatives in X, lower triangular K and f, of S = W X W^T.

    K broadcasts with X. A second derivative raises NotImplementedError.
    """
    return _Move.apply(X, K, f, S)
