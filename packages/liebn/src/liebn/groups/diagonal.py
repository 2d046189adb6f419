"""Logarithm and exponential of the diagonal, as rules of autograd that touch each batch once.

    L -> ⌊L⌋ + log diag L,   X -> L = ⌊X⌋ + exp diag X,   X -> L L^T

`linalg_kernels.chol_log` and `from_chol_log` are the same of single operations, and the
reference for tests; at small orders their passes over memory cost more than the factorisation.
"""

from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function

from liebn.first_order import refuse_second_derivative


class _LogDiagonal(Function):
    @staticmethod
    def forward(ctx, L):
        X = L.clone()
        diagonal = X.diagonal(dim1=-2, dim2=-1)
        ctx.save_for_backward(diagonal.clone())
        diagonal.log_()
        return X

    @staticmethod
    def backward(ctx, G):
        refuse_second_derivative("log_diagonal")
        (diagonal,) = ctx.saved_tensors
        gL = G.clone()
        gL.diagonal(dim1=-2, dim2=-1).div_(diagonal)
        return gL


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


class _GramOfExp(Function):
    @staticmethod
    def forward(ctx, X):
        L = X.clone()
        L.diagonal(dim1=-2, dim2=-1).exp_()
        ctx.save_for_backward(L)
        return L @ L.mT

    @staticmethod
    def backward(ctx, G):
        refuse_second_derivative("gram_of_exp")
        (L,) = ctx.saved_tensors
        gX = ((G + G.mT) @ L).tril_()
        gX.diagonal(dim1=-2, dim2=-1).mul_(L.diagonal(dim1=-2, dim2=-1))
        return gX


def log_diagonal(L: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
    """⌊L⌋ + log diag L of a Cholesky factor; a second derivative raises NotImplementedError."""
    return _LogDiagonal.apply(L)


def exp_diagonal(X: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
    """⌊X⌋ + exp diag X of any X, a Cholesky factor. See `log_diagonal`."""
    return _ExpDiagonal.apply(X)


def gram_of_exp(X: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
    """L L^T with L = X but for exp on the diagonal; X is lower triangular. See `log_diagonal`."""
    return _GramOfExp.apply(X)
