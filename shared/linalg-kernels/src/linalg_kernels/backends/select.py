"""The primitives: each computed by the implementation that `choice` says.

Each function here is one primitive of `backends.torch`, which defines it. The native library
takes it on the CPU where it is faster, the Triton kernels on a GPU; whatever they cannot settle
(a matrix to be reported as an error, an iteration that did not converge) is computed again, and
worded, by the reference.

While a graph is traced, a primitive that the library might take becomes one opaque operator (see
`backends.opaque`), which comes back here when the graph runs; on a GPU it becomes an operator
that shows its kernels to the compiler (see `backends.triton.operators`).
"""

import math

import torch
from torch import Tensor

from linalg_kernels import errors, scalar
from linalg_kernels.backends import gpu, native
from linalg_kernels.backends import torch as reference
from linalg_kernels.backends.choice import (
    CHOLESKY,
    EIGEN,
    PRODUCT,
    SPECTRAL,
    kernel,
    native_goes_on,
    native_takes,
    opaque_takes,
    settled_on_gpu,
    triton_takes,
    wide_takes,
)
from linalg_kernels.scalar import ScalarFunction
from linalg_kernels.transforms import needs_rule, transformed

_ELEMENTARY = {
    name: native.Function(kind)
    for name, kind in (
        ("log", native.LOG),
        ("exp", native.EXP),
        ("sqrt", native.SQRT),
        ("inv_sqrt", native.INV_SQRT),
        ("inv", native.INVERSE),
    )
}


def native_function(fn: ScalarFunction, p: Tensor | None) -> native.Function | None:
    """The library's own form of a function of eigenvalues, if it has one."""
    if isinstance(fn, scalar.Elementary):
        return _ELEMENTARY.get(fn.name)
    if isinstance(fn, scalar.Clamp):
        return native.Function(native.IDENTITY, floor=fn.floor)
    if isinstance(fn, scalar.Floored):
        base = native_function(fn.base, p)
        return None if base is None else native.Function(base.kind, base.table, fn.floor)
    if isinstance(fn, scalar.Power) and fn.order == 0:
        return native.Function(native.POWER, p)
    return None


def _tolerance(symmetrize: bool, check: bool) -> float:
    return errors.ASYMMETRY if symmetrize and check else math.inf


def _settled(found: int, check: bool) -> bool:
    """Whether native results stand: no error to be worded, nothing left unconverged."""
    return not found or (found == native.NOT_FINITE and not check)


def _read_hermitian(A: Tensor, symmetrize: bool, check: bool, name: str) -> tuple[Tensor, bool]:
    """`reference.read_hermitian`, in one pass where the library makes it."""
    if symmetrize and wide_takes(A):
        H, found = native.symmetric_part(A, _tolerance(symmetrize, check))
        if _settled(found, check):
            return H, not found
    return reference.read_hermitian(A, symmetrize, check, name)


def eigh(A: Tensor, symmetrize: bool, check: bool, name: str) -> tuple[Tensor, Tensor]:
    """Ascending eigenvalues and eigenvectors of the Hermitian matrix that A stands for."""
    if torch.compiler.is_compiling():
        if opaque_takes(A):
            return torch.ops.linalg_kernels.eigh(A, symmetrize)
    elif native_takes(EIGEN, A):
        w, V, found = native.eigh(A, symmetrize=symmetrize, tolerance=_tolerance(symmetrize, check))
        if _settled(found, check):
            return w, V
    if triton_takes(A.shape[-1], gpu.LIMIT, A):
        w, V, told = kernel("eigh", A)(A, symmetrize, _tolerance(symmetrize, check))
        if settled_on_gpu(told, check):
            return w, V
    H, finite = _read_hermitian(A, symmetrize, check, name)
    return reference.eigh(H, finite=finite)


def eigh_positive(A: Tensor, symmetrize: bool, check: bool, name: str) -> tuple[Tensor, Tensor]:
    """`eigh` of positive definite A to high relative accuracy; LinAlgError where it is not."""
    if not torch.compiler.is_compiling() and native_takes(EIGEN, A):
        tolerance = _tolerance(symmetrize, check)
        w, V, found = native.eigh_positive(A, symmetrize=symmetrize, tolerance=tolerance)
        if not found:
            return w, V
    L, info = cholesky(A, symmetrize, check, name)
    if info is not None and errors.can_read(A):
        errors.check_info(info, name)
    return reference.eigh_positive(L)


