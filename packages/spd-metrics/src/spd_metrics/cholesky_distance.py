"""Distances between Cholesky factors, differentiated in closed form.

d² = ‖⌊K⌋ - ⌊L⌋‖² + Σ weight_i (h(k_i) - h(l_i))² of P = L L^T and Q = K K^T, h(x) = (x^a - 1)/a,
or log x for a = 0. With R = ⌊K - L⌋ + diag √weight (h(k) - h(l)) it is ‖R‖, so that

    ∂d/∂K = (⌊R⌋ + diag r √weight k^(a-1))/d,   ∂d/∂L = -(⌊R⌋ + diag r √weight l^(a-1))/d,

which two adjoints of the Cholesky factorisation carry to P and Q: in one native call where the
native library takes it.
"""

import torch
from linalg_kernels import cholesky
from linalg_kernels.backends import native, plain, select
from linalg_kernels.precision import full_precision
from linalg_kernels.transforms import EagerRule, differentiated, transformed
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


class _Distance(EagerRule):
    """(P, Q) -> d, natively."""

    @staticmethod
    def forward(ctx, P, Q, found, a, weight, roots):
        ctx.save_for_backward(P, Q, found.value, found.L, found.K, roots)
        ctx.parameters = a, weight
        return found.value.detach()

    @staticmethod
    @full_precision
    def backward(ctx, g):
        P, Q, value, L, K, roots = ctx.saved_tensors
        a, weight = ctx.parameters
        if torch.is_grad_enabled() or not plain.is_plain(g):
            # A derivative of this one is asked for: along the road that autograd knows.
            gP, gQ = torch.func.vjp(lambda P, Q: _composed(P, Q, a, weight), P, Q)[1](g)
        else:
            gP, gQ = native.cholesky_distance_vjp(
                (value, L, K), g, a, roots, wanted=ctx.needs_input_grad[:2]
            )
        return gP, gQ, None, None, None, None


def distance(P: Tensor, Q: Tensor, a: float, weight: Tensor | float) -> Tensor:
    """d of symmetric positive definite P and Q, whose batch shapes broadcast.

    Raises `LinAlgError` or ValueError naming the argument and element that is no point.
    """
    if transformed() or P.shape != Q.shape:
        return _composed(P, Q, a, weight)
    root = weight**0.5
    roots = root if isinstance(root, Tensor) else P.new_full(P.shape[-1:], root)
    wanted = differentiated(P, Q)
    found = select.cholesky_distance(P, Q, a, roots, wanted)
    if found is None:
        return _composed(P, Q, a, weight)
    return _Distance.apply(P, Q, found, a, weight, roots) if wanted else found.value
