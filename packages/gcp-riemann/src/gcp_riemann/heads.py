"""Classifiers of covariances: what is normalised, how it is made a vector, and a linear layer.

Logits of a covariance Σ (A, b and vec: a linear layer and `vectorise`):

    LogEMLR       A vec(log Σ) + b
    PowEMLR       A vec(Σ^θ) + b
    ScalePowEMLR  A vec(Σ^θ / θ) + b
    PowTMLR       A vec((Σ^θ - I) / θ) + b
    ChoTMLR       A vec(⌊L⌋ + ⌊L⌋ᵀ + 2 log diag L) + b,     L Lᵀ = Σ
    PEMMLR        ⟨Σ^θ / θ - p_k, A_k⟩,                     p_k = P_k^θ / θ
    LEMMLR        ⟨log Σ - p_k, A_k⟩,                       p_k = log P_k

The first five are tangent classifiers at I, or Euclidean ones in a chart, and PowEMLR,
ScalePowEMLR and PowTMLR have the same set of functions: their features differ by the factor
1/θ and by the constant -I/θ, which the bias takes up. What separates them is optimisation. The
last two are the Riemannian classifiers of the power-Euclidean and log-Euclidean metrics.

Source: Chen et al., ICLR 2025.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gcp_riemann import inputs
from gcp_riemann.log_cholesky import LogCholesky
from gcp_riemann.newton_schulz import Scaling
from gcp_riemann.normalise import MatrixLog, MatrixPower, Method
from gcp_riemann.vectorise import KINDS, Vec, length, unvectorise, vectorise


class CovarianceHead(nn.Module):
    """Linear classifier of vectorised, normalised covariances; a subclass says how they are.

    `features` (batch, m) are what the linear layer `fc` sees; logits are (batch, classes).
    """

    def __init__(self, n: int, classes: int, normalise: nn.Module, vec: Vec, bias: bool) -> None:
        super().__init__()
        for count, name in ((n, "n"), (classes, "classes")):
            if count < 1:
                raise ValueError(f"{name} must be >= 1, got {count}")
        inputs.require_one_of(vec, KINDS, "vec")
        self.n, self.classes, self.vec = n, classes, vec
        self.normalise = normalise
        self.fc = nn.Linear(length(n, vec), classes, bias=bias)

    def matrices(self, P: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
        """The normalised covariances, symmetric."""
        return self.normalise(P)

    def features(self, P: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch m"]:
        """vec of `matrices`. ValueError for another n."""
        if P.ndim < 2 or P.shape[-2:] != (self.n, self.n):
            raise ValueError(f"P must be (..., n, n) with n={self.n}, got {tuple(P.shape)}")
        return vectorise(self.matrices(P), self.vec)

    def forward(self, P: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch classes"]:
        """Logits."""
        return self.fc(self.features(P).to(self.fc.weight.dtype))

    def extra_repr(self) -> str:
        """Sizes."""
        return f"n={self.n}, classes={self.classes}, vec={self.vec!r}"


class LogEMLR(CovarianceHead):
    """vec log Σ: the tangent classifier at I of the log-Euclidean and affine-invariant metrics.

    Args:
        n: Order of the covariances.
        classes: Number of logits.
        shift: Relative shift that makes singular covariances definite; None: see `MatrixLog`.
        vec: See `vectorise`.
        bias: Of the linear layer.
        check: Raise an error that names the bad element.
    """

    def __init__(
        self,
        n: int,
        classes: int,
        *,
        shift: float | None = None,
        vec: Vec = "upper",
        bias: bool = True,
        check: bool = True,
    ) -> None:
        super().__init__(n, classes, MatrixLog(shift, check=check), vec, bias)


class PowEMLR(CovarianceHead):
    """vec Σ^θ, the practice of MPN-COV and iSQRT-COV at θ = ½.

    Args:
        n: Order of the covariances.
        classes: Number of logits.
        theta: θ > 0.
        method: "eigh", "newton_schulz" or "pade"; see `MatrixPower`.
        iters: Steps of Newton-Schulz.
        scaling: Of Newton-Schulz; "trace" is the published iteration.
        vec: See `vectorise`.
        bias: Of the linear layer.
        check: Raise an error that names the bad element.
    """

    def __init__(
        self,
        n: int,
        classes: int,
        theta: float = 0.5,
        *,
        method: Method = "eigh",
        iters: int = 5,
        scaling: Scaling = "spectrum",
        vec: Vec = "upper",
        bias: bool = True,
        check: bool = True,
    ) -> None:
        power = MatrixPower(theta, method, iters=iters, scaling=scaling, check=check)
        super().__init__(n, classes, power, vec, bias)
        self.theta = theta


class ScalePowEMLR(PowEMLR):
    """vec Σ^θ / θ: the linear map in the chart of the power-Euclidean metric. As `PowEMLR`."""

    def matrices(self, P: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
        """Σ^θ / θ."""
        return self.normalise(P) / self.theta


class PowTMLR(PowEMLR):
    """vec (Σ^θ - I)/θ: the tangent classifier at I of the power-Euclidean metric.

    At θ = ½ of the Bures-Wasserstein metric too. Arguments as in `PowEMLR`. Of a zero
    covariance the feature is the constant -vec I / θ.
    """

    def matrices(self, P: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
        """(Σ^θ - I)/θ."""
        F = self.normalise(P)
        return (F - torch.eye(self.n, dtype=F.dtype, device=F.device)) / self.theta


class ChoTMLR(CovarianceHead):
    """vec of ⌊L⌋ + ⌊L⌋ᵀ + 2 log diag L: the tangent classifier at I of the log-Cholesky metric.

    Args:
        n: Order of the covariances.
        classes: Number of logits.
        theta: Power of the deformation, θ > 0; 1 costs one Cholesky factorisation.
        shift: Relative shift that makes singular covariances definite; None: see `LogCholesky`.
        absolute_shift: Added whatever the unit; 1e-6 with `shift=0.0` is the official code's.
        vec: See `vectorise`.
        bias: Of the linear layer.
        check: Raise an error that names the bad element.
    """

    def __init__(
        self,
        n: int,
        classes: int,
        theta: float = 1.0,
        *,
        shift: float | None = None,
        absolute_shift: float = 0.0,
        vec: Vec = "upper",
        bias: bool = True,
        check: bool = True,
    ) -> None:
        chart = LogCholesky(theta, shift, absolute_shift=absolute_shift, check=check)
        super().__init__(n, classes, chart, vec, bias)


class FlatRiemannianHead(nn.Module):
    """⟨φ(Σ) - p_k, A_k⟩, the Riemannian classifier of a flat metric with the isometric chart φ.

    The hyperplane of class k passes through the point P_k with φ(P_k) = p_k. Points and normals
    are kept as `vectorise(..., "isometric")`, in which a step of gradient descent is one on
    symmetric matrices; p_k is free, as steps may leave the image of an incomplete metric's φ.
    Points start at φ(I), normals as the weights of a linear layer.
    """

    def __init__(self, n: int, classes: int, normalise: nn.Module, origin: float) -> None:
        super().__init__()
        for count, name in ((n, "n"), (classes, "classes")):
            if count < 1:
                raise ValueError(f"{name} must be >= 1, got {count}")
        self.n, self.classes, self.normalise = n, classes, normalise
        identity = vectorise(origin * torch.eye(n), "isometric")
        self.point = nn.Parameter(identity.expand(classes, -1).clone())
        self.normal = nn.Parameter(torch.empty(classes, length(n)))
        bound = 1 / math.sqrt(length(n))
        nn.init.uniform_(self.normal, -bound, bound)

    def chart(self, P: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
        """φ(Σ)."""
        return self.normalise(P)

    def features(self, P: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch m"]:
        """vec φ(Σ), isometric. ValueError for another n."""
        if P.ndim < 2 or P.shape[-2:] != (self.n, self.n):
            raise ValueError(f"P must be (..., n, n) with n={self.n}, got {tuple(P.shape)}")
        return vectorise(self.chart(P), "isometric")

    def points(self) -> Float[Tensor, "classes n n"]:
        """p_k = φ(P_k) as matrices."""
        return unvectorise(self.point, "isometric")

    def normals(self) -> Float[Tensor, "classes n n"]:
        """A_k as matrices."""
        return unvectorise(self.normal, "isometric")

    def forward(self, P: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch classes"]:
        """Logits."""
        x = self.features(P).to(self.normal.dtype)
        return nn.functional.linear(x, self.normal, -(self.point * self.normal).sum(-1))

    def extra_repr(self) -> str:
        """Sizes."""
        return f"n={self.n}, classes={self.classes}"


class PEMMLR(FlatRiemannianHead):
    """⟨Σ^θ/θ - P_k^θ/θ, A_k⟩: the Riemannian classifier of the power-Euclidean metric.

    By Theorem 1 of the paper it is trained by plain SGD as by Riemannian SGD on P_k: the step
    on p_k = P_k^θ/θ is the same, where it stays in the cone. A linear layer in the features
    vec(Σ^θ/θ) has the same functions and takes other steps.

    Args:
        n: Order of the covariances.
        classes: Number of logits.
        theta: θ > 0.
        method: See `MatrixPower`; also `iters` and `scaling`.
        iters: Steps of Newton-Schulz.
        scaling: Of Newton-Schulz.
        check: Raise an error that names the bad element.
    """

    def __init__(
        self,
        n: int,
        classes: int,
        theta: float = 0.5,
        *,
        method: Method = "eigh",
        iters: int = 5,
        scaling: Scaling = "spectrum",
        check: bool = True,
    ) -> None:
        power = MatrixPower(theta, method, iters=iters, scaling=scaling, check=check)
        super().__init__(n, classes, power, 1 / theta)
        self.theta = theta

    def chart(self, P: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
        """Σ^θ / θ."""
        return self.normalise(P) / self.theta


class LEMMLR(FlatRiemannianHead):
    """⟨log Σ - log P_k, A_k⟩: the Riemannian classifier of the log-Euclidean metric.

    Args:
        n: Order of the covariances.
        classes: Number of logits.
        shift: See `LogEMLR`.
        check: Raise an error that names the bad element.
    """

    def __init__(
        self, n: int, classes: int, *, shift: float | None = None, check: bool = True
    ) -> None:
        super().__init__(n, classes, MatrixLog(shift, check=check), 0.0)
