"""Charts: diffeomorphisms from SPD (or Cholesky) matrices onto the points of a geometry.

A chart φ is read at a point P once; its differential there and the inverse of that then share
the one decomposition. Every derivative is exact at repeated eigenvalues.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float
from linalg_kernels import cholesky, daleckii_krein, scalar, triangular_congruence
from linalg_kernels.scalar import ScalarFunction
from torch import Tensor

from spd_metrics import inputs

Matrix = Float[Tensor, "*batch n n"]


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


@dataclass(frozen=True)
class BoxCox:
    """(w^theta - 1)/theta = expm1(theta log w)/theta, and log w for theta = 0.

    The power as it goes over into the logarithm (Box and Cox 1964): accurate for small theta,
    where w^theta/theta is not.
    """

    theta: float
    name: str = "box_cox"

    def _exponent(self, w: Tensor) -> Tensor:
        return torch.full((), self.theta, dtype=w.dtype, device=w.device)

    def value(self, w: Tensor, p: Tensor | None) -> Tensor:  # noqa: ARG002
        if self.theta == 0:
            return torch.log(w)
        return torch.expm1(self.theta * torch.log(w)) / self.theta

    def first(self, a: Tensor, b: Tensor, p: Tensor | None) -> Tensor:  # noqa: ARG002
        if self.theta == 0:
            return scalar.LOG.first(a, b, None)
        return scalar.POWER.first(a, b, self._exponent(a)) / self.theta

    def second(self, a: Tensor, b: Tensor, c: Tensor, p: Tensor | None) -> Tensor:  # noqa: ARG002
        if self.theta == 0:
            return scalar.LOG.second(a, b, c, None)
        return scalar.POWER.second(a, b, c, self._exponent(a)) / self.theta

    def inverse(self, x: Tensor) -> Tensor:
        if self.theta == 0:
            return torch.exp(x)
        return torch.exp(torch.log1p(self.theta * x) / self.theta)

    def by_exponent(self) -> ScalarFunction:
        raise TypeError("the exponent of a chart is fixed")


@dataclass(frozen=True)
class InverseBoxCox:
    """g = `BoxCox`^-1: g[x, y] = 1/f[u, v], g[x, y, z] = -f[u, v, w]/(f[u,v] f[u,w] f[v,w]).

    u = g(x), v = g(y), w = g(z): differences of x and y, which small theta makes close to
    each other, are not formed.
    """

    theta: float
    name: str = "inverse_box_cox"

    def value(self, w: Tensor, p: Tensor | None) -> Tensor:  # noqa: ARG002
        return BoxCox(self.theta).inverse(w)

    def first(self, a: Tensor, b: Tensor, p: Tensor | None) -> Tensor:  # noqa: ARG002
        f = BoxCox(self.theta)
        return 1 / f.first(f.inverse(a), f.inverse(b), None)

    def second(self, a: Tensor, b: Tensor, c: Tensor, p: Tensor | None) -> Tensor:  # noqa: ARG002
        f = BoxCox(self.theta)
        u, v, w = f.inverse(a), f.inverse(b), f.inverse(c)
        slopes = f.first(u, v, None) * f.first(u, w, None) * f.first(v, w, None)
        return -f.second(u, v, w, None) / slopes

    def by_exponent(self) -> ScalarFunction:
        raise TypeError("the exponent of a chart is fixed")


def _frechet(A: Tensor, E: Tensor, f: Function, w: Tensor, V: Tensor) -> Tensor:
    """Df(A)[E] from A = V diag(w) V^T; batch shapes broadcast."""
    shape = torch.broadcast_shapes(A.shape, E.shape)
    w = w.expand(shape[:-1])
    A, E, V = A.expand(shape), E.expand(shape), V.expand(shape)
    return daleckii_krein.frechet(A, E, f.p(shape[:-2], w), w, V, f.of)


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
        return self.at(P, name).X

    def at(self, P: Tensor, name: str = "P") -> _SpectralLocal:
        inputs.point(P, name)
        p = self.f.p(P.shape[:-2], P)
        X, w, V = daleckii_krein.spectral(P, p, self.f.of, positive=True, name=name)
        return _SpectralLocal(self, (P + P.mT) / 2, X, w, V)

    def inverse(self, X: Tensor) -> Tensor:
        p = self.g.p(X.shape[:-2], X)
        return daleckii_krein.spectral(X, p, self.g.of, check=False)[0]


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
        # The factorisation is the cheapest test of definiteness; NaN spreads from it.
        L = cholesky(P.detach(), name=name)
        return torch.where(L[..., :1, :1].isnan(), torch.nan, (P + P.mT) / 2)

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
