"""Sums over the logarithms of eigenvalues, differentiated without eigenvectors' derivatives.

The gradient of Σ h(λ_i(S)) is h'(S), itself a spectral function, so that derivatives of both
orders are exact at repeated eigenvalues.
"""

import torch
from jaxtyping import Float
from linalg_kernels import daleckii_krein, eigh, eigvalsh, scalar
from linalg_kernels.precision import full_precision
from linalg_kernels.transforms import batch_first
from torch import Tensor
from torch.autograd import Function


class _LogSums(Function):
    """(S, w, V) -> (Σ (log w)², Σ log w); w and V are constants of S = V diag(w) V^T."""

    @staticmethod
    def forward(_S, w, _V):
        logs = torch.log(w)
        return (logs * logs).sum(-1), logs.sum(-1)

    @staticmethod
    def setup_context(ctx, inputs, output):  # noqa: ARG004
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    @full_precision
    def backward(ctx, g_squares, g_sum):
        squares, sums = _gradients(ctx, g_squares is not None, g_sum is not None)
        gS = None
        if squares is not None:
            gS = g_squares[..., None, None] * squares
        if sums is not None:
            gS = g_sum[..., None, None] * sums + (0 if gS is None else gS)
        return gS, None, None

    @staticmethod
    def vmap(info, dims, S, w, V):
        return _log_sums(*batch_first(info.batch_size, dims, (S, w, V))), (0, 0)


class _LogSumsEager(_LogSums):
    @staticmethod
    @full_precision
    def jvp(ctx, dS, *_):
        squares, sums = _gradients(ctx, True, True)
        return (squares * dS).sum((-2, -1)), (sums * dS).sum((-2, -1))


def _gradients(ctx, squares: bool, sums: bool) -> tuple[Tensor | None, Tensor | None]:
    """2 S^-1 log S and S^-1."""
    S, w, V = ctx.saved_tensors
    first = second = None
    if squares:
        minus_one = torch.full(S.shape[:-2], -1.0, dtype=S.dtype, device=S.device)
        first = 2 * daleckii_krein.evaluate(S, minus_one, w, V, scalar.Power(1))
    if sums:
        second = daleckii_krein.evaluate(S, None, w, V, scalar.INV)
    return first, second


def _log_sums(S: Tensor, w: Tensor, V: Tensor) -> tuple[Tensor, Tensor]:
    rule = _LogSums if torch.compiler.is_compiling() else _LogSumsEager
    return rule.apply(S, w, V)


def log_sums(
    S: Float[Tensor, "*batch n n"],
) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    """Σ (log λ_i)² and Σ log λ_i over the eigenvalues of positive definite S."""
    if not (torch.is_grad_enabled() and S.requires_grad):
        logs = torch.log(eigvalsh(S, check=False))
        return (logs * logs).sum(-1), logs.sum(-1)
    w, V = eigh(S.detach(), check=False)
    return _log_sums(S, w, V)
