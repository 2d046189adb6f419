"""Functions of Hermitian matrices: F = V f(w) V^H for A = V diag(w) V^H.

Options that these functions share:

- `symmetrize`: A stands for (A + A^H)/2. With False the lower triangle is read instead, as
  `torch.linalg.eigh` does. The gradient is Hermitian either way.
- `check`: NaN or Inf raises `LinAlgError` and an A that is far from Hermitian `ValueError`,
  each naming the batch element. With False, and always while a graph is traced, an element
  with NaN or Inf gives NaN and leaves its neighbours alone.
- `nonpos`: what an eigenvalue <= 0 means to a function that is singular there. "ieee" gives
  what the real function gives (NaN, -inf), "raise" a `LinAlgError` that names the element,
  "clamp" replaces eigenvalues below `eps` (in the units of A) by it, with derivative 0.
- `upcast`: float16 and bfloat16 are computed in float32 and returned in their own dtype;
  without it they are a `TypeError`.
- `name`: what errors call the matrix.
- `accuracy`: "high" takes the Cholesky factor and one-sided Jacobi rotations instead of a
  tridiagonalisation, so that a small eigenvalue is as accurate as a large one: relative errors
  are governed by the condition number of A after its diagonal is scaled to 1, and no eigenvalue
  of a matrix that has a Cholesky factor comes out negative. Takes longer; A must be positive
  definite (`LinAlgError`).
"""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from linalg_kernels import daleckii_krein, errors, scalar, spectral_eager
from linalg_kernels.precision import full_precision, promote, restore
from linalg_kernels.scalar import ScalarFunction

Nonpos = Literal["ieee", "raise", "clamp"]
Accuracy = Literal["standard", "high"]


def _with_policy(fn: ScalarFunction, nonpos: Nonpos, eps: float | None) -> ScalarFunction:
    if nonpos not in ("ieee", "raise", "clamp"):
        raise ValueError(f"nonpos must be 'ieee', 'raise' or 'clamp', got {nonpos!r}")
    if (eps is None) == (nonpos == "clamp"):
        raise ValueError(f"eps goes with nonpos='clamp', got nonpos={nonpos!r} and eps={eps}")
    if eps is None:
        return fn
    if not eps >= 0:
        raise ValueError(f"eps must be >= 0, got {eps}")
    return scalar.Floored(fn, float(eps))


def _apply(
    A: Tensor,
    fn: ScalarFunction,
    p: Tensor | float | None = None,
    *,
    symmetrize: bool,
    check: bool,
    upcast: bool,
    name: str,
    positive: bool = False,
    accuracy: Accuracy = "standard",
) -> Tensor:
    if p is None and accuracy == "standard":
        F = spectral_eager.shortest(A, fn, symmetrize, check, positive, name)
        if F is not None:
            return F
    return _general(A, fn, p, symmetrize, check, upcast, name, positive, accuracy)


@full_precision
def _general(
    A: Tensor,
    fn: ScalarFunction,
    p: Tensor | float | None,
    symmetrize: bool,
    check: bool,
    upcast: bool,
    name: str,
    positive: bool,
    accuracy: Accuracy,
) -> Tensor:
    if accuracy not in ("standard", "high"):
        raise ValueError(f"accuracy must be 'standard' or 'high', got {accuracy!r}")
    A, dtype = promote(A, upcast)
    errors.require_float(A, name)
    errors.require_square(A, name)
    if p is not None:
        A, p = _broadcast_exponent(A, p)
    if accuracy == "high":
        w, V = daleckii_krein.accurate_eigensystem(A, symmetrize, check, name)
        return restore(daleckii_krein.evaluate(A, p, w, V, fn), dtype)
    return restore(spectral_eager.apply(A, p, fn, symmetrize, check, positive, name), dtype)


def _broadcast_exponent(A: Tensor, p: Tensor | float) -> tuple[Tensor, Tensor]:
    real = A.real.dtype if A.is_complex() else A.dtype
    if not isinstance(p, Tensor):
        p = torch.full((), float(p), dtype=real, device=A.device)
    if p.is_complex():
        raise TypeError(f"p must be real, got {p.dtype}")
    batch = errors.broadcast_batch({"A": (A, 2), "p": (p, 0)})
    p = p.to(dtype=real, device=A.device).expand(batch)
    return A.expand(*batch, *A.shape[-2:]), p


