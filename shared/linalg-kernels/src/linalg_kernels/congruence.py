"""Functions of congruent matrices and what another congruence makes of them,

    Y = K f(S) K^T,   S = W X W^T,

which is a matrix seen from a point of a manifold, changed, and carried on to another point: steps
to a mean, geodesics, normalisation. Composed of single operations these read and write a batch
several times; where nothing but values is asked for, the native library does it in one or two.

Packages that write a rule of autograd of their own take `eigh`, `carry` and `carry_vjp`: the
eigensystem of S is a constant to them, and the adjoint of X -> Y is given.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from linalg_kernels import daleckii_krein, errors, scalar
from linalg_kernels.backends import native, select
from linalg_kernels.backends import torch as reference
from linalg_kernels.backends.choice import PRODUCT, SPECTRAL, native_takes
from linalg_kernels.cholesky import triangular_congruence
from linalg_kernels.precision import full_precision
from linalg_kernels.scalar import ScalarFunction
from linalg_kernels.transforms import needs_rule, transformed


class Congruence(NamedTuple):
    """S = W X W^T = V diag(w) V^T, as tensors that a rule of autograd may save.

    Attributes:
        W: As it was given.
        w: Eigenvalues (*batch, n), in no order.
        vectors: Eigenvectors in columns, or None where the library has them `packed`.
    """

    W: Tensor
    w: Tensor
    vectors: Tensor | None
    packed: Tensor | None

    @property
    def shape(self) -> torch.Size:
        """That of S."""
        return torch.Size((*self.w.shape, self.w.shape[-1]))

    @property
    def V(self) -> Inexact[Tensor, "*batch n n"]:
        """Eigenvectors in columns, in the order of w."""
        if self.vectors is not None:
            return self.vectors
        assert self.packed is not None
        return native.unpack(self.packed, self.shape)[1]

    def packed_for(self, T: Tensor) -> Tensor | None:
        """What the library has packed, if it goes on with that and T."""
        packed = self.packed
        if packed is None or transformed() or not native_takes(PRODUCT, self.w[..., None], T):
            return None
        return packed if native.is_packed(packed) else None


def _require(T: Tensor, name: str, shape: tuple[int, ...]) -> None:
    """ValueError unless T (..., n, n) broadcasts to `shape`, (*batch, n, n)."""
    if T.shape == shape or T.shape == shape[-2:]:
        return
    errors.require_square(T, name, shape[-1])
    try:
        fits = torch.broadcast_shapes(T.shape, shape) == shape
    except RuntimeError:
        fits = False
    if not fits:
        raise ValueError(f"{name} must broadcast to {tuple(shape)}, got {tuple(T.shape)}")


@full_precision
def eigh(
    W: Inexact[Tensor, "..."], X: Inexact[Tensor, "*batch n n"], *, name: str = "X"
) -> Congruence:
    """The eigensystem of W X W^T. The batch shape of W broadcasts to that of X.

    Raises:
        ValueError: X is far from Hermitian, or shapes do not fit.
        LinAlgError: an element of X is not positive definite, or holds NaN or Inf; it is named.
    """
    errors.require_square(X, "X")
    _require(W, "W", X.shape)
    W, X = W.detach(), X.detach()
    if not transformed() and native_takes(SPECTRAL, X, W):
        w, packed, found = native.congruence_packed(W, X, errors.ASYMMETRY, positive=True)
        if not found:
            return Congruence(W, w, None, packed)
    w, V = select.eigh(W @ (X @ W.mH), True, True, name)
    if errors.can_read(w):
        errors.check_positive(w, name, "the logarithm")
    return Congruence(W, w, V, None)


@full_precision
def logm(
    W: Inexact[Tensor, "..."],
    X: Inexact[Tensor, "*batch n n"],
    *,
    inverse: bool = False,
    name: str = "X",
) -> Inexact[Tensor, "*batch n n"]:
    """log(W X W^T), or with `inverse` log(W^-1 X W^-T) of lower triangular W; differentiable.

    The batch shape of W broadcasts to that of X. Errors as of `eigh`.
    """
    errors.require_square(X, "X")
    _require(W, "W", X.shape)
    if not needs_rule(W, X) and native_takes(SPECTRAL, X, W):
        f = native.Function(native.LOG)
        F, found = native.spectral_value(X, f, True, errors.ASYMMETRY, True, W, not inverse)
        if not found:
            return F
    S = triangular_congruence(W, X) if inverse else W @ (X @ W.mH)
    return daleckii_krein.spectral(S, None, scalar.LOG, positive=True, name=name)[0]


@full_precision
def move(
    L: Inexact[Tensor, "*#batch n n"],
    X: Inexact[Tensor, "*#batch n n"],
    fn: ScalarFunction,
    exponent: Float[Tensor, "*#batch"] | float | None = None,
    *,
    inverse: bool = True,
) -> Inexact[Tensor, "*batch n n"]:
    """L f(L^-1 X L^-T) L^T, or without `inverse` L f(X) L^T; Hermitian, differentiable.

    L is lower triangular, `exponent` that of powers; batch shapes broadcast. Values are not looked
    at: where f has none, the result is NaN or infinite. ValueError for shapes that do not fit.
    """
    errors.require_square(X, "X")
    errors.require_square(L, "L", X.shape[-1])
    shapes = {"L": (L, 2), "X": (X, 2)}
    if isinstance(exponent, Tensor):
        shapes["exponent"] = exponent, 0
    batch = errors.broadcast_batch(shapes)
    X = X.expand(*batch, *X.shape[-2:])
    if isinstance(exponent, Tensor):
        exponent = exponent.expand(batch)
    elif exponent is not None:
        exponent = X.new_full(batch, exponent)
    if not needs_rule(L, X, exponent) and native_takes(SPECTRAL, X, L, exponent):
        f = select.native_function(fn, exponent)
        if f is not None:
            W = L if inverse else None
            _, packed, found = native.congruence_packed(W, X, inverse=True)
            if not found:
                return native.carry(packed, L, f, tuple(X.shape))
    S = triangular_congruence(L, X) if inverse else X
    F = daleckii_krein.spectral(S, exponent, fn, check=False)[0]
    return reference.hermitian(L @ F @ L.mH)


@full_precision
def carry(
    S: Congruence,
    K: Inexact[Tensor, "..."],
    fn: ScalarFunction,
    exponent: Float[Tensor, "*batch"] | None = None,
) -> Inexact[Tensor, "*batch n n"]:
    """K f(S) K^T for any K, whose batch shape broadcasts to that of S. It has no derivative."""
    _require(K, "K", S.shape)
    f = select.native_function(fn, exponent)
    if f is not None and (packed := S.packed_for(K)) is not None:
        return native.carry(packed, K, f, S.shape)
    values = fn.value(S.w, None if exponent is None else exponent[..., None])
    half = K @ S.V
    return (half * values[..., None, :]) @ half.mH


@full_precision
def carry_vjp(
    S: Congruence,
    K: Inexact[Tensor, "..."],
    fn: ScalarFunction,
    exponent: Float[Tensor, "*batch"] | None,
    G: Inexact[Tensor, "*batch n n"],
    wanted: tuple[bool, bool] = (True, False),
) -> tuple[Inexact[Tensor, "*batch n n"] | None, Float[Tensor, "*batch"] | None]:
    """Gradients in X and in the exponents, as `wanted`, of a loss with gradient G in `carry`."""
    _require(K, "K", S.shape)
    _require(G, "G", S.shape)
    f = select.native_function(fn, exponent)
    if f is not None and K.dtype == G.dtype and (packed := S.packed_for(G)) is not None:
        return native.carry_vjp(packed, K, S.W, f, G, wanted)
    w, V = S.w, S.V
    E = K.mH @ (G @ K)
    gX = slope = None
    if wanted[1]:
        assert exponent is not None
        seen = reference.hermitian(V.mH @ E @ V).diagonal(dim1=-2, dim2=-1).real
        slope = (seen * scalar.Power(1).value(w, exponent[..., None])).sum(-1)
    if wanted[0]:
        D = select.frechet(w, V, E, exponent, fn)
        gX = S.W.mH @ (D @ S.W)
    return gX, slope


@full_precision
def traces(
    X: Inexact[Tensor, "b n n"],
    K: Inexact[Tensor, "c n n"],
    A: Inexact[Tensor, "c n n"],
    fn: ScalarFunction,
    *,
    value: bool = False,
    derivative: bool = False,
) -> tuple[
    Inexact[Tensor, "c b"], Inexact[Tensor, "c b n n"] | None, Inexact[Tensor, "c b n n"] | None
]:
    """tr(A_k f(M)) with M = K_k^H X_i K_k, Hermitian X and A, for every k and i.

    With `value` also f(M), with `derivative` the derivative of the trace with respect to M, None
    else. Of constants. Nothing is looked at: where M is not positive definite, and f needs it,
    results are NaN or infinite. ValueError for shapes that do not fit.
    """
    errors.require_square(X, "X")
    shape = (len(K), *X.shape[-2:])
    if X.ndim != 3 or K.shape != shape or A.shape != shape:
        told = ", ".join(f"{name} {tuple(T.shape)}" for name, T in (("X", X), ("K", K), ("A", A)))
        raise ValueError(f"X must be (b, n, n) and K and A (c, n, n), got {told}")
    f = select.native_function(fn, None)
    if f is not None and not transformed() and native_takes(PRODUCT, X, K, A) and len(K):
        return native.congruence_trace(X, K, A, f, value=value, derivative=derivative)
    (b, n, _), c = X.shape, len(K)
    # Both products are of matrices much larger than n.
    left = K.mH.reshape(c * n, n) @ X.transpose(0, 1).reshape(n, b * n)
    M = (left.view(c, n * b, n) @ K).view(c, n, b, n).transpose(1, 2).contiguous()
    w, V = select.eigh(M, True, False, "X")
    F = select.evaluate(w, V, None, fn)
    trace = (F.view(c, b, n * n) @ A.mT.reshape(c, n * n, 1))[..., 0].real
    D = select.frechet(w, V, A[:, None].expand_as(V).contiguous(), None, fn) if derivative else None
    return trace, F if value else None, D
