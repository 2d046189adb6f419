"""One layer: which subspace of its outputs to keep, and the two factors.

Every method of this package keeps W_k = P W with a projection P of rank k in the output space;
they differ in the metric in which the projection is best. No transform of the inputs is ever
inverted (asvd §3, §9).
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from linalg_kernels import svd_topk
from torch import Tensor

Decomposition = Literal["auto", "exact", "randomized"]
Fuse = Literal["UV", "U", "V", "balanced"]

_RIDGES = (0.0, 1e-14, 1e-12, 1e-10, 1e-8, 1e-7, 1e-6, 1e-5)
"""Tried in turn, relative to each channel: the least that makes a Cholesky factor exist. A moment
summed from float32 products is indefinite by their rounding when it is nearly singular."""


def rank_for_ratio(m: int, n: int, ratio: float, align: int = 1) -> int:
    """The rank that keeps `ratio` of the m n parameters: ⌊⌊m n ratio⌋ / (m + n)⌋, aligned up.

    At most min(m, n). A rank k costs k (m + n) parameters, which beyond m n / (m + n) is more
    than the dense layer: `pays` says whether it is worth it.
    Raises ValueError unless ratio > 0 and align >= 1.
    """
    if not ratio > 0:
        raise ValueError(f"ratio must be > 0, got {ratio}")
    if align < 1:
        raise ValueError(f"align must be >= 1, got {align}")
    rank = int(m * n * ratio) // (m + n)
    return min(-(-rank // align) * align, m, n)


def pays(m: int, n: int, rank: int) -> bool:
    """Whether rank k takes fewer parameters than the dense (m, n) matrix."""
    return rank * (m + n) < m * n


def root(G: Float[Tensor, "n n"], ridge: float = 0.0) -> Float[Tensor, "n n"]:
    """A lower triangular L with L L^T = G + λ diag(G), of a second moment G.

    λ is `ridge`, or the least of a few up to 1e-5 that rounding and singular moments need. It is
    relative to each channel, so that a rescaling of channels rescales L and changes nothing else;
    a channel that never saw anything but zeros counts like the weakest that did. Where G = 0
    nothing is known, and L is the identity. Raises ValueError for a G that is not positive
    semidefinite.
    """
    G = (G + G.mT) / 2
    size = G.diagonal().clamp_min(0).sqrt()
    alive = size > 0
    if not bool(alive.any()):
        return torch.eye(len(G), dtype=G.dtype, device=G.device)
    size = torch.where(alive, size, size[alive].amin())
    scaled = G / (size[:, None] * size)
    eye = torch.eye(len(G), dtype=G.dtype, device=G.device)
    for more in _RIDGES:
        L, info = torch.linalg.cholesky_ex(scaled + max(ridge, more) * eye)
        if int(info) == 0:
            return size[:, None] * L
    raise ValueError(
        "the second moment must be positive semidefinite, its Cholesky factor fails with a ridge "
        f"of {max(ridge, _RIDGES[-1]):g} of its diagonal"
    )


@dataclass(frozen=True)
class Spectrum:
    """A weight in its metric: W seen through output and input roots, decomposed once.

    Attributes:
        U: Left singular vectors (m, r) of R^T W S, in the metric's coordinates.
        sigma: Singular values (r), descending. Truncation at rank k loses Σ_{i>k} sigma_i².
        output: The output root R (m, m), or None for the plain Euclidean metric.
    """

    U: Tensor
    sigma: Tensor
    output: Tensor | None

    def loss(self, rank: int) -> float:
        """Σ_{i > rank} sigma_i², the squared truncation error in the metric."""
        return float(self.sigma[rank:].double().square().sum())


def spectrum(
    W: Float[Tensor, "m n"],
    inputs: Tensor | None = None,
    outputs: Float[Tensor, "m m"] | None = None,
    rank: int | None = None,
    decomposition: Decomposition = "auto",
) -> Spectrum:
    """The singular values and left vectors of R^T W S.

    Args:
        W: Weight, computed in float32 or its own float64.
        inputs: S, a factor of the input moment X X^T = S S^T (n, p), or its diagonal (n).
        outputs: R, a lower triangular factor of the output metric R R^T.
        rank: How many triples are needed; all if None.
        decomposition: "exact" is the full decomposition; "randomized" iterates a random block
            until singular values are settled to 1e-3, and "auto" does so where rank is below a
            quarter of the smaller side.
    """
    dtype = W.dtype if W.dtype == torch.float64 else torch.float32
    D = W.to(dtype)
    if inputs is not None:
        S = inputs.to(dtype)
        D = D * S if S.ndim == 1 else D @ S
    R = None if outputs is None else outputs.to(dtype)
    if R is not None:
        D = R.mT @ D
    small = min(D.shape)
    if rank is None:
        rank = small
    if not 0 <= rank <= small:
        raise ValueError(f"rank must lie in [0, {small}] for W {tuple(W.shape)}, got {rank}")
    if decomposition not in ("auto", "exact", "randomized"):
        raise ValueError(
            f"decomposition must be 'auto', 'exact' or 'randomized', got {decomposition!r}"
        )
    sketch = decomposition == "randomized" or (decomposition == "auto" and 4 * rank < small)
    U, sigma, _ = svd_topk(D, rank, "randomized" if sketch and rank < small else "exact")
    return Spectrum(U, sigma, R)


def factors(
    W: Float[Tensor, "m n"],
    subspace: Spectrum,
    rank: int,
    fuse: Fuse = "balanced",
) -> tuple[Float[Tensor, "m k"], Float[Tensor, "k n"]]:
    """A (m, k), B (k, n) with A B = P W, P the projection on the subspace's first k directions.

    In the metric R it is A B = R^{-T} U_k U_k^T R^T W, which for R = I is U_k U_k^T W.

    Args:
        fuse: Where the scale goes; the product is the same. "balanced" gives the columns of A
            and the rows of B equal norms; "UV", "U" and "V" are the paper's, by the singular
            values of the scaled weight.
    """
    U, R = subspace.U[:, :rank], subspace.output
    W = W.to(U.dtype)
    if R is None:
        A, B = U, U.mT @ W
    else:
        B = U.mT @ (R.mT @ W)
        A = torch.linalg.solve_triangular(R.mT, U, upper=True)
    if fuse == "balanced":
        left, right = A.norm(dim=0), B.norm(dim=1)
        weight = (right / left.clamp_min(torch.finfo(left.dtype).tiny)).sqrt()
    elif fuse in ("UV", "U", "V"):
        sigma = subspace.sigma[:rank]
        weight = sigma ** {"UV": 0.5, "U": 1.0, "V": 0.0}[fuse]
    else:
        raise ValueError(f"fuse must be 'balanced', 'UV', 'U' or 'V', got {fuse!r}")
    # A direction without weight adds nothing to the product, whatever it is scaled by.
    weight = torch.where(weight > 0, weight, torch.ones_like(weight))
    return A * weight, B / weight[:, None]


def updated(
    W: Float[Tensor, "m n"],
    cross: Float[Tensor, "n n"],
    gram: Float[Tensor, "n n"],
    ridge: float,
) -> Float[Tensor, "m n"]:
    """The weight that gives the dense layer's outputs on the inputs that it sees now.

    M = argmin ‖W X - M X'‖² + λ ‖W - M‖² = (W C + λ W) (G' + λ I)^-1 with C = X X'^T,
    G' = X' X'^T and λ = ridge · tr(G') / n.

    Args:
        cross: C (n, n), inputs X of the dense model against X' of the compressed one.
        gram: G' (n, n).
        ridge: Relative weight of staying at W, > 0; it keeps a few calibration tokens from
            deciding directions that they hardly reach.
    """
    if not (ridge > 0 and math.isfinite(ridge)):
        raise ValueError(f"ridge must be > 0 and finite, got {ridge}")
    n = len(gram)
    shift = ridge * gram.diagonal().sum() / n
    if float(shift) == 0:
        return W
    eye = torch.eye(n, dtype=gram.dtype, device=gram.device)
    right = W.to(gram.dtype) @ (cross + shift * eye)
    L = torch.linalg.cholesky((gram + gram.mT) / 2 + shift * eye)
    return torch.cholesky_solve(right.mT, L).mT