def logm(
    A: Inexact[Tensor, "*batch n n"],
    *,
    symmetrize: bool = True,
    check: bool = True,
    nonpos: Nonpos = "ieee",
    eps: float | None = None,
    upcast: bool = False,
    accuracy: Accuracy = "standard",
    name: str = "A",
) -> Inexact[Tensor, "*batch n n"]:
    """Principal logarithm of a Hermitian positive definite matrix, V log(w) V^H.

    Equivalent to `scipy.linalg.logm` on such input. Options: see this module.
    """
    fn = _with_policy(scalar.LOG, nonpos, eps)
    positive = nonpos == "raise"
    return _apply(
        A,
        fn,
        symmetrize=symmetrize,
        check=check,
        upcast=upcast,
        name=name,
        positive=positive,
        accuracy=accuracy,
    )


def expm(
    A: Inexact[Tensor, "*batch n n"],
    *,
    symmetrize: bool = True,
    check: bool = True,
    upcast: bool = False,
    name: str = "A",
) -> Inexact[Tensor, "*batch n n"]:
    """Exponential of a Hermitian matrix, V exp(w) V^H. Options: see this module.

    Equivalent to `torch.linalg.matrix_exp` on such input.
    """
    return _apply(A, scalar.EXP, symmetrize=symmetrize, check=check, upcast=upcast, name=name)


def sqrtm(
    A: Inexact[Tensor, "*batch n n"],
    *,
    symmetrize: bool = True,
    check: bool = True,
    nonpos: Nonpos = "ieee",
    eps: float | None = None,
    upcast: bool = False,
    accuracy: Accuracy = "standard",
    name: str = "A",
) -> Inexact[Tensor, "*batch n n"]:
    """Hermitian square root of a positive definite matrix, V √w V^H.

    A singular A needs `nonpos="clamp", eps=0`: rounding makes its zero eigenvalues negative.
    Equivalent to `scipy.linalg.sqrtm` on such input. Options: see this module.
    """
    fn = _with_policy(scalar.SQRT, nonpos, eps)
    positive = nonpos == "raise"
    return _apply(
        A,
        fn,
        symmetrize=symmetrize,
        check=check,
        upcast=upcast,
        name=name,
        positive=positive,
        accuracy=accuracy,
    )


def inv_sqrtm(
    A: Inexact[Tensor, "*batch n n"],
    *,
    symmetrize: bool = True,
    check: bool = True,
    nonpos: Nonpos = "ieee",
    eps: float | None = None,
    upcast: bool = False,
    accuracy: Accuracy = "standard",
    name: str = "A",
) -> Inexact[Tensor, "*batch n n"]:
    """Inverse of the Hermitian square root, V w^-1/2 V^H. Options: see this module."""
    fn = _with_policy(scalar.INV_SQRT, nonpos, eps)
    positive = nonpos == "raise"
    return _apply(
        A,
        fn,
        symmetrize=symmetrize,
        check=check,
        upcast=upcast,
        name=name,
        positive=positive,
        accuracy=accuracy,
    )


def powm(
    A: Inexact[Tensor, "*#batch n n"],
    p: Float[Tensor, "*#batch"] | float,
    *,
    symmetrize: bool = True,
    check: bool = True,
    nonpos: Nonpos = "ieee",
    eps: float | None = None,
    upcast: bool = False,
    accuracy: Accuracy = "standard",
    name: str = "A",
) -> Inexact[Tensor, "*batch n n"]:
    """Real power of a Hermitian positive definite matrix, V w^p V^H; differentiable in p.

    `p` is a number or a tensor that broadcasts with the batch shape of A: one exponent a
    matrix. Equivalent to `scipy.linalg.fractional_matrix_power`. Options: see this module.
    """
    base, exponent = (scalar.POWER, p) if isinstance(p, Tensor) else _named(p, "p")
    fn = _with_policy(base, nonpos, eps)
    positive = nonpos == "raise"
    return _apply(
        A,
        fn,
        exponent,
        symmetrize=symmetrize,
        check=check,
        upcast=upcast,
        name=name,
        positive=positive,
        accuracy=accuracy,
    )


_CLOSED_FORM_POWERS: dict[float, ScalarFunction] = {
    0.5: scalar.SQRT,
    -0.5: scalar.INV_SQRT,
    -1.0: scalar.INV,
}


def clamp_eigvals(
    A: Inexact[Tensor, "*batch n n"],
    min: float,
    *,
    symmetrize: bool = True,
    check: bool = True,
    upcast: bool = False,
    name: str = "A",
) -> Inexact[Tensor, "*batch n n"]:
    """V max(w, min) V^H, the ReEig layer of SPD networks; `min` is in the units of A.

    An eigenvalue at or below `min` has derivative 0. Options: see this module.
    """
    fn = scalar.Clamp(float(min))
    return _apply(A, fn, symmetrize=symmetrize, check=check, upcast=upcast, name=name)


