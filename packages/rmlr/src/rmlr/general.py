"""Scores of multinomial logistic regression on any Riemannian manifold of matrices.

The score of class k at S is ⟨Log_{P_k} S, Ã_k⟩_{P_k}, the signed distance to the hyperplane
{S : ⟨Log_{P_k} S, Ã_k⟩ = 0} times the length of its normal Ã_k. The normal lives at P_k and
is carried there from a symmetric matrix A_k at the identity. Nothing else is asked of a
geometry: a logarithm, an inner product, and a way to carry normals (Chen et al., NeurIPS
2024, Theorems 3.2 and 3.3).
"""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from linalg_kernels import cholesky, powm
from spd_metrics import BuresWasserstein
from torch import Tensor

from rmlr.chunks import in_chunks

Points = Float[Tensor, "*#batch n n"]
Vectors = Float[Tensor, "*#batch n n"]


@runtime_checkable
class Geometry(Protocol):
    """What a classifier needs of a metric. Every metric of spd-metrics has it.

    A geometry of one's own gives these three; it may give `left_translate(P, A)` in place of
    `transport`, see `carried`.
    """

    def inner(self, P: Points, V: Vectors, W: Vectors, /) -> Float[Tensor, "*batch"]:
        """g_P(V, W)."""
        ...

    def log(self, P: Points, Q: Points, /) -> Float[Tensor, "*batch n n"]:
        """The velocity at P of the geodesic that is at Q at time 1."""
        ...


Carry = Callable[[Geometry, Points, Vectors], Vectors]
"""From a geometry, points P and tangent vectors A at the identity to tangent vectors at P."""


def parallel_transport(metric: Geometry, P: Points, A: Vectors) -> Vectors:
    """A carried from the identity to P along the geodesic of `metric`."""
    identity = torch.eye(P.shape[-1], dtype=P.dtype, device=P.device)
    return metric.transport(identity, P, A)  # ty: ignore[missing-attribute]


def cholesky_translation(metric: Geometry, P: Points, A: Vectors) -> Vectors:
    """A carried to P by the left translation of X ⊙ Y = L Y L^T, X = L L^T, X = P^2θ.

    For `BuresWasserstein`, whose transport has no closed form: (Dφ_P)^-1 [L (Dφ_I A) L^T] with
    φ(P) = P^2θ. It depends on the order of the variables, so that scores are not invariant
    under rotations (Chen et al., NeurIPS 2024, Theorem 4.2).
    """
    if not isinstance(metric, BuresWasserstein):
        raise TypeError(f"metric must be BuresWasserstein, got {type(metric).__name__}")
    L = cholesky(powm(P, 2 * metric.theta, nonpos="raise", name="P"))
    identity = torch.eye(P.shape[-1], dtype=P.dtype, device=P.device)
    moved = L @ metric.chart.at(identity).push(A) @ L.mT
    return metric.chart.at(P).pull((moved + moved.mT) / 2)


def carried(metric: Geometry, P: Points, A: Vectors) -> Vectors:
    """A carried to P as the geometry says.

    By its own `left_translate(P, A)` if it has one, by `cholesky_translation` for
    `BuresWasserstein`, else by `parallel_transport`.
    """
    own = getattr(metric, "left_translate", None)
    if own is not None:
        return own(P, A)
    if isinstance(metric, BuresWasserstein):
        return cholesky_translation(metric, P, A)
    return parallel_transport(metric, P, A)


def general_scores(
    metric: Geometry,
    S: Float[Tensor, "b n n"],
    P: Float[Tensor, "c n n"],
    A: Float[Tensor, "c n n"],
    *,
    carry: Carry = carried,
    memory: int | None = None,
) -> Float[Tensor, "b c"]:
    """⟨Log_P S, Ã⟩_P of every sample with every class: the definition of a score.

    `memory` (bytes) bounds what is held for pairs at once, see `rmlr.chunks`.
    """
    normals = carry(metric, P, A)

    def score(S: Tensor, P: Tensor, normals: Tensor) -> Tensor:
        return metric.inner(P, metric.log(P, S[:, None]), normals)

    return in_chunks(score, (S,), (P, normals), pair_matrices=24, memory=memory)
