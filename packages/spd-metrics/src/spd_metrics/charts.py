"""Charts: diffeomorphisms from SPD (or Cholesky) matrices onto the points of a geometry.

A chart φ is read at a point P once; its differential there and the inverse of that then share
the one decomposition. Every derivative is exact at repeated eigenvalues.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from linalg_kernels import cholesky, daleckii_krein, errors, scalar, triangular_congruence
from linalg_kernels.scalar import ScalarFunction
from linalg_kernels.spectral_eager import apply as _function
from torch import Tensor

from spd_metrics import inputs
from spd_metrics.box_cox import BoxCox, InverseBoxCox

Matrix = Float[Tensor, "*batch n n"]


@runtime_checkable
class Local(Protocol):
    """A chart read at one point."""

    @property
    def X(self) -> Matrix:
        """φ(P)."""
        ...

    def push(self, V: Matrix) -> Matrix:
        """Dφ_P[V]."""
        ...

    def pull(self, W: Matrix) -> Matrix:
        """(Dφ_P)^-1[W]."""
        ...


@runtime_checkable
class Chart(Protocol):
    """A diffeomorphism φ. `kind` says what the tangent vectors of its source are."""

    @property
    def kind(self) -> inputs.Kind: ...

    def __call__(self, P: Matrix, name: str = "P") -> Matrix:
        """φ(P). Errors call the matrix `name` and say which element is no point."""
        ...

    def at(self, P: Matrix, name: str = "P") -> Local:
        """φ(P) with its differential."""
        ...

    def inverse(self, X: Matrix) -> Matrix:
        """φ^-1(X), of a point X that is known to lie in the image."""
        ...


# --- functions of the eigenvalues -----------------------------------------------------------


@dataclass(frozen=True)
class Function:
    """A scalar function as the kernels take it: with the exponent, if it has one."""

    of: ScalarFunction
    exponent: float | None = None

    def p(self, batch: Sequence[int], like: Tensor) -> Tensor | None:
        """The exponent in batch shape."""
        if self.exponent is None:
            return None
        return torch.full((), self.exponent, dtype=like.dtype, device=like.device).expand(
            tuple(batch)
        )

    def __call__(self, w: Tensor) -> Tensor:
        """The value at each of w (*batch, n)."""
        p = self.p(w.shape[:-1], w)
        return self.of.value(w, None if p is None else p[..., None])


def _frechet(A: Tensor, E: Tensor, f: Function, w: Tensor, V: Tensor) -> Tensor:
    """Df(A)[E] from A = V diag(w) V^T; batch shapes broadcast."""
    return daleckii_krein.frechet(A, E, f.p(A.shape[:-2], w), w, V, f.of)


@dataclass(frozen=True)
class _SpectralLocal:
    """A spectral chart at P = V diag(w) V^T."""

    chart: "Spectral"
    P: Tensor
    X: Tensor
    w: Tensor
    V: Tensor

    def push(self, V: Tensor) -> Tensor:
        return _frechet(self.P, V, self.chart.f, self.w, self.V)

    def pull(self, W: Tensor) -> Tensor:
        # X = f(P) has the eigenvectors of P: no second decomposition.
        return _frechet(self.X, W, self.chart.g, self.chart.f(self.w), self.V)


@dataclass(frozen=True)
class Spectral:
    """φ(P) = V f(w) V^T of P = V diag(w) V^T, with g = f^-1."""

    f: Function
    g: Function
    kind: inputs.Kind = "symmetric"

    def __call__(self, P: Tensor, name: str = "P") -> Tensor:
        inputs.point(P, name)
        p = self.f.p(P.shape[:-2], P)
        return _function(P, p, self.f.of, positive=True, name=name)

    def at(self, P: Tensor, name: str = "P") -> _SpectralLocal:
        inputs.point(P, name)
        p = self.f.p(P.shape[:-2], P)
        X, w, V = daleckii_krein.spectral(P, p, self.f.of, positive=True, name=name)
        return _SpectralLocal(self, P, X, w, V)

    def inverse(self, X: Tensor) -> Tensor:
        p = self.g.p(X.shape[:-2], X)
        return _function(X, p, self.g.of, check=False)


SMALL_THETA = 1e-2
"""Below this, dividing P^θ - Q^θ by θ loses digits: metrics take charts that contain the 1/θ."""

LOGARITHM = Spectral(Function(scalar.LOG), Function(scalar.EXP))


def power(theta: float) -> Chart:
    """P -> P^theta; no decomposition for theta = 1."""
    return Identity() if theta == 1 else Spectral(_power(theta), _power(1 / theta))


def box_cox(theta: float) -> Spectral:
    """P -> (P^theta - I)/theta, the logarithm for theta = 0."""
    if theta == 0:
        return LOGARITHM
    return Spectral(Function(BoxCox(theta)), Function(InverseBoxCox(theta)))


def _power(theta: float) -> Function:
    closed = {0.5: scalar.SQRT, -0.5: scalar.INV_SQRT, -1.0: scalar.INV}.get(theta)
    return Function(scalar.POWER, float(theta)) if closed is None else Function(closed)


# --- the Cholesky factor --------------------------------------------------------------------


def _diagonal(M: Tensor) -> Tensor:
    return M.diagonal(dim1=-2, dim2=-1)


def half_lower(M: Tensor) -> Tensor:
    """M_½: the lower triangle of M with its diagonal halved."""
    return M.tril(-1) + torch.diag_embed(M.diagonal(dim1=-2, dim2=-1) / 2)


@dataclass(frozen=True)
class _CholeskyLocal:
    """dL = L (L^-1 V L^-T)_½ and dP = W L^T + L W^T."""

    X: Tensor

    def push(self, V: Tensor) -> Tensor:
        return self.X @ half_lower(triangular_congruence(self.X, V))

    def pull(self, W: Tensor) -> Tensor:
        half = W @ self.X.mT
        return half + half.mT


@dataclass(frozen=True)
class CholeskyFactor:
    """φ(P) = L with P = L L^T, onto lower triangular matrices with a positive diagonal."""

    kind: inputs.Kind = "symmetric"

    def __call__(self, P: Tensor, name: str = "P") -> Tensor:
        inputs.point(P, name)
        return cholesky(P, name=name)

    def at(self, P: Tensor, name: str = "P") -> _CholeskyLocal:
        return _CholeskyLocal(self(P, name))

    def inverse(self, X: Tensor) -> Tensor:
        P = X @ X.mT
        return (P + P.mT) / 2


@dataclass(frozen=True)
class _SmallLocal:
    """dB = dK L^T + L dK^T with L = I + θK, and dz = dk/(1 + θk) on the diagonal."""

    L: Tensor
    X: Tensor

    def push(self, V: Tensor) -> Tensor:
        dK = self.L @ half_lower(triangular_congruence(self.L, V))
        return dK.tril(-1) + torch.diag_embed(_diagonal(dK) / _diagonal(self.L))

    def pull(self, W: Tensor) -> Tensor:
        dK = W.tril(-1) + torch.diag_embed(_diagonal(W) * _diagonal(self.L))
        half = dK @ self.L.mT
        return half + half.mT


@dataclass(frozen=True)
class SmallCholeskyLog:
    """B -> (⌊L⌋ + log diag L)/θ with L L^T = I + θB: the log-Cholesky chart near the identity.

    At θ = 0 it is the linear map to ⌊B⌋ + ½ diag B.
    """

    theta: float
    kind: inputs.Kind = "symmetric"

    def __call__(self, P: Tensor, name: str = "P") -> Tensor:
        return self.at(P, name).X

    def at(self, P: Tensor, name: str = "P") -> _SmallLocal:
        identity = torch.eye(P.shape[-1], dtype=P.dtype, device=P.device)
        if self.theta == 0:
            return _SmallLocal(identity.expand(P.shape), half_lower(P))
        L = inputs.factor(identity + self.theta * P, name)
        K = (L - identity) / self.theta
        # K has lost what θ has taken off its digits, and one Newton step on the equation
        # K + K^T + θ K K^T = B brings them back. Derivatives through L are exact already.
        rest = (P - K - K.mT - self.theta * K @ K.mT).detach()
        factor = L.detach()
        K = K + factor @ half_lower(triangular_congruence(factor, rest))
        diagonal = torch.log1p(self.theta * _diagonal(K)) / self.theta
        return _SmallLocal(identity + self.theta * K, K.tril(-1) + torch.diag_embed(diagonal))

    def inverse(self, X: Tensor) -> Tensor:
        z = _diagonal(X)
        k = z if self.theta == 0 else torch.expm1(self.theta * z) / self.theta
        K = X.tril(-1) + torch.diag_embed(k)
        return K + K.mT + self.theta * K @ K.mT


# --- a congruence ---------------------------------------------------------------------------


def _congruence(A: Tensor, X: Tensor) -> Tensor:
    Y = A @ X @ A.mT
    return (Y + Y.mT) / 2


@dataclass(frozen=True)
class _CongruenceLocal:
    X: Tensor
    C: Tensor

    def push(self, V: Tensor) -> Tensor:
        return triangular_congruence(self.C, V)

    def pull(self, W: Tensor) -> Tensor:
        return _congruence(self.C, W)


@dataclass(frozen=True)
class Congruence:
    """P -> C^-1 P C^-T with M = C C^T, for a fixed M (n, n) given in numbers."""

    M: tuple[tuple[float, ...], ...]
    kind: inputs.Kind = "symmetric"

    def _factor(self, P: Tensor, name: str) -> Tensor:
        inputs.point(P, name)
        if P.shape[-1] != len(self.M):
            raise ValueError(
                f"{name} must be (..., n, n) with n={len(self.M)}, the order of the weight, "
                f"got {tuple(P.shape)}"
            )
        M = torch.tensor(self.M, dtype=torch.float64, device=P.device)
        return cholesky(M, check=False, name="weight").to(P.dtype)

    def __call__(self, P: Tensor, name: str = "P") -> Tensor:
        return self.at(P, name).X

    def at(self, P: Tensor, name: str = "P") -> _CongruenceLocal:
        C = self._factor(P, name)
        seen = triangular_congruence(C, Identity()(P, name))
        return _CongruenceLocal((seen + seen.mT) / 2, C)

    def inverse(self, X: Tensor) -> Tensor:
        return _congruence(self._factor(X, "X"), X)


# --- trivial charts and composition ---------------------------------------------------------


@dataclass(frozen=True)
class _IdentityLocal:
    X: Tensor

    def push(self, V: Tensor) -> Tensor:
        return V

    def pull(self, W: Tensor) -> Tensor:
        return W


@dataclass(frozen=True)
class Identity:
    """φ(P) = P, for SPD matrices ("symmetric") or Cholesky factors ("lower")."""

    kind: inputs.Kind = "symmetric"

    def __call__(self, P: Tensor, name: str = "P") -> Tensor:
        if self.kind == "lower":
            return inputs.cholesky_point(P, name)
        inputs.point(P, name)
        # The factorisation is the cheapest test of definiteness. Where values cannot be read
        # it does not raise, and its NaN must spread.
        L = cholesky(P.detach(), name=name)
        symmetric = (P + P.mT) / 2
        if errors.can_read(P):
            return symmetric
        return torch.where(L[..., :1, :1].isnan(), torch.nan, symmetric)

    def at(self, P: Tensor, name: str = "P") -> _IdentityLocal:
        return _IdentityLocal(self(P, name))

    def inverse(self, X: Tensor) -> Tensor:
        return X


@dataclass(frozen=True)
class _ComposedLocal:
    inner: Local
    outer: Local

    @property
    def X(self) -> Tensor:
        return self.outer.X

    def push(self, V: Tensor) -> Tensor:
        return self.outer.push(self.inner.push(V))

    def pull(self, W: Tensor) -> Tensor:
        return self.inner.pull(self.outer.pull(W))


@dataclass(frozen=True)
class Composed:
    """φ = outer ∘ inner."""

    inner: Chart
    outer: Chart

    @property
    def kind(self) -> inputs.Kind:
        return self.inner.kind

    def __call__(self, P: Tensor, name: str = "P") -> Tensor:
        return self.outer(self.inner(P, name), name)

    def at(self, P: Tensor, name: str = "P") -> _ComposedLocal:
        inner = self.inner.at(P, name)
        return _ComposedLocal(inner, self.outer.at(inner.X, name))

    def inverse(self, X: Tensor) -> Tensor:
        return self.inner.inverse(self.outer.inverse(X))
