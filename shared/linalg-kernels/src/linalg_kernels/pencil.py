"""Sums over the logarithms of the eigenvalues of a pencil (Q, P), Q u = w P u.

They are those of P^-1 Q. With P = L L^H and L^-1 Q L^-H = S the reference is a function of
log S, as Σ (log w)² = ‖log S‖_F² and Σ log w = tr log S. The fast path has, from first-order
perturbation of the eigenvalues with u_i^H P u_i = 1,

    ∂ log w_i = u_i^H dQ u_i / w_i - u_i^H dP u_i,

so that nothing goes back through the factorisation or the logarithm.
"""

import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from linalg_kernels import daleckii_krein, errors, scalar
from linalg_kernels.backends import native, plain
from linalg_kernels.backends import pencil as direct
from linalg_kernels.backends import torch as reference
from linalg_kernels.cholesky import definite_factor, triangular_congruence
from linalg_kernels.precision import full_precision, promote, restore
from linalg_kernels.transforms import EagerRule, differentiated, inspect, transformed


def _equal(P: Tensor, Q: Tensor) -> Tensor:
    return (P == Q).flatten(-2).all(-1)


def _root(x: Tensor) -> Tensor:
    """√x with derivative 0 at 0."""
    zero = x == 0
    return torch.where(zero, 0, torch.sqrt(torch.where(zero, 1, x)))


def _check_positive(w: Tensor, Q: Tensor) -> None:
    """LinAlgError naming the element of Q for which P^-1 Q has eigenvalues w that are not > 0."""
    if not (transformed() or bool((w > 0).all())):
        definite_factor(Q.detach(), "Q")
    errors.check_positive(w, "Q", "log(P^-1 Q)")


def _composed(P: Tensor, Q: Tensor, alpha: float, beta: float, root: bool) -> Tensor:
    """α ‖log S‖_F² + β (tr log S)², the reference, or its root."""
    for name, A in (("P", P), ("Q", Q)):
        inspect(A, lambda T, name=name: errors.check_matrices(T, name))
    P, Q = reference.hermitian(P), reference.hermitian(Q)
    L = definite_factor(P, "P")
    S = reference.hermitian(triangular_congruence(L, Q))
    logs, w, _ = daleckii_krein.spectral(S, None, scalar.LOG, True, False)
    inspect(w, lambda T: _check_positive(T, Q))
    # Exactly zero where P and Q are equal; the derivatives stay.
    logs = torch.where(_equal(P, Q)[..., None, None], logs - logs.detach(), logs)
    n = P.shape[-1]
    # Of the trace and the rest apart, neither of which is negative.
    trace = logs.diagonal(dim1=-2, dim2=-1).real.sum(-1)
    identity = torch.eye(n, dtype=P.dtype, device=P.device)
    rest = logs - (trace / max(n, 1))[..., None, None] * identity
    squares = (rest.conj() * rest).real.sum((-2, -1))
    value = alpha * squares + (alpha / max(n, 1) + beta) * trace * trace
    return _root(value) if root else value


class _Perturbed(EagerRule):
    """(P, Q) -> value by torch, for matrices that are too large for the library, or without it."""

    @staticmethod
    @full_precision
    def forward(ctx, P, Q, alpha, beta, root):
        L = definite_factor(reference.hermitian(P), "P")
        S = reference.hermitian(triangular_congruence(L, reference.hermitian(Q)))
        w, V = reference.eigh(S, finite=True)
        _check_positive(w, Q)
        logs = torch.where(_equal(P, Q)[..., None], 0, torch.log(w))
        value = direct.sum_of_logs(logs, alpha, beta, root)
        U = torch.linalg.solve_triangular(L.mT, V, upper=True)
        ctx.save_for_backward(P, Q, value, logs, U)
        ctx.parameters = alpha, beta, root
        return value

    @staticmethod
    @full_precision
    def backward(ctx, g):
        P, Q, value, logs, U = ctx.saved_tensors
        if torch.is_grad_enabled() or not plain.is_plain(g):
            return *_differentiable_vjp(P, Q, g, ctx.parameters), None, None, None
        slopes = direct.slopes_of_logs(value, logs, g, *ctx.parameters)[..., None, :]
        of_P, of_Q = ctx.needs_input_grad[:2]
        gP = (-slopes * U) @ U.mT if of_P else None
        gQ = (slopes * torch.exp(-logs[..., None, :]) * U) @ U.mT if of_Q else None
        return gP, gQ, None, None, None


class _Pencil(EagerRule):
    """(P, Q) -> value, by the native library or a kernel; `found` is of `direct.pencil`."""

    @staticmethod
    def forward(ctx, P, Q, found, alpha, beta, root):
        value, of = found
        ctx.save_for_backward(P, Q, *of)
        ctx.parameters = alpha, beta, root
        return value.detach()

    @staticmethod
    def backward(ctx, g):
        P, Q, *of = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:2]
        gradients = direct.pencil_vjp(of, P.shape[-1], g, *ctx.parameters, wanted)
        if gradients is None:
            gP, gQ = _differentiable_vjp(P, Q, g, ctx.parameters)
        else:
            gP, gQ = _reduced(gradients[0], P), _reduced(gradients[1], Q)
        return gP, gQ, None, None, None, None


