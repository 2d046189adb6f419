"""The exponential of the diagonal, X -> ⌊X⌋ + exp diag X, as one rule of autograd.

Composed of single operations its passes over memory cost more than a factorisation at small
orders.
"""

from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function

from liebn.first_order import refuse_second_derivative


class _ExpDiagonal(Function):
    @staticmethod
    def forward(ctx, X):
        L = X.tril()
        diagonal = L.diagonal(dim1=-2, dim2=-1).exp_()
        ctx.save_for_backward(diagonal.clone())
        return L

    @staticmethod
    def backward(ctx, G):
        refuse_second_derivative("exp_diagonal")
        (diagonal,) = ctx.saved_tensors
        gX = G.tril()
        gX.diagonal(dim1=-2, dim2=-1).mul_(diagonal)
        return gX


def exp_diagonal(X: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
    """⌊X⌋ + exp diag X of any X, a Cholesky factor.

    A second derivative raises NotImplementedError.
    """
    return _ExpDiagonal.apply(X)
