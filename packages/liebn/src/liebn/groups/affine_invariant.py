"""SPD matrices under Q ⊙ P = K P K^T, K the Cholesky factor of Q, with affine-invariant metrics.

With θ the group is that of P^θ. Its translations are congruences by triangular matrices, so
that d(L^-1 P L^-T, I) = d(P, M) for M = L L^T, and a Karcher step at M is one at I:

    M <- L exp(mean_i log(L^-1 P_i L^-T)) L^T.
"""

import math
import warnings
from dataclasses import dataclass

import torch
from jaxtyping import Float
from linalg_kernels import (
    ConvergenceWarning,
    chol_log,
    cholesky,
    congruence,
    daleckii_krein,
    expm,
    logm,
    scalar,
)
from linalg_kernels.barycenter import default_tol
from spd_metrics import AffineInvariant
from spd_metrics.euclidean import check_alpha_beta
from torch import Tensor

from liebn.groups.diagonal import exp_diagonal
from liebn.groups.move import move
from liebn.groups.power import check_power, power
from liebn.pool import Pool

Matrix = Float[Tensor, "*batch n n"]

_MOST_STEPS = 200


def _symmetric(A: Tensor) -> Tensor:
    return (A + A.mT) / 2


def _congruence(A: Tensor, X: Tensor) -> Tensor:
    # Products with the batch on the left come first: torch makes one product of them.
    return A @ (X @ A.mT)


def _inverse(L: Tensor) -> Tensor:
    """L^-1 of a Cholesky factor."""
    identity = torch.eye(L.shape[-1], dtype=L.dtype, device=L.device)
    return torch.linalg.solve_triangular(L, identity, upper=False)


@dataclass(frozen=True)
class AffineInvariantPolar:
    """S = back X back^T, its eigensystem a constant to autograd.

    C is S where derivatives go through it; move needs none, and its memory is wanted.
    """

    group: "AffineInvariantGroup"
    X: Tensor
    C: Tensor | None
    S: congruence.Congruence

    def dist2(self) -> Float[Tensor, "*batch"]:
        """(alpha ‖log S‖² + beta (log det S)²)/θ²."""
        group = self.group
        if self.C is None:
            logs = torch.log(self.S.w)
            squares = (logs * logs).sum(-1)
        else:
            logs = daleckii_krein.evaluate(self.C, None, self.S.w, self.S.V, scalar.LOG)
            squares = (logs * logs).sum((-2, -1))
        check_alpha_beta(self.X.shape[-1], group.alpha, group.beta)
        value = squares if group.alpha == 1 else group.alpha * squares
        if group.beta != 0:
            traces = logs if self.C is None else logs.diagonal(dim1=-2, dim2=-1)
            value = value + group.beta * traces.sum(-1).square()
        return value if group.theta == 1 else value / group.theta**2

    def moved(self, factor: Float[Tensor, "..."], forth: Float[Tensor, "..."]) -> Matrix:
        """forth S^factor forth^T."""
        exponent = factor[..., 0, 0].expand(self.X.shape[:-2])
        if self.C is None:
            return move(self.X, forth, exponent, self.S)
        S = daleckii_krein.evaluate(self.C, exponent, self.S.w, self.S.V, scalar.POWER)
        return _congruence(forth, S)


