"""Distances between Cholesky factors, differentiated in closed form.

d² = ‖⌊K⌋ - ⌊L⌋‖² + Σ weight_i (h(k_i) - h(l_i))² of P = L L^T and Q = K K^T, h(x) = (x^a - 1)/a,
or log x for a = 0. With R = ⌊K - L⌋ + diag √weight (h(k) - h(l)) it is ‖R‖, so that

    ∂d/∂K = (⌊R⌋ + diag r √weight k^(a-1))/d,   ∂d/∂L = -(⌊R⌋ + diag r √weight l^(a-1))/d,

which two adjoints of the Cholesky factorisation carry to P and Q.
"""

import torch
from linalg_kernels import cholesky
from linalg_kernels.backends import select
from linalg_kernels.precision import full_precision
from linalg_kernels.transforms import Rule
from torch import Tensor

from spd_metrics.geometry import safe_sqrt


def _diagonal(L: Tensor) -> Tensor:
    return L.diagonal(dim1=-2, dim2=-1)


def _step(start: Tensor, end: Tensor, a: float) -> Tensor:
    """h(end) - h(start), which loses no digits for a -> 0 or near points."""
    log_start = torch.log(start)
    ratio = torch.log(end) - log_start
    return ratio if a == 0 else torch.exp(a * log_start) * (torch.expm1(a * ratio) / a)


def squared(L: Tensor, K: Tensor, a: float, weight: Tensor | float) -> Tensor:
    """d² of Cholesky factors, by operations that autograd knows."""
    step = _step(_diagonal(L), _diagonal(K), a)
    lower = (K - L).tril(-1)
    return (lower * lower).sum((-2, -1)) + (weight * step * step).sum(-1)


def _composed(P: Tensor, Q: Tensor, a: float, weight: Tensor | float) -> Tensor:
    L, K = cholesky(P, name="P"), cholesky(Q, name="Q")
    return safe_sqrt(squared(L, K, a, weight))


class _Distance(Rule):
    """(P, Q) -> (d, L, K, R); P and Q are of one shape."""

    @staticmethod
    def forward(P, Q, a, weight):
        L, K = cholesky(P, name="P"), cholesky(Q, name="Q")
        R = K - L
        step = _step(_diagonal(L), _diagonal(K), a)
        _diagonal(R).copy_(weight**0.5 * step)
        return torch.linalg.vector_norm(R, dim=(-2, -1)), L, K, R

    @staticmethod
    def setup_context(ctx, inputs, output):
        P, Q, ctx.a, ctx.weight = inputs
        d, L, K, R = output
        ctx.mark_non_differentiable(L, K, R)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(P, Q, d, L, K, R)

    @staticmethod
    @full_precision
    def backward(ctx, g, *_):
        P, Q, d, L, K, R = ctx.saved_tensors
        if g is None:
            return None, None, None, None
        if torch.is_grad_enabled():
            # A derivative of this one is asked for: along the road that autograd knows.
            pull = torch.func.vjp(lambda P, Q: _composed(P, Q, ctx.a, ctx.weight), P, Q)[1]
            return *pull(g), None, None
        scale = torch.where(d == 0, 0, g / d)[..., None, None]
        G = R * scale
        diagonal = _diagonal(G) * ctx.weight**0.5
        gP = gQ = None
        if ctx.needs_input_grad[1]:
            _diagonal(G).copy_(diagonal * _diagonal(K) ** (ctx.a - 1))
            gQ = select.cholesky_vjp(K, G)
        if ctx.needs_input_grad[0]:
            _diagonal(G).copy_(diagonal * _diagonal(L) ** (ctx.a - 1))
            gP = select.cholesky_vjp(L, G).neg_()
        return gP, gQ, None, None


def distance(P: Tensor, Q: Tensor, a: float, weight: Tensor | float) -> Tensor:
    """d of symmetric positive definite P and Q, whose batch shapes broadcast.

    Raises `LinAlgError` or ValueError naming the argument and element that is no point.
    """
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor
    differentiated = torch.is_grad_enabled() and (P.requires_grad or Q.requires_grad)
    forward = torch.autograd.forward_ad._current_level >= 0
    plain = not (torch.compiler.is_compiling() or forward or wrapped(P) or wrapped(Q))
    if not (plain and differentiated and P.shape == Q.shape):
        return _composed(P, Q, a, weight)
    return _Distance.apply(P, Q, a, weight)[0]