def eigvalsh(A: Tensor, symmetrize: bool, check: bool, name: str) -> Tensor:
    """Ascending eigenvalues of the Hermitian matrix that A stands for."""
    if torch.compiler.is_compiling():
        if opaque_takes(A):
            return torch.ops.linalg_kernels.eigvalsh(A, symmetrize)
    elif native_takes(EIGEN, A):
        w, found = native.eigvalsh(
            A, symmetrize=symmetrize, tolerance=_tolerance(symmetrize, check)
        )
        if _settled(found, check):
            return w
    if triton_takes(A.shape[-1], gpu.LIMIT, A):
        w, told = kernel("eigvalsh", A)(A, symmetrize, _tolerance(symmetrize, check))
        if settled_on_gpu(told, check):
            return w
    H, finite = _read_hermitian(A, symmetrize, check, name)
    return reference.eigvalsh(H, finite=finite)


def spectral(
    A: Tensor, p: Tensor | None, fn: ScalarFunction, symmetrize: bool, check: bool, name: str
) -> tuple[Tensor, Tensor, Tensor]:
    """F = V f(w) V^H, w in any order, and V of the Hermitian matrix that A stands for."""
    if torch.compiler.is_compiling():
        known = scalar.encode(fn)
        if known is not None and opaque_takes(A):
            return torch.ops.linalg_kernels.spectral(A, p, *known, symmetrize)
    elif native_takes(SPECTRAL, A, p) and (f := native_function(fn, p)) is not None:
        F, w, V, found = native.spectral(
            A, f, symmetrize=symmetrize, tolerance=_tolerance(symmetrize, check)
        )
        if _settled(found, check):
            return F, w, V
    if triton_takes(A.shape[-1], gpu.LIMIT, A, p) and (f := native_function(fn, p)) is not None:
        F, w, V, told = kernel("spectral", A)(
            A, f.table, f.kind, f.floor, symmetrize, _tolerance(symmetrize, check)
        )
        if settled_on_gpu(told, check):
            return F, w, V
    w, V = eigh(A, symmetrize, check, name)
    return evaluate(w, V, p, fn), w, V


def natively(A: Tensor, fn: ScalarFunction) -> native.Function | None:
    """What `spectral_packed` and `spectral_value` need to know of fn, if they can take f(A)."""
    return native_function(fn, None) if native_takes(SPECTRAL, A) else None


def spectral_value(
    A: Tensor, f: native.Function, symmetrize: bool, check: bool, positive: bool
) -> Tensor | None:
    """F of `spectral` alone, or None where something is to be worded or solved by others.

    With `positive` that is also an eigenvalue that is not.
    """
    tolerance = _tolerance(symmetrize, check)
    F, found = native.spectral_value(A, f, symmetrize, tolerance, positive)
    return F if _settled(found, check) else None


def spectral_packed(
    A: Tensor, f: native.Function, symmetrize: bool, check: bool, positive: bool
) -> tuple[Tensor, Tensor] | None:
    """F, w and V of `spectral`, the last two as `frechet_packed` takes them, or None as above."""
    tolerance = _tolerance(symmetrize, check)
    F, packed, found = native.spectral_packed(A, f, symmetrize, tolerance, positive)
    return (F, packed) if _settled(found, check) else None


def frechet_packed(packed: Tensor, E: Tensor, f: native.Function) -> Tensor | None:
    """`frechet`, natively or not at all. None also where a derivative of it is asked for."""
    if native_goes_on(E) and native.is_packed(packed):
        return native.frechet_packed(packed, E, f)
    return None


def evaluate(w: Tensor, V: Tensor, p: Tensor | None, fn: ScalarFunction) -> Tensor:
    """V f(w) V^H."""
    if torch.compiler.is_compiling():
        known = scalar.encode(fn)
        if known is not None and opaque_takes(V):
            return torch.ops.linalg_kernels.evaluate(w, V, p, *known)
    elif native_takes(PRODUCT, V, w, p):
        f = native_function(fn, p)
        if f is None:
            f = native.Function(native.TABLE, fn.value(w, None if p is None else p[..., None]))
        return native.compose(w, V, f)
    elif wide_takes(V, w, p):
        return native.compose_wide(V, fn.value(w, None if p is None else p[..., None]))
    if triton_takes(V.shape[-1], gpu.LIMIT, V, w, p):
        f = native_function(fn, p)
        if f is None:
            f = native.Function(native.TABLE, fn.value(w, None if p is None else p[..., None]))
        return kernel("evaluate", V)(w, V, f.table, f.kind, f.floor)
    return reference.evaluate(w, V, p, fn)


