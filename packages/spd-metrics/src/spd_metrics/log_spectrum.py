"""Sums over the logarithms of eigenvalues, differentiated without eigenvectors' derivatives.

The gradient of Σ h(λ_i(S)) is h'(S), itself a spectral function, so that derivatives of both
orders are exact at repeated eigenvalues. Of two matrices, λ_i(P^-1 Q), the gradients are

    ∂/∂Q Σ h(λ_i) = Y diag(h'(λ)) Y^T,   ∂/∂P Σ h(λ_i) = -Y diag(λ h'(λ)) Y^T,

Y = L^-T V with P = L L^T and L^-1 Q L^-T = V diag(λ) V^T: nothing is propagated back through
the factorisation.
"""

import torch
from jaxtyping import Float
from linalg_kernels import (
    cholesky,
    daleckii_krein,
    eigh,
    eigvalsh,
    scalar,
    triangular_congruence,
)
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


class _RelativeLogSums(Function):
    """(P, Q) -> (Σ (log λ)², Σ log λ, L, λ, V) with λ the eigenvalues of P^-1 Q."""

    @staticmethod
    def forward(P, Q):
        L = cholesky(P, check=False, name="P")
        w, V = eigh(triangular_congruence(L, Q), check=False)
        logs = torch.log(w)
        return (logs * logs).sum(-1), logs.sum(-1), L, w, V

    @staticmethod
    def setup_context(ctx, inputs, output):
        _, _, L, w, V = output
        ctx.mark_non_differentiable(L, w, V)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs, L, w, V)
        ctx.save_for_forward(*inputs)

    @staticmethod
    @full_precision
    def backward(ctx, g_squares, g_sum, *_):
        P, Q, L, w, V = ctx.saved_tensors
        if torch.is_grad_enabled():
            # A derivative of this one is asked for: along the road that autograd knows.
            zero = torch.zeros_like(w[..., 0])
            given = tuple(zero if g is None else g for g in (g_squares, g_sum))
            return torch.func.vjp(_composed, P, Q)[1](given)
        slope = torch.zeros_like(w) if g_squares is None else 2 * g_squares[..., None] * w.log()
        if g_sum is not None:
            slope = slope + g_sum[..., None]
        Y = torch.linalg.solve_triangular(L.mT, V, upper=True)
        gP = gQ = None
        if ctx.needs_input_grad[0]:
            gP = (Y * -slope[..., None, :]) @ Y.mT
        if ctx.needs_input_grad[1]:
            gQ = (Y * (slope / w)[..., None, :]) @ Y.mT
        return gP, gQ

    @staticmethod
    @full_precision
    def jvp(ctx, dP, dQ):
        P, Q = ctx.saved_tensors
        sums, pull = torch.func.vjp(_composed, P, Q)[:2]
        one, zero = torch.ones_like(sums[0]), torch.zeros_like(sums[0])

        def along(gradients: tuple[Tensor, Tensor]) -> Tensor:
            pairs = zip(gradients, (dP, dQ), strict=True)
            terms = [(g * d).sum((-2, -1)) for g, d in pairs if d is not None]
            return sum(terms, zero)

        return along(pull((one, zero))), along(pull((zero, one))), None, None, None


def _composed(P: Tensor, Q: Tensor) -> tuple[Tensor, Tensor]:
    return log_sums(triangular_congruence(cholesky(P, check=False, name="P"), Q))


def relative_log_sums(
    P: Float[Tensor, "*#batch n n"], Q: Float[Tensor, "*#batch n n"]
) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    """Σ (log λ_i)² and Σ log λ_i over the eigenvalues of P^-1 Q."""
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor
    differentiated = torch.is_grad_enabled() and (P.requires_grad or Q.requires_grad)
    if not differentiated or torch.compiler.is_compiling() or wrapped(P) or wrapped(Q):
        return _composed(P, Q)
    P, Q = torch.broadcast_tensors(P, Q)
    return _RelativeLogSums.apply(P, Q)[:2]
