"""What a metric is, and how one is made: a chart onto a simpler geometry, pulled back.

With a diffeomorphism φ onto a geometry N and c > 0, the metric c φ*g^N has

    Exp_P V = φ^-1 Exp^N_φP(Dφ_P V),   Log_P Q = (Dφ_P)^-1 Log^N_φP φQ,   d = √c d^N,

and likewise geodesics, parallel transport and means. A metric of one's own is a frozen
dataclass that gives `chart`, `geometry` and, unless it is 1, `scale`;
`spd_metrics.testing.check_metric` holds it to what a metric must satisfy.
"""

import math
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from linalg_kernels import errors
from linalg_kernels.barycenter import read_set
from torch import Tensor

from spd_metrics import inputs
from spd_metrics.charts import Chart
from spd_metrics.geometry import Geometry, safe_sqrt


@runtime_checkable
class Metric(Protocol):
    """A Riemannian metric on matrices `(*batch, n, n)`: what layers and classifiers rely on.

    Batch shapes broadcast. Points are symmetric positive definite (Cholesky factors for the
    Cholesky metrics) and tangent vectors symmetric (lower triangular).
    """

    def inner(
        self,
        P: Float[Tensor, "*#batch n n"],
        V: Float[Tensor, "*#batch n n"],
        W: Float[Tensor, "*#batch n n"],
        /,
    ) -> Float[Tensor, "*batch"]:
        """g_P(V, W)."""
        ...

    def norm(
        self, P: Float[Tensor, "*#batch n n"], V: Float[Tensor, "*#batch n n"], /
    ) -> Float[Tensor, "*batch"]:
        """√g_P(V, V); its derivative at V = 0 is 0."""
        ...

    def exp(
        self, P: Float[Tensor, "*#batch n n"], V: Float[Tensor, "*#batch n n"], /
    ) -> Float[Tensor, "*batch n n"]:
        """The end of the geodesic that leaves P with velocity V."""
        ...

    def log(
        self, P: Float[Tensor, "*#batch n n"], Q: Float[Tensor, "*#batch n n"], /
    ) -> Float[Tensor, "*batch n n"]:
        """The velocity at P of the geodesic that is at Q at time 1."""
        ...

    def dist(
        self, P: Float[Tensor, "*#batch n n"], Q: Float[Tensor, "*#batch n n"], /
    ) -> Float[Tensor, "*batch"]:
        """Geodesic distance; 0 with derivative 0 where P = Q."""
        ...

    def pairwise_dist(
        self, P: Float[Tensor, "*#batch p n n"], Q: Float[Tensor, "*#batch q n n"], /
    ) -> Float[Tensor, "*batch p q"]:
        """Distances between all of P and all of Q."""
        ...

    def geodesic(
        self, P: Float[Tensor, "*#batch n n"], Q: Float[Tensor, "*#batch n n"], t: Tensor | float, /
    ) -> Float[Tensor, "*batch n n"]:
        """The point at time t of the geodesic from P to Q; t is a number or of batch shape."""
        ...

    def transport(
        self,
        P: Float[Tensor, "*#batch n n"],
        Q: Float[Tensor, "*#batch n n"],
        V: Float[Tensor, "*#batch n n"],
        /,
    ) -> Float[Tensor, "*batch n n"]:
        """Parallel transport of V from P to Q along their geodesic."""
        ...

    def mean(
        self, X: Float[Tensor, "*batch b n n"], weights: Float[Tensor, "*#batch b"] | None = None, /
    ) -> Float[Tensor, "*batch n n"]:
        """Fréchet mean over dimension -3. Weights are nonnegative and normalised; None: equal."""
        ...

    def exp_domain(
        self, P: Float[Tensor, "*#batch n n"], V: Float[Tensor, "*#batch n n"], /
    ) -> Float[Tensor, "*batch"]:
        """The time at which the geodesic from P along V leaves the manifold; inf if never."""
        ...


