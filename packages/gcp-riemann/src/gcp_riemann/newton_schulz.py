"""Square roots by Newton-Schulz iteration: matrix products alone.

With M_0 = Y_0 = Σ / c and factors α_k the step

    T_k = (α_k / 2)(3 I - α_k² M_k),   Y_{k+1} = Y_k T_k,   M_{k+1} = T_k M_k T_k

takes √c Y_k to Σ^½. All of them are polynomials of Σ and commute; an eigenvalue x² of M_0 is
moved by x <- α x (3 - α² x²)/2 towards 1.

"trace" is the iteration as published (iSQRT-COV): c = tr Σ, every α_k = 1. It is slow, for
tr Σ is far above the largest eigenvalue. "spectrum" takes c = ‖Σ²‖_F^½, which lies within
n^¼ of the largest eigenvalue and costs no product that the first step does not need, and
factors α_k above 1 as long as small eigenvalues have a way to go (Chen and Chow 2014).

A polynomial p with real coefficients has a self-adjoint Fréchet derivative, so the gradient of
⟨G, p(Σ)⟩ is the directional derivative of p along (G + Gᵀ)/2. It is what backward iterates,
beside M_k and Y_k: five products a step. Nothing but the current M and Y is kept without a
gradient to come.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from gcp_riemann import inputs

Scaling = Literal["spectrum", "trace"]
SCALINGS = ("spectrum", "trace")

CUSHION = 0.05
"""The smallest lower end that a factor is made for: below, it would gain next to nothing more."""


_FACTORS: dict[int, tuple[float, ...]] = {}


def factors(iters: int, scaling: Scaling = "spectrum") -> tuple[float, ...]:
    """α of each step; computed once for each `iters` and `scaling`.

    For "spectrum" those that take the longest interval [l, 1] of x = √(λ/c) to within 10^(2 -
    iters) of 1, but 1 % for less than five steps; the last two of more than four are plain, and
    square what error is left.
    """
    if scaling == "trace":
        return (1.0,) * iters
    # A dictionary and not functools.cache, which torch.compile warns of.
    if iters not in _FACTORS:
        _FACTORS[iters] = _found(iters)
    return _FACTORS[iters]


def _found(iters: int) -> tuple[float, ...]:
    plain = 0 if iters < 5 else 2
    tolerance = min(10.0 ** (2 - iters), 1e-2)
    low, high = 1e-12, 1.0
    for _ in range(100):
        middle = math.sqrt(low * high)
        if 1 - _schedule(middle, iters, plain)[1] <= tolerance:
            high = middle
        else:
            low = middle
    return _schedule(high, iters, plain)[0]


def _schedule(lower: float, iters: int, plain: int) -> tuple[tuple[float, ...], float]:
    """Factors for [lower, 1], each the best for the interval that it meets, and where they end."""
    chosen = []
    for step in range(iters):
        end = max(lower, CUSHION)
        alpha = 1.0 if step >= iters - plain else math.sqrt(3 / (1 + end + end * end))
        lower = min(alpha * x * (3 - (alpha * x) ** 2) / 2 for x in (lower, 1.0))
        chosen.append(alpha)
    return tuple(chosen), lower


def _coefficients(alpha: float) -> tuple[float, float]:
    """T = a I - b M."""
    return 1.5 * alpha, 0.5 * alpha**3


def _advance(M: Tensor, MM: Tensor, a: float, b: float) -> Tensor:
    """T M T, from M and M²."""
    W = a * M - b * MM
    return torch.baddbmm(W, W, M, beta=a, alpha=-b)


def _normalised(S: Tensor, scaling: Scaling) -> tuple[Tensor, Tensor, Tensor]:
    """c (b, 1, 1), Σ/c and its square; c = 1 for a zero matrix."""
    t = inputs.trace(S)
    # Squares of covariances in volts would leave float32: the trace is taken out first.
    A = S / torch.where(t == 0, 1, t)
    AA = torch.bmm(A, A)
    if scaling == "trace":
        return torch.where(t == 0, 1, t), A, AA
    square = AA.square().sum((-2, -1), keepdim=True)
    # Not the branch that is never taken, but its derivative, would be infinite at 0.
    bound = torch.where(square == 0, 1, square) ** 0.25
    return torch.where(t == 0, 1, t) * bound, A / bound, AA / bound**2


def _iterate(M: Tensor, MM: Tensor, alphas: Sequence[float], kept: list[Tensor] | None) -> Tensor:
    """Y after all steps. `kept` receives M, and Y from the second step on, of each step."""
    Y = M
    for step, alpha in enumerate(alphas):
        a, b = _coefficients(alpha)
        if kept is not None:
            kept.extend((M, Y) if step else (M,))
        Y = torch.baddbmm(Y, Y, M, beta=a, alpha=-b) if step else a * M - b * MM
        if step < len(alphas) - 1:
            M = _advance(M, torch.bmm(M, M) if step else MM, a, b)
    return (Y + Y.mT) / 2


def _plain(S: Tensor, alphas: tuple[float, ...], scaling: Scaling) -> Tensor:
    c, M, MM = _normalised(S, scaling)
    return c.sqrt() * _iterate(M, MM, alphas, None)


class _Root(torch.autograd.Function):
    """Σ (b, n, n), exactly symmetric -> √c Y."""

    @staticmethod
    def forward(ctx, S, alphas, scaling):
        c, M, MM = _normalised(S, scaling)
        kept = [] if ctx.needs_input_grad[0] else None
        Y = _iterate(M, MM, alphas, kept)
        if kept is not None:
            cube = torch.bmm(M, MM) if scaling == "spectrum" else None
            ctx.save_for_backward(S, c, Y, cube, *kept)
        ctx.alphas, ctx.scaling = alphas, scaling
        return c.sqrt() * Y

    @staticmethod
    def backward(ctx, G):
        S, c, Y, cube, *kept = ctx.saved_tensors
        alphas, scaling = ctx.alphas, ctx.scaling
        with inputs.full_precision(S.device):
            if torch.is_grad_enabled():
                # Of this derivative another one is wanted: leave the whole to autograd.
                root = _plain(S, alphas, scaling)
                return torch.autograd.grad(root, S, G, create_graph=True)[0], None, None
            G = (G + G.mT) / 2
            L = _derivative(kept, alphas, G)
            # c depends on Σ too: its gradient is I for tr Σ, and (Σ/c)³ for ‖Σ²‖_F^½.
            slope = (G * Y).sum((-2, -1), keepdim=True) / 2
            slope = slope - (L * kept[0]).sum((-2, -1), keepdim=True)
            if cube is None:
                L.diagonal(dim1=-2, dim2=-1).add_(slope[..., 0])
            else:
                L = torch.addcmul(L, slope, cube)
            # 0 where Σ is 0, of which the square root has no derivative.
            return torch.where(inputs.trace(S) == 0, 0, L / c.sqrt()), None, None


def _derivative(kept: list[Tensor], alphas: Sequence[float], E: Tensor) -> Tensor:
    """dY along dM_0 = dY_0 = E, symmetric."""
    M, *kept = kept
    dM = dY = E
    for step, alpha in enumerate(alphas):
        a, b = _coefficients(alpha)
        last = step == len(alphas) - 1
        if step:
            M, Y, *kept = kept
        if step and last:
            # dY M and Y dM in one product, of which the transpose is not wanted.
            dY = torch.baddbmm(dY, dY, M, beta=a, alpha=-b)
            dY = torch.baddbmm(dY, Y, dM, alpha=-b)
            break
        N = torch.bmm(M, dM)
        both = N + N.mT
        if step:
            dY = torch.baddbmm(dY, dY, M, beta=a, alpha=-b)
            dY = torch.baddbmm(dY, Y, dM, alpha=-b)
        else:
            dY = a * dY - b * both
        if not last:
            # d(M³) = M² dM + M dM M + dM M².
            half = torch.baddbmm(torch.bmm(M, N), N, M, alpha=0.5)
            dM = a * a * dM - 2 * a * b * both + b * b * (half + half.mT)
    return (dY + dY.mT) / 2


def newton_schulz_root(
    P: Float[Tensor, "*batch n n"],
    iters: int = 5,
    *,
    scaling: Scaling = "spectrum",
    check: bool = True,
) -> Float[Tensor, "*batch n n"]:
    """Approximate P^½ of positive semidefinite P by `iters` steps; singular P are welcome.

    Zero gives zero, with derivative 0. `root_residual` says how far the result is from a root;
    the derivative is that of the polynomial, however far. Half precision is computed and
    returned in float32.

    Args:
        iters: At least 1. Of covariances of 196 random ReLU features in 256 channels, rank
            195, the plain iteration is 42 % away from the root after 5 steps and 2 % after 10;
            "spectrum" is 0.7 % away after 4.
        scaling: See this module.
        check: Raise LinAlgError for NaN or Inf and ValueError for P far from symmetric,
            naming the element.

    Source: Li et al., CVPR 2018 (iSQRT-COV); its code differentiates as if the cotangent were
    symmetric and stops at the first matrix of a batch whose trace is 0.
    """
    if iters < 1:
        raise ValueError(f"iters must be >= 1, got {iters}")
    inputs.require_one_of(scaling, SCALINGS, "scaling")
    with inputs.full_precision(P.device):
        S = inputs.matrices(P, check)
        flat = S.reshape(-1, *S.shape[-2:])
        alphas = factors(iters, scaling)
        root = (
            _plain(flat, alphas, scaling) if inputs.traced() else _Root.apply(flat, alphas, scaling)
        )
        return root.reshape(S.shape)


def root_residual(
    P: Float[Tensor, "*batch n n"], R: Float[Tensor, "*batch n n"]
) -> Float[Tensor, "*batch"]:
    """‖R² - P‖_F / ‖P‖_F, how far R is from a square root of P; ‖R²‖_F where P is 0."""
    with inputs.full_precision(P.device):
        P, R = inputs.widened(P.detach()), inputs.widened(R.detach())
        size = torch.linalg.matrix_norm(P)[..., None, None]
        size = torch.where(size == 0, 1, size)
        root = R / size.sqrt()
        return torch.linalg.matrix_norm(root @ root - P / size)
