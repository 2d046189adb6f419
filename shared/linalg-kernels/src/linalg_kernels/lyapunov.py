"""Lyapunov and Sylvester equations with Hermitian coefficients, solved in their eigenbases.

With A = U diag(a) U^H and B = V diag(b) V^H, AX + XB = C has the solution
X = U ((U^H C V)_ij / (a_i + b_j)) V^H. Its derivatives are equations of the same kind, so
nothing here differentiates eigenvectors and repeated eigenvalues are ordinary points.
"""

import torch
from jaxtyping import Inexact
from torch import Tensor
from torch.autograd import Function

from linalg_kernels import errors
from linalg_kernels.backends import select
from linalg_kernels.backends import torch as reference
from linalg_kernels.precision import full_precision, promote, restore
from linalg_kernels.transforms import batch_first, inspect


class _Eigensystem(Function):
    """A -> (w, V), constants to autograd."""

    @staticmethod
    def forward(A, symmetrize, check, name):
        return select.eigh(A, symmetrize, check, name)

    @staticmethod
    def setup_context(ctx, inputs, output):  # noqa: ARG004
        ctx.mark_non_differentiable(*output)

    @staticmethod
    def backward(ctx, *_):  # noqa: ARG004
        return None, None, None, None

    @staticmethod
    def vmap(info, dims, A, symmetrize, check, name):
        (A,) = batch_first(info.batch_size, dims[:1], (A,))
        return eigensystem(A, symmetrize, check, name), (0, 0)


class _EigensystemEager(_Eigensystem):
    @staticmethod
    def jvp(ctx, *_):  # noqa: ARG004
        return None, None


def eigensystem(A: Tensor, symmetrize: bool, check: bool, name: str) -> tuple[Tensor, Tensor]:
    """Eigenvalues and eigenvectors of Hermitian A, for rules that need them as constants."""
    rule = _Eigensystem if torch.compiler.is_compiling() else _EigensystemEager
    return rule.apply(A, symmetrize, check, name)


class _Solve(Function):
    """(A, B, C) -> X from known eigensystems of A and B, which carry no derivative."""

    @staticmethod
    def forward(_A, _B, C, a, U, b, V):
        return U @ ((U.mH @ C @ V) / (a[..., :, None] + b[..., None, :])) @ V.mH

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs, output)
        ctx.save_for_forward(*inputs, output)

    @staticmethod
    @full_precision
    def backward(ctx, G):
        A, B, _, a, U, b, V, X = ctx.saved_tensors
        Y = solve(A, B, G, a, U, b, V)
        gA = -reference.hermitian(Y @ X.mH) if ctx.needs_input_grad[0] else None
        gB = -reference.hermitian(X.mH @ Y) if ctx.needs_input_grad[1] else None
        return gA, gB, Y, None, None, None, None

    @staticmethod
    def vmap(info, in_dims, *args):
        return solve(*batch_first(info.batch_size, in_dims, args)), 0


class _SolveEager(_Solve):
    @staticmethod
    @full_precision
    def jvp(ctx, dA, dB, dC, *_):
        A, B, C, a, U, b, V, X = ctx.saved_tensors
        right = torch.zeros_like(C) if dC is None else dC
        if dA is not None:
            right = right - reference.hermitian(dA) @ X
        if dB is not None:
            right = right - X @ reference.hermitian(dB)
        return solve(A, B, right, a, U, b, V)


def solve(A: Tensor, B: Tensor, C: Tensor, a: Tensor, U: Tensor, b: Tensor, V: Tensor) -> Tensor:
    """X with AX + XB = C and its derivatives, from A = U diag(a) U^H and B = V diag(b) V^H."""
    rule = _Solve if torch.compiler.is_compiling() else _SolveEager
    return rule.apply(A, B, C, a, U, b, V)


def _check_solvable(a: Tensor, b: Tensor, names: tuple[str, str]) -> None:
    """Raise where eigenvalues of opposite sign cancel in some a_i + b_j, or both are zero.

    Sums of one sign are as accurate as the eigenvalues, so they are left alone however small.
    """
    if a.shape[-1] == 0 or b.shape[-1] == 0:
        return
    bound = 4 * max(a.shape[-1], b.shape[-1]) * torch.finfo(a.dtype).eps

    def look(relative: Tensor) -> None:
        # Negated, as 0 / 0 where both matrices are zero is NaN.
        bad = ~(relative > bound)
        if bool(bad.any()):
            A, B = names
            where = errors.element(bad)
            raise errors.LinAlgError(
                f"{A}{where} X + X {B}{where} = C is singular: an eigenvalue of {A} and one of "
                f"{B} add up to 0 to working precision"
            )

    a, b = a[..., :, None], b[..., None, :]
    size = torch.maximum(a.abs().amax((-2, -1)), b.abs().amax((-2, -1)))
    cancelling = torch.where(a.sign() * b.sign() > 0, torch.inf, (a + b).abs())
    inspect(cancelling.amin((-2, -1)) / size, look)