class Pullback:
    """A metric from a chart and a geometry. The operations are those of `Metric`.

    Errors name the argument and the batch element: ValueError for a wrong shape or one that
    is not symmetric, LinAlgError for NaN, Inf or a matrix that is not positive definite.

    An incomplete metric has geodesics that reach the boundary in finite time. `domain` says
    what `exp` (and the gyro operations, which are made of it) do beyond: "raise" a ValueError
    naming the element, give "nan" there, or "clamp": stop just short of the boundary (and at
    the largest finite number, where the end of the geodesic is beyond it).
    """

    @property
    def domain(self) -> inputs.Domain:
        """What `exp` does beyond `exp_domain`; a field of incomplete metrics."""
        return "raise"

    @property
    def chart(self) -> Chart:
        """The diffeomorphism."""
        raise NotImplementedError

    @property
    def geometry(self) -> Geometry:
        """What it maps onto."""
        raise NotImplementedError

    @property
    def scale(self) -> float:
        """The factor c of the inner product."""
        return 1.0

    def inner(
        self,
        P: Float[Tensor, "*#batch n n"],
        V: Float[Tensor, "*#batch n n"],
        W: Float[Tensor, "*#batch n n"],
    ) -> Float[Tensor, "*batch"]:
        """g_P(V, W) = c ⟨Dφ V, Dφ W⟩."""
        V = inputs.tangent(P, V, "V", self.chart.kind)
        W = inputs.tangent(P, W, "W", self.chart.kind)
        at = self.chart.at(P, "P")
        return self._scaled(self.geometry.inner(at.X, at.push(V), at.push(W)), self.scale)

    def norm(
        self, P: Float[Tensor, "*#batch n n"], V: Float[Tensor, "*#batch n n"]
    ) -> Float[Tensor, "*batch"]:
        """√g_P(V, V), with derivative 0 at V = 0."""
        V = inputs.tangent(P, V, "V", self.chart.kind)
        at = self.chart.at(P, "P")
        pushed = at.push(V)
        squared = self.geometry.inner(at.X, pushed, pushed)
        return self._scaled(safe_sqrt(squared), math.sqrt(self.scale))

    def exp(
        self, P: Float[Tensor, "*#batch n n"], V: Float[Tensor, "*#batch n n"]
    ) -> Float[Tensor, "*batch n n"]:
        """φ^-1 Exp(Dφ_P V). Beyond `exp_domain` see `domain`."""
        V = inputs.tangent(P, V, "V", self.chart.kind)
        at = self.chart.at(P, "P")
        return self._end(at.X, at.push(V), "exp(P, V)")

    def log(
        self, P: Float[Tensor, "*#batch n n"], Q: Float[Tensor, "*#batch n n"]
    ) -> Float[Tensor, "*batch n n"]:
        """(Dφ_P)^-1 Log(φQ)."""
        inputs.points(P, Q)
        at = self.chart.at(P, "P")
        return at.pull(self.geometry.log(at.X, self.chart(Q, "Q")))

    def dist(
        self, P: Float[Tensor, "*#batch n n"], Q: Float[Tensor, "*#batch n n"]
    ) -> Float[Tensor, "*batch"]:
        """√c d(φP, φQ); exactly 0, with derivative 0, where P = Q."""
        inputs.points(P, Q)
        d = self.geometry.dist_seen_through(self.chart, P, Q)
        return self._scaled(d, math.sqrt(self.scale))

    def pairwise_dist(
        self, P: Float[Tensor, "*#batch p n n"], Q: Float[Tensor, "*#batch q n n"]
    ) -> Float[Tensor, "*batch p q"]:
        """`dist` between all of P and all of Q."""
        for T, name in ((P, "P"), (Q, "Q")):
            inputs.point(T, name)
            if T.ndim < 3:
                raise ValueError(f"{name} must be (..., k, n, n), got {tuple(T.shape)}")
        errors.require_square(Q, "Q", P.shape[-1])
        errors.require_same_kind(P, Q, ("P", "Q"))
        errors.broadcast_batch({"P": (P, 3), "Q": (Q, 3)})
        squared = self.geometry.pairwise_dist2(self.chart(P, "P"), self.chart(Q, "Q"))
        return self._scaled(safe_sqrt(squared), math.sqrt(self.scale))

    def geodesic(
        self,
        P: Float[Tensor, "*#batch n n"],
        Q: Float[Tensor, "*#batch n n"],
        t: Tensor | float,
    ) -> Float[Tensor, "*batch n n"]:
        """φ^-1 of the geodesic from φP to φQ at time t, a number or of batch shape.

        Between 0 and 1 it exists for every metric; beyond, an incomplete metric applies
        `domain` to the velocity t log(P, Q).
        """
        inputs.points(P, Q)
        time = inputs.time(P, t)
        X, Y = self.chart(P, "P"), self.chart(Q, "Q")
        if self._complete or inputs.within_unit(t):
            return self.chart.inverse(self.geometry.geodesic(X, Y, time))
        # Rounding may end the velocity of t <= 1 at t = 1, so those are interpolated.
        time = torch.as_tensor(time, dtype=P.dtype, device=P.device)
        between = (time >= 0) & (time <= 1)
        inner = self.chart.inverse(self.geometry.geodesic(X, Y, time.clamp(0, 1)))
        velocity = torch.where(between, 0, time) * self.geometry.log(X, Y)
        return torch.where(between, inner, self._end(X, velocity, "geodesic(P, Q, t)"))

    def transport(
        self,
        P: Float[Tensor, "*#batch n n"],
        Q: Float[Tensor, "*#batch n n"],
        V: Float[Tensor, "*#batch n n"],
    ) -> Float[Tensor, "*batch n n"]:
        """(Dφ_Q)^-1 of the transport of Dφ_P V from φP to φQ."""
        inputs.points(P, Q)
        V = inputs.tangent(P, V, "V", self.chart.kind)
        start, end = self.chart.at(P, "P"), self.chart.at(Q, "Q")
        return end.pull(self.geometry.transport(start.X, end.X, start.push(V)))

    def gradient(
        self, P: Float[Tensor, "*#batch n n"], G: Float[Tensor, "*#batch n n"]
    ) -> Float[Tensor, "*batch n n"]:
        """The Riemannian gradient at P of a function with the Euclidean gradient G there.

        g_P(gradient, V) = Σ G ∘ V for every tangent vector V.
        """
        inputs.points(P, G, ("P", "G"))
        shape = torch.broadcast_shapes(P.shape, G.shape)
        at = self.chart.at(P.expand(shape), "P")
        lower = self.chart.kind == "lower"
        G = G.expand(shape).tril() if lower else (G + G.mT).expand(shape) / 2
        covector = torch.func.vjp(self.chart.inverse, at.X)[1](G)[0]
        return at.pull(self.geometry.sharp(at.X, covector)) / self.scale

    def mean(
        self,
        X: Float[Tensor, "*batch b n n"],
        weights: Float[Tensor, "*#batch b"] | None = None,
        *,
        tol: float | None = None,
    ) -> Float[Tensor, "*batch n n"]:
        """φ^-1 of the mean of the φ(X_i) over dimension -3.

        `weights` are nonnegative and normalised here; None means equal. Means without a closed
        form (affine-invariant, Bures-Wasserstein) are iterated to a relative `tol`, by default
        1e-10 (1e-5 in single precision); `linalg_kernels.ConvergenceWarning` says when that did
        not suffice.
        """
        inputs.point(X, "X")
        if self.chart.kind == "symmetric":
            X, weights = read_set(X, weights, True)
        else:
            # read_set would symmetrise the triangular factors; only its weights are wanted.
            weights = read_set(X.detach(), weights, False)[1]
        return self.chart.inverse(self.geometry.mean(self.chart(X, "X"), weights, tol))

    def exp_domain(
        self, P: Float[Tensor, "*#batch n n"], V: Float[Tensor, "*#batch n n"]
    ) -> Float[Tensor, "*batch"]:
        """The time at which the geodesic from P along V leaves the manifold; inf if never."""
        V = inputs.tangent(P, V, "V", self.chart.kind)
        at = self.chart.at(P, "P")
        return self.geometry.exp_domain(at.X, at.push(V))

    def gyro_add(
        self, P: Float[Tensor, "*#batch n n"], Q: Float[Tensor, "*#batch n n"]
    ) -> Float[Tensor, "*batch n n"]:
        """P ⊕ Q = Exp_P(transport_{I→P} Log_I Q), the gyro addition with neutral element I."""
        inputs.points(P, Q)
        X, Y = self.chart(P, "P"), self.chart(Q, "Q")
        return self._end(*self.geometry.gyro_add(X, Y), "gyro_add(P, Q)")

    def gyro_neg(self, P: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
        """⊖P = (-1) ⊙ P, the gyro inverse."""
        return self.gyro_scale(-1.0, P)

    def gyro_scale(
        self, t: Tensor | float, P: Float[Tensor, "*batch n n"]
    ) -> Float[Tensor, "*batch n n"]:
        """t ⊙ P = Exp_I(t Log_I P), the gyro multiplication by a number or by batch-shaped t."""
        inputs.point(P, "P")
        time = inputs.time(P, t)
        X = self.chart(P, "P")
        E = self.geometry.identity(X)
        return self._end(E, time * self.geometry.log(E, X), "gyro_scale(t, P)")

    @property
    def _complete(self) -> bool:
        return type(self.geometry).exp_domain is Geometry.exp_domain

    def _end(self, X: Tensor, V: Tensor, what: str) -> Tensor:
        def compute(V: Tensor) -> Tensor:
            return self.chart.inverse(self.geometry.exp(X, V))

        if self._complete:
            return compute(V)
        return inputs.admit(V, self.geometry.exp_domain(X, V), self.domain, compute, what)

    @staticmethod
    def _scaled(value: Tensor, factor: float) -> Tensor:
        return value if factor == 1 else factor * value