def spectral_of_congruence(
    C: Tensor, X: Tensor, fn: ScalarFunction
) -> tuple[Tensor, Tensor] | None:
    """f(C X C^T) and the eigenvalues of C X C^T in any order; natively or not at all.

    None as well where there is something to be worded. Of constants: it has no derivative.
    """
    f = native_function(fn, None)
    if f is None or needs_rule(C, X) or not native_takes(SPECTRAL, X, C):
        return None
    F, w, found = native.spectral_of_congruence(C, X, f)
    return None if found else (F, w)


def frechet(w: Tensor, V: Tensor, E: Tensor, p: Tensor | None, fn: ScalarFunction) -> Tensor:
    """Daleckii-Krein: V (f[w_i, w_j] ∘ V^H herm(E) V) V^H; batch shapes broadcast."""
    if E.shape == V.shape or V.ndim == 2:
        if torch.compiler.is_compiling():
            known = scalar.encode(fn)
            if known is not None and E.shape == V.shape and opaque_takes(V):
                return torch.ops.linalg_kernels.frechet(w, V, E, p, *known)
        elif native_takes(PRODUCT, E, w, V, p):
            f = native_function(fn, p)
            if f is None:
                f = native.Function(native.TABLE, reference.kernel(w, p, fn))
            return native.frechet(w, V, E, f)
        elif wide_takes(E, w, V, p):
            f = native_function(fn, p)
            if f is None:
                f = native.Function(native.TABLE, reference.kernel(w, p, fn))
            return native.frechet_wide(w, V, E, f)
        if triton_takes(V.shape[-1], gpu.LIMIT, V, w, E, p):
            V, w = V.expand(E.shape), w.expand(E.shape[:-1])
            p = None if p is None else p.expand(E.shape[:-2])
            f = native_function(fn, p)
            if f is None:
                f = native.Function(native.TABLE, reference.kernel(w, p, fn))
            return kernel("frechet", V)(w, V, E, f.table, f.kind, f.floor)
    return reference.frechet(w, V, E, p, fn)


def eigh_vjp(w: Tensor, V: Tensor, gw: Tensor | None, gV: Tensor | None) -> Tensor | None:
    """The gradient of a loss of eigenvalues and eigenvectors, natively or not at all.

    None also where a derivative of it is asked for.
    """
    if torch.is_grad_enabled() or transformed() or not native_takes(PRODUCT, V, w, gw, gV):
        return None
    return native.eigh_vjp(w, V, gw, gV)


def cholesky(A: Tensor, symmetrize: bool, check: bool, name: str) -> tuple[Tensor, Tensor | None]:
    """Lower factor and info of the Hermitian matrix that A stands for; info None for all 0."""
    if torch.compiler.is_compiling():
        if opaque_takes(A):
            return torch.ops.linalg_kernels.cholesky(A, symmetrize)
    elif native_takes(CHOLESKY, A):
        tolerance = _tolerance(symmetrize, check)
        L, found = native.cholesky(A, symmetrize=symmetrize, tolerance=tolerance)
        if not found:
            return L, None
        if not found & native.ASYMMETRIC:
            H, _ = reference.read_hermitian(A, symmetrize, check, name)
            info = torch.empty(A.shape[:-2], dtype=torch.int32)
            native.cholesky(A, symmetrize=symmetrize, info=info)
            return L, torch.where(errors.finite_elements(H), info, A.shape[-1] + 1)
    if triton_takes(A.shape[-1], gpu.LIMIT, A):
        L, info, told = kernel("cholesky", A)(A, symmetrize, _tolerance(symmetrize, check))
        # What is not positive definite is told by info.
        if settled_on_gpu(told, check, native.NOT_POSITIVE):
            return L, info
    H, finite = _read_hermitian(A, symmetrize, check, name)
    return reference.cholesky(H, finite=finite)


def cholesky_vjp(L: Tensor, G: Tensor) -> Tensor:
    """herm(L^-H Φ(L^H G) L^-1), the adjoint of A -> L; differentiable."""
    differentiable = torch.is_grad_enabled() and (L.requires_grad or G.requires_grad)
    if not differentiable and L.shape == G.shape:
        if torch.compiler.is_compiling():
            if opaque_takes(L):
                return torch.ops.linalg_kernels.cholesky_vjp(L, G)
        elif native_takes(CHOLESKY, L, G):
            return native.cholesky_vjp(L, G)
        if triton_takes(L.shape[-1], gpu.LIMIT, L, G):
            return kernel("cholesky_vjp", L)(L, G)
    return reference.cholesky_vjp(L, G)