def _read_right(C: Tensor, name: str, sizes: tuple[int, int], check: bool) -> Tensor:
    errors.require_float(C, name)
    errors.require_matrix(C, name, *sizes)
    return inspect(C, lambda T: errors.check_finite(T, name)) if check else C


@full_precision
def lyapunov(
    A: Inexact[Tensor, "*#batch n n"],
    C: Inexact[Tensor, "*#batch n n"],
    *,
    symmetrize: bool = True,
    check: bool = True,
    upcast: bool = False,
) -> Inexact[Tensor, "*batch n n"]:
    """X with A X + X A = C, for Hermitian A (of any signature) and any C.

    Equivalent to `scipy.linalg.solve_continuous_lyapunov(A, C)`. Batch shapes broadcast. Where
    two eigenvalues of A cancel, to working precision, the equation is singular: `LinAlgError`
    naming the element with `check=True`, otherwise whatever division by that sum gives.
    The gradient with respect to C is the solution Y for the gradient of X, and that with
    respect to A is -herm(Y X^H + X^H Y). Options: see `linalg_kernels.spectral`.
    """
    A, dtype = promote(A, upcast)
    C, _ = promote(C, upcast)
    errors.require_float(A, "A")
    errors.require_square(A, "A")
    n = A.shape[-1]
    C = _read_right(C, "C", (n, n), check)
    errors.require_same_kind(A, C, ("A", "C"))
    batch = errors.broadcast_batch({"A": (A, 2), "C": (C, 2)})
    a, U = eigensystem(A, symmetrize, check, "A")
    if check:
        _check_solvable(a, a, ("A", "A"))
    A, C, U = (T.expand(*batch, n, n) for T in (A, C, U))
    a = a.expand(*batch, n)
    B, b, V = A, a, U
    if torch.compiler.is_compiling():
        # Dynamo does not trace a Function that is given one tensor twice.
        B, b, V = A.clone(), a.clone(), U.clone()
    return restore(solve(A, B, C, a, U, b, V), dtype)


@full_precision
def sylvester(
    A: Inexact[Tensor, "*#batch n n"],
    B: Inexact[Tensor, "*#batch m m"],
    C: Inexact[Tensor, "*#batch n m"],
    *,
    symmetrize: bool = True,
    check: bool = True,
    upcast: bool = False,
) -> Inexact[Tensor, "*batch n m"]:
    """X with A X + X B = C, for Hermitian A and B and any C.

    Equivalent to `scipy.linalg.solve_sylvester(A, B, C)`. Batch shapes broadcast; singular
    where an eigenvalue of A and one of B add up to 0, see `lyapunov`. With Y the
    solution for the gradient of X, the gradients are Y for C, -herm(Y X^H) for A and
    -herm(X^H Y) for B. Options: see `linalg_kernels.spectral`.
    """
    A, dtype = promote(A, upcast)
    B, _ = promote(B, upcast)
    C, _ = promote(C, upcast)
    for T, name in ((A, "A"), (B, "B")):
        errors.require_float(T, name)
        errors.require_square(T, name)
    errors.require_same_kind(A, B, ("A", "B"))
    n, m = A.shape[-1], B.shape[-1]
    C = _read_right(C, "C", (n, m), check)
    errors.require_same_kind(A, C, ("A", "C"))
    batch = errors.broadcast_batch({"A": (A, 2), "B": (B, 2), "C": (C, 2)})
    a, U = eigensystem(A, symmetrize, check, "A")
    b, V = eigensystem(B, symmetrize, check, "B")
    if check:
        _check_solvable(a, b, ("A", "B"))
    A, U = (T.expand(*batch, n, n) for T in (A, U))
    B, V = (T.expand(*batch, m, m) for T in (B, V))
    a, b = a.expand(*batch, n), b.expand(*batch, m)
    return restore(solve(A, B, C.expand(*batch, n, m), a, U, b, V), dtype)