@dataclass(frozen=True)
class AffineInvariantGroup:
    """Coordinates P^θ; d²(P, I) = alpha ‖log P‖² + beta (log det P)².

    Args:
        theta: Power of the deformation, not 0.
        alpha: > 0.
        beta: > -alpha/n.

    Source: Chen et al., ICLR 2024, Table 1 ((θ, α, β)-AIM).
    """

    theta: float = 1.0
    alpha: float = 1.0
    beta: float = 0.0

    def __post_init__(self) -> None:
        AffineInvariant(self.theta, self.alpha, self.beta)
        check_power(self.theta)

    def chart(self, P: Matrix, name: str = "X") -> Matrix:
        """P^θ."""
        return power(P, self.theta, name)

    def chart_inverse(self, X: Matrix) -> Matrix:
        """X^(1/θ)."""
        return power(X, 1 / self.theta, check=False)

    def neutral(self, n: int) -> Float[Tensor, "n n"]:
        """I."""
        return torch.eye(n)

    def exp(self, V: Matrix) -> Matrix:
        """exp V."""
        return expm(V, check=False)

    def log(self, X: Matrix) -> Matrix:
        """log X."""
        return logm(X, nonpos="raise", name="X")

    def translation(self, X: Matrix) -> Matrix:
        """The Cholesky factor of X."""
        return cholesky(X, check=False)

    def inverse_translation(self, X: Matrix) -> Matrix:
        """Its inverse."""
        return _inverse(cholesky(X, check=False))

    def act(
        self, A: Float[Tensor, "*#batch n n"], X: Float[Tensor, "*#batch n n"]
    ) -> Float[Tensor, "*batch n n"]:
        """A X A^T."""
        return _congruence(A, X)

    def lift(self, Z: Matrix) -> Matrix:
        """The Cholesky factor ⌊Z⌋ + exp diag Z."""
        return exp_diagonal(Z)

    def lift_inverse(self, X: Matrix) -> Matrix:
        """⌊L⌋ + log diag L."""
        return chol_log(X, check=False)

    def polar(
        self, back: Float[Tensor, "..."], X: Matrix, *, constant: bool
    ) -> AffineInvariantPolar:
        """By an eigendecomposition, one for distances and scaling."""
        C = None if constant else _congruence(back, X)
        return AffineInvariantPolar(self, X, C, congruence.eigh(back, X, name="X"))

    def geodesic(self, X: Matrix, Y: Matrix, t: float) -> Matrix:
        """L (L^-1 Y L^-T)^t L^T with X = L L^T."""
        if t == 1:
            return Y
        return congruence.move(cholesky(X, check=False), Y, scalar.POWER, t)

    def mean(self, X: Matrix, pool: Pool, steps: int | None) -> Float[Tensor, "*sets n n"]:
        """Karcher steps of length 1 from the arithmetic mean.

        With None steps of length 2/(1 + h), h a bound of the Hessian (Bini and Iannazzo 2013),
        until the mean of logarithms is below 1e-10 √n (1e-5 √n in single precision).
        """
        M = self._start(X, pool)
        if steps is not None:
            for _ in range(steps):
                L = cholesky(M, check=False)
                # Definite if and only if X is, so this is where an indefinite X is found.
                J = pool.mean(congruence.logm(pool.spread(L), X, inverse=True))
                M = congruence.move(L, J, scalar.EXP, inverse=False)
            return M
        tol = default_tol(X.dtype) * math.sqrt(X.shape[-1])
        for _ in range(_MOST_STEPS):
            L = cholesky(M, check=False)
            seen = _congruence(pool.spread(_inverse(L)), X)
            logs, w, _ = daleckii_krein.spectral(seen, None, scalar.LOG, positive=True, name="X")
            J = pool.mean(logs)
            if not bool((torch.linalg.matrix_norm(J.detach()) > tol).any()):
                return M
            length = 2 / (1 + pool.mean(_hessian_bound(w.detach())[..., None, None]))
            M = _symmetric(_congruence(L, self.exp(length * J)))
        warnings.warn(
            f"the Karcher mean did not converge to {tol:.1g} in {_MOST_STEPS} steps",
            ConvergenceWarning,
            stacklevel=2,
        )
        return M

    def _start(self, X: Tensor, pool: Pool) -> Tensor:
        return pool.mean(X)


def _hessian_bound(w: Tensor) -> Tensor:
    """x coth x with x = log(cond)/2, of eigenvalues w (*batch, n)."""
    x = (torch.log(w.amax(-1)) - torch.log(w.amin(-1))) / 2
    small = x < 1e-3
    return torch.where(small, 1 + x * x / 3, x / torch.tanh(torch.where(small, 1, x)))


def _invert(X: Tensor) -> Tensor:
    """L^-1 L^-T of X = L L^T: the inverse in the group of Cholesky factors."""
    W = _inverse(cholesky(X, check=False))
    return W @ W.mT


@dataclass(frozen=True)
class CholeskyRightInvariantGroup(AffineInvariantGroup):
    """The right-invariant metric: Q ⊙ P = (L K)(L K)^T, L and K the factors of P and Q.

    L L^T -> L^-1 L^-T turns it into the left-invariant group, so coordinates are the image of
    P^θ under this; parameters are as there. Source: the authors' LieBN library (CRIM).
    """

    def chart(self, P: Matrix, name: str = "X") -> Matrix:
        """L^-1 L^-T of P^θ = L L^T."""
        cholesky(P.detach(), name=name)
        return _invert(power(P, self.theta, name))

    def chart_inverse(self, X: Matrix) -> Matrix:
        """(L^-1 L^-T)^(1/θ) of X = L L^T."""
        return power(_invert(X), 1 / self.theta, check=False)

    def _start(self, X: Tensor, pool: Pool) -> Tensor:
        return _invert(pool.mean(_invert(X)))
