"""Multinomial logistic regression of rotations, on SO(n) and products of it."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from linalg_kernels import errors, so_exp, so_log
from linalg_kernels.transforms import inspect
from torch import Tensor, nn

from rmlr.chunks import in_chunks
from rmlr.defined import check_defined

if TYPE_CHECKING:
    from geoopt.manifolds.base import Manifold
else:
    Manifold = Any

# so_log of a pair holds about this many n x n matrices, with those for its derivative.
_PAIR_MATRICES = 16


def _check_rotations(R: Tensor, name: str) -> None:
    errors.check_finite(R, name)
    if R.numel() == 0:
        return
    n = R.shape[-1]
    off = (R.mT @ R - torch.eye(n, dtype=R.dtype, device=R.device)).abs().amax((-2, -1))
    bad = off > n * math.sqrt(torch.finfo(R.dtype).eps)
    if bool(bad.any()):
        raise ValueError(
            f"{name}{errors.element(bad)} must be orthogonal, but an entry of "
            f"{name}^T {name} - I is {off[bad][0].item():.2g}; see linalg_kernels.polar"
        )
    bad = torch.linalg.det(R) < 0
    if bool(bad.any()):
        raise ValueError(f"{name}{errors.element(bad)} must be a rotation, but has determinant -1")


def lie_scores(
    R: Float[Tensor, "*batch n n"],
    P: Float[Tensor, "c ... n n"],
    A: Float[Tensor, "c ... n n"],
    *,
    memory: int | None = None,
) -> Float[Tensor, "*lead c"]:
    """Logits Σ tr(log(P_k^T R)^T A_k) of rotations for points P and skew normals A.

    A (c, *product, n, n) says what a sample is: R (*lead, *product, n, n) is an element of a
    product of rotation groups, over which the scores are summed. P (c, ..., n, n) may leave
    off or have 1 in dimensions of the product, from the right, which then share a point.

    Accurate, with finite derivatives, for angles of P^T R from 0 up to π - 1e-8 in float64. At
    π itself the logarithm jumps: for n <= 3 one side is taken, for n >= 4 it raises
    LinAlgError. ValueError names the element of R or P that is no rotation. Derivatives are
    those along the group: of a Euclidean gradient E only skew(R^T E) counts. Source: Chen et
    al., NeurIPS 2024, Theorem 5.2.
    """
    n = A.shape[-1]
    for T, name in ((R, "R"), (P, "P"), (A, "A")):
        errors.require_float(T, name)
        errors.require_real(T, name)
        errors.require_square(T, name, n)
        errors.require_same_kind(T, A, (name, "A"))
    product = A.shape[1:-2]
    depth = len(product)
    if R.ndim < depth + 2 or R.shape[R.ndim - 2 - depth : -2] != product:
        told = ", ".join(map(str, (*product, n, n)))
        raise ValueError(f"R must be (..., {told}), got {tuple(R.shape)}")
    if P.ndim > A.ndim or P.shape[0] != A.shape[0]:
        raise ValueError(f"P must be ({len(A)}, ..., {n}, {n}), got {tuple(P.shape)}")
    R = inspect(R, lambda T: _check_rotations(T, "R"))
    P = inspect(P, lambda T: _check_rotations(T, "P"))
    A = inspect(A, _check_skew)
    lead = R.shape[: R.ndim - 2 - depth]
    shared = P[(..., *[None] * (A.ndim - P.ndim), slice(None), slice(None))]
    points = shared.expand(len(P), *product, n, n)
    samples = R.reshape(-1, *product, n, n)

    def score(R: Tensor, P: Tensor, A: Tensor) -> Tensor:
        logs = so_log(P.mT @ R[:, None], check=False)
        return (logs * A).flatten(2).sum(-1)

    scores = in_chunks(score, (samples,), (points, A), pair_matrices=_PAIR_MATRICES, memory=memory)
    check_defined(scores, "R", "turns a plane by π to working precision: it has no logarithm")
    return scores.view(*lead, len(A))


def _check_skew(A: Tensor) -> None:
    errors.check_finite(A, "A")
    if A.numel() == 0:
        return
    bad = (A + A.mT).abs().amax((-2, -1)) > errors.ASYMMETRY * A.abs().amax((-2, -1))
    if bool(bad.any()):
        raise ValueError(f"A{errors.element(bad)} must be skew-symmetric")


def skew(x: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch n n"]:
    """The skew-symmetric matrix whose entries below the diagonal, row by row, are x."""
    n = (1 + math.isqrt(1 + 8 * x.shape[-1])) // 2
    rows, columns = torch.tril_indices(n, n, -1, device=x.device)
    place = torch.zeros(n, n, dtype=torch.long, device=x.device)
    place[rows, columns] = place[columns, rows] = torch.arange(x.shape[-1], device=x.device)
    below = x[..., place].tril(-1)
    return below - below.mT


def unskew(S: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch m"]:
    """The entries of S below the diagonal, row by row."""
    rows, columns = torch.tril_indices(S.shape[-1], S.shape[-1], -1, device=S.device)
    return S[..., rows, columns]


class LieMLR(nn.Module):
    """A classifier of rotations: logits Σ tr(log(P_k^T R)^T A_k), see `lie_scores`.

    Points P and normals A may be read and set as attributes of these names. The optimiser sees
    unconstrained numbers: `location` with P = exp of a skew matrix, and `normal`. Points start
    at the identity, entries of normals at U(-b, b) with b² = 6/(n² N) for N rotations a sample.

    Args:
        n: Size of the rotations.
        classes: Number of classes.
        product: Shape of the rotations in a sample that have points of their own, as
            (bones,).
        shared: Shape of those that share a point and have normals of their own, as (frames,).
            Samples are (*batch, *product, *shared, n, n).
        manifold: A geoopt manifold of rotations. P then is a `geoopt.ManifoldParameter` on it.
        memory: Bytes that pairs (sample, class) may take at once; None means 1 GiB. More are
            computed in pieces, with the same result.
    """

    location: nn.Parameter
    normal: nn.Parameter

    def __init__(
        self,
        n: int,
        classes: int,
        *,
        product: Sequence[int] = (),
        shared: Sequence[int] = (),
        manifold: Manifold | None = None,
        memory: int | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        if n < 2:
            raise ValueError(f"n must be >= 2, got {n}")
        if classes < 1:
            raise ValueError(f"classes must be >= 1, got {classes}")
        self.n, self.classes, self.memory = n, classes, memory
        self.product, self.shared = tuple(product), tuple(shared)
        m = n * (n - 1) // 2
        every = (classes, *self.product, *self.shared)
        self.normal = nn.Parameter(torch.empty(*every, m, dtype=dtype, device=device))
        bound = math.sqrt(6 / (n * n * math.prod(every[1:])))
        nn.init.uniform_(self.normal, -bound, bound)
        if manifold is None:
            zeros = torch.zeros(classes, *self.product, m, dtype=dtype, device=device)
            self.location = nn.Parameter(zeros)
        else:
            import geoopt

            eye = torch.eye(n, dtype=dtype, device=device)
            eye = eye.expand(classes, *self.product, n, n).clone()
            point = geoopt.ManifoldParameter(eye, manifold=manifold)  # ty: ignore[unknown-argument]
            self.register_parameter("P", point)

    @property
    def A(self) -> Float[Tensor, "c ... n n"]:
        """Skew-symmetric normals (classes, *product, *shared, n, n)."""
        return skew(self.normal)

    @A.setter
    def A(self, value: Tensor) -> None:
        expected = (self.classes, *self.product, *self.shared, self.n, self.n)
        if tuple(value.shape) != expected:
            raise ValueError(f"A must be {expected}, got {tuple(value.shape)}")
        _check_skew(value)
        with torch.no_grad():
            self.normal.copy_(unskew((value - value.mT) / 2))

    def __getattr__(self, name: str) -> Any:
        if name == "P" and "location" in self.__dict__["_parameters"]:
            return so_exp(skew(self.location), check=False)
        return super().__getattr__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "P" and not isinstance(value, nn.Parameter):
            self._set_points(value)
        else:
            super().__setattr__(name, value)

    def _set_points(self, P: Tensor) -> None:
        expected = (self.classes, *self.product, self.n, self.n)
        if tuple(P.shape) != expected:
            raise ValueError(f"P must be {expected}, got {tuple(P.shape)}")
        _check_rotations(P, "P")
        with torch.no_grad():
            if "location" in self.__dict__["_parameters"]:
                self.location.copy_(unskew(so_log(P)))
            else:
                self.__dict__["_parameters"]["P"].copy_(P)

    def forward(self, R: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*lead c"]:
        """Logits (*lead, classes). Raises ValueError naming the element that is no rotation."""
        return lie_scores(R, self.P, self.A, memory=self.memory)

    def extra_repr(self) -> str:
        """Sizes."""
        return f"{self.n}, {self.classes}, product={self.product}, shared={self.shared}"