def cholesky_chart(
    A: Tensor, chart: int, exponent: float, symmetrize: bool, check: bool
) -> tuple[Tensor, Tensor] | None:
    """⌊L⌋ + h(diag L) and L, natively or not at all.

    None also where there is something to be worded. `chart` is of `native`.
    """
    if transformed() or not native_takes(CHOLESKY, A):
        return None
    tolerance = _tolerance(symmetrize, check)
    X, L, found = native.cholesky_chart(
        A, chart, exponent, symmetrize=symmetrize, tolerance=tolerance
    )
    return None if found else (X, L)


def from_chol_log(X: Tensor) -> Tensor | None:
    """L L^T with L = ⌊X⌋ + exp diag X, natively or not at all."""
    if transformed() or not native_takes(CHOLESKY, X):
        return None
    return native.from_chol_log(X)


def cholesky_distance(
    P: Tensor, Q: Tensor, a: float, weight: Tensor, factors: bool
) -> native.CholeskyDistance | None:
    """A distance of Cholesky factors, natively or not at all (see `native.cholesky_distance`)."""
    if transformed() or P.shape != Q.shape or not native_takes(CHOLESKY, P, Q, weight):
        return None
    found = native.cholesky_distance(P, Q, a, weight, factors=factors, tolerance=errors.ASYMMETRY)
    return None if found.found else found


def definite_factor(A: Tensor, symmetrize: bool) -> tuple[Tensor, Tensor]:
    """Lower factor of the Hermitian matrix that A stands for, and which have one.

    What stands for a factor where there is none is not defined.
    """
    if native_takes(CHOLESKY, A):
        L, found = native.cholesky(A, symmetrize=symmetrize)
        good = torch.ones(A.shape[:-2], dtype=torch.bool)
        return L, L.diagonal(dim1=-2, dim2=-1).isfinite().all(-1) if found else good
    L, info = torch.linalg.cholesky_ex(reference.hermitian(A) if symmetrize else A)
    return L, info == 0


def cholesky_inverse(L: Tensor) -> Tensor:
    """A^-1 of A = L L^H, exactly Hermitian."""
    if native_takes(CHOLESKY, L):
        # The gradient of log det A = 2 Σ log L_ii is the inverse.
        return native.cholesky_vjp(L, torch.diag_embed(2 / L.diagonal(dim1=-2, dim2=-1)))
    return torch.cholesky_inverse(L)


def karcher_mean(
    X: Tensor,
    weights: Tensor,
    start: Tensor,
    tol: float,
    max_iter: int,
    step: float | None,
) -> native.Means | None:
    """Karcher means of X (*batch, b, n, n) from a start, natively or not at all.

    None as well where there is something to be worded, and where b does not fill the lanes that
    the library would give it. Of constants: it has no derivative.
    """
    if needs_rule(X, weights, start) or not native_takes(SPECTRAL, X, weights, start):
        return None
    if start.ndim > 2 and start.numel() and X.shape[-3] < 2 * native.WIDEST:
        return None
    found = native.karcher_mean(X, weights, start, tol, max_iter, step)
    return None if found.found else found


def leading_triple(A: Tensor, iters: int, tol: float) -> tuple[Tensor, Tensor, Tensor] | None:
    """u (*batch, m), s and v (*batch, n) of A (*batch, m, n) by a kernel, or None.

    As `subspace.leading_eigenvector` of the Gram matrix of the smaller side.
    """
    if not triton_takes(min(A.shape[-2:]), gpu.RANK_ONE_LIMIT, A):
        return None
    return kernel("leading_triple", A)(A, iters, tol)


def without_leading_triple(A: Tensor, iters: int, tol: float) -> Tensor | None:
    """A - s u v^T by a kernel, or None."""
    if not triton_takes(min(A.shape[-2:]), gpu.RANK_ONE_LIMIT, A):
        return None
    return kernel("without_leading_triple", A)(A, iters, tol)


def reflections(V: Tensor, X: Tensor, adjoint: bool) -> Tensor | None:
    """H_1 ... H_k X, or H_k ... H_1 X, of V (*batch, n, k) and X (*batch, n, m); None if no kernel.

    The reflectors are the columns of V, of any length.
    """
    if V.numel() == 0 or not triton_takes(V.shape[-2], gpu.LIMIT, X, V):
        return None
    return kernel("householder", X)(V, X, adjoint)