def spectral_fn(
    A: Inexact[Tensor, "*batch n n"],
    f: Callable[[Tensor], Tensor],
    df: Callable[[Tensor], Tensor],
    dd: Callable[[Tensor, Tensor], Tensor] | None = None,
    *,
    d2f: Callable[[Tensor], Tensor] | None = None,
    length: float | None = None,
    symmetrize: bool = True,
    check: bool = True,
    upcast: bool = False,
    name: str = "A",
) -> Inexact[Tensor, "*batch n n"]:
    """V f(w) V^H for any smooth real f, with exact derivatives at repeated eigenvalues.

    `f`, its derivative `df` and, for second derivatives of the result, `d2f` act on tensors
    elementwise. `dd(a, b)` may give the divided difference (f(a) - f(b)) / (a - b) in a stable
    form; otherwise it is the quotient for distant and an integral of df for close arguments.
    `length` is the distance over which f varies: None for |x| itself (logarithm, powers), a
    number for functions that are smooth at 0 (1.0 for exp or tanh). Options: see this module.
    """
    fn = scalar.Custom(f, df, dd, d2f, length)
    return _apply(A, fn, symmetrize=symmetrize, check=check, upcast=upcast, name=name)


@full_precision
def multi_spectral(
    A: Inexact[Tensor, "*batch n n"],
    fns: Sequence[str | float] = ("log", "sqrt"),
    *,
    symmetrize: bool = True,
    check: bool = True,
    nonpos: Nonpos = "ieee",
    eps: float | None = None,
    upcast: bool = False,
    name: str = "A",
) -> tuple[Inexact[Tensor, "*batch n n"], ...]:
    """Several functions of A from one eigendecomposition, in the order of `fns`.

    Each of `fns` is "log", "exp", "sqrt", "inv_sqrt", "inv", or a number p for A^p.
    Options: see this module.
    """
    A, dtype = promote(A, upcast)
    errors.require_float(A, name)
    errors.require_square(A, name)
    chosen = [_named(fn, "fns") for fn in fns]
    if not chosen:
        return ()
    exponents = [None if p is None else _broadcast_exponent(A, p)[1] for _, p in chosen]
    policies = [_with_policy(fn, nonpos, eps) for fn, _ in chosen]
    positive = nonpos == "raise"
    first, w, V = daleckii_krein.spectral(
        A, exponents[0], policies[0], symmetrize, check, positive, name
    )
    rest = [
        daleckii_krein.evaluate(A, p, w, V, fn)
        for p, fn in zip(exponents[1:], policies[1:], strict=True)
    ]
    return tuple(restore(F, dtype) for F in (first, *rest))


def _named(fn: str | float, argument: str) -> tuple[ScalarFunction, float | None]:
    if isinstance(fn, (int, float)):
        closed = _CLOSED_FORM_POWERS.get(fn)
        return (scalar.POWER, float(fn)) if closed is None else (closed, None)
    if fn not in scalar.ELEMENTARY:
        known = ", ".join(map(repr, scalar.ELEMENTARY))
        raise ValueError(f"{argument} must be one of {known} or an exponent, got {fn!r}")
    return scalar.ELEMENTARY[fn], None


@full_precision
def frechet(
    A: Inexact[Tensor, "*#batch n n"],
    E: Inexact[Tensor, "*#batch n n"],
    fn: str | float = "log",
    *,
    symmetrize: bool = True,
    check: bool = True,
    upcast: bool = False,
    name: str = "A",
) -> Inexact[Tensor, "*batch n n"]:
    """Directional derivative Df(A)[E] = V (f[w_i, w_j] ∘ V^H herm(E) V) V^H.

    The map E -> Df(A)[E] is self-adjoint, so this is also the adjoint. `fn` is "log", "exp",
    "sqrt", "inv_sqrt", "inv", or a number p for A^p. Batch shapes broadcast. Differentiable in
    A and E. Options: see this module.

    Equivalent to `scipy.linalg.expm_frechet(..., compute_expm=False)` for "exp".
    """
    A, dtype = promote(A, upcast)
    E, _ = promote(E, upcast)
    errors.require_float(A, name)
    errors.require_square(A, name)
    errors.require_float(E, "E")
    errors.require_square(E, "E", A.shape[-1])
    errors.require_same_kind(A, E, (name, "E"))
    errors.broadcast_batch({name: (A, 2), "E": (E, 2)})
    function, p = _named(fn, "fn")
    exponent = None if p is None else _broadcast_exponent(A, p)[1]
    _, w, V = daleckii_krein.spectral(A, exponent, function, symmetrize, check, False, name)
    return restore(daleckii_krein.frechet(A, E, exponent, w, V, function), dtype)