@full_precision
def _differentiable_vjp(
    P: Tensor, Q: Tensor, g: Tensor, parameters: tuple[float, float, bool]
) -> tuple[Tensor, Tensor]:
    """The gradients along the road that autograd knows."""
    return torch.func.vjp(lambda p, q: _composed(p, q, *parameters), P, Q)[1](g)


def _reduced(G: Tensor | None, A: Tensor) -> Tensor | None:
    return G if G is None or G.shape == A.shape else G.sum_to_size(A.shape)


def _directly(P: Tensor, Q: Tensor, alpha: float, beta: float, root: bool) -> Tensor | None:
    """The value with its gradient, where nothing else may be asked for, or None."""
    wanted = differentiated(P, Q)
    found = direct.pencil(P, Q, alpha, beta, root, wanted)
    if found is not None:
        return _Pencil.apply(P, Q, found, alpha, beta, root) if wanted else found[0]
    if not (wanted and P.shape == Q.shape and P.numel() and P.dtype in native.DTYPES):
        return None
    if not plain.are_plain((P, Q), P.dtype):
        return None
    for name, A in (("P", P), ("Q", Q)):
        errors.check_matrices(A.detach(), name)
    return _Perturbed.apply(P, Q, alpha, beta, root)


def _check_parameters(n: int, alpha: float, beta: float) -> None:
    if not (alpha > 0 and alpha + n * beta > 0):
        raise ValueError(
            f"alpha and alpha + n beta must be > 0, got alpha={alpha:g}, beta={beta:g} and n={n}"
        )


def _are_one_batch(P: Tensor, Q: Tensor) -> bool:
    """Whether P and Q are square matrices of one shape: all that the checks ask of shapes."""
    if not (isinstance(P, Tensor) and isinstance(Q, Tensor)):
        return False
    shape = P.shape
    return len(shape) >= 2 and shape[-1] == shape[-2] and shape == Q.shape


def _evaluate(P: Tensor, Q: Tensor, alpha: float, beta: float, upcast: bool, root: bool) -> Tensor:
    # The shortest road: what is taken here needs no other look.
    if not transformed() and _are_one_batch(P, Q):
        _check_parameters(P.shape[-1], alpha, beta)
        value = _directly(P, Q, alpha, beta, root)
        if value is not None:
            return value
    return _general(P, Q, alpha, beta, upcast, root)


@full_precision
def _general(P: Tensor, Q: Tensor, alpha: float, beta: float, upcast: bool, root: bool) -> Tensor:
    P, dtype = promote(P, upcast)
    Q, _ = promote(Q, upcast)
    errors.require_float(P, "P")
    errors.require_float(Q, "Q")
    errors.require_square(P, "P")
    n = P.shape[-1]
    errors.require_square(Q, "Q", n)
    errors.require_same_kind(P, Q, ("P", "Q"))
    if P.shape != Q.shape:
        errors.broadcast_batch({"P": (P, 2), "Q": (Q, 2)})
    _check_parameters(n, alpha, beta)
    value = None if transformed() else _directly(P, Q, alpha, beta, root)
    if value is None:
        value = _composed(P, Q, alpha, beta, root)
    return restore(value, dtype)


def pencil_log_norm(
    P: Inexact[Tensor, "*#batch n n"],
    Q: Inexact[Tensor, "*#batch n n"],
    *,
    alpha: float = 1.0,
    beta: float = 0.0,
    upcast: bool = False,
) -> Float[Tensor, "*batch"]:
    """√(alpha Σ (log w_i)² + beta (Σ log w_i)²) over the eigenvalues w of P^-1 Q.

    For alpha = 1, beta = 0 it is ‖log(P^-½ Q P^-½)‖_F, the affine-invariant distance (Moakher
    2005). 0 with derivative 0 where P = Q. P and Q are Hermitian positive definite; their
    batch shapes broadcast, and one matrix against many, or all of (p, 1, n, n) against all of
    (q, n, n), are not copied out. Twice differentiable; exact where eigenvalues meet.

    Raises:
        ValueError: alpha <= 0 or alpha + n beta <= 0, where it would be no norm; P or Q far
            from Hermitian.
        LinAlgError: P or Q holds NaN or Inf or is not positive definite; names the element.
    """
    return _evaluate(P, Q, float(alpha), float(beta), upcast, True)


def pencil_log_square(
    P: Inexact[Tensor, "*#batch n n"],
    Q: Inexact[Tensor, "*#batch n n"],
    *,
    alpha: float = 1.0,
    beta: float = 0.0,
    upcast: bool = False,
) -> Float[Tensor, "*batch"]:
    """The square of `pencil_log_norm`, smooth also where P = Q."""
    return _evaluate(P, Q, float(alpha), float(beta), upcast, False)
