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

_OVERSAMPLE = 16
_STEPS = 12
_SETTLED = 0.02
"""Of the squared error, so that the error itself is within a per cent of what more steps give."""
_ROUNDING = 1e-6
"""Share of the energy that float32 sums do not resolve."""


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
        sigma: Singular values (r), descending.
        output: The output root R (m, m), or None for the plain Euclidean metric.
        energy: ‖R^T W S‖², the sum of the squares of all singular values, known or not.
    """

    U: Tensor
    sigma: Tensor
    output: Tensor | None
    energy: float

    def loss(self, rank: int) -> float:
        """Σ_{i > rank} sigma_i², the squared truncation error in the metric."""
        squares = self.sigma.double().square()
        return float(squares[rank:].sum()) + max(self.energy - float(squares.sum()), 0.0)


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
            until the truncation error is settled (`_block_power`), and "auto" does so where
            rank is below a quarter of the smaller side.

    Raises ValueError for a rank outside [0, min(m, p)].
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
    energy, unit = _square(D), D.new_ones(())
    edge = torch.finfo(dtype).max ** 0.5
    if not 1 / edge < energy < edge:
        # Squares are near overflow or lost: in units of the largest entry they are not.
        unit = _largest(D)
        D = D / unit
        energy = _square(D)
    sketch = decomposition == "randomized" or (decomposition == "auto" and 4 * rank < small)
    found = _block_power(D, rank, energy) if sketch and 0 < rank < small else None
    if found is None:
        U, sigma, _ = svd_topk(D, rank, "exact")
        if rank == small:
            energy = float(sigma.double().square().sum())
    else:
        U, sigma = found
    return Spectrum(U, sigma * unit, R, energy * float(unit) ** 2)


def _block_power(D: Tensor, rank: int, energy: float) -> tuple[Tensor, Tensor] | None:
    """The leading left vectors and singular values of D, by powers of a random block.

    An orthonormal block V of rank + `_OVERSAMPLE` columns is multiplied by D^T D - α I (Halko,
    Martinsson and Tropp 2011, algorithm 4.4, with the shifts of Feng et al., arXiv:2404.09276).
    Half of the least eigenvalue that V sees is a safe α, and it nearly doubles the rate on flat
    spectra: what lies below that eigenvalue stays within ±α. What a step takes off the error
    ‖D - D V V^T‖² falls about geometrically; it ends when what all further steps would take off,
    by that progression, is at most `_SETTLED` of the error, or when the error is lost in rounding.
    None where `_STEPS` do not suffice, or where the block is half as wide as D: decompose it whole.
    """
    m, n = D.shape
    width = rank + _OVERSAMPLE
    if 2 * width > min(m, n):
        return None
    generator = torch.Generator(D.device).manual_seed(0)
    # Uniform numbers serve as well as normal ones and are drawn faster.
    block = torch.rand(n, width, dtype=D.dtype, device=D.device, generator=generator).sub_(0.5)
    block = _orthonormal(D.mT @ (D @ block))
    errors: list[float] = []
    for _ in range(_STEPS):
        image = D @ block
        errors.append(energy - _square(image))
        if _remaining(errors) <= _SETTLED * errors[-1] or errors[-1] <= _ROUNDING * energy:
            Q, R = torch.linalg.qr(image)
            U, sigma, _ = torch.linalg.svd(R)
            return Q @ U[:, :rank], sigma[:rank]
        shift = max(0.0, float(torch.linalg.eigvalsh(image.mT @ image)[0]) / 2)
        block = _orthonormal(torch.addmm(block, D.mT, image, beta=-shift))
    return None


def _remaining(errors: list[float]) -> float:
    """What further steps would take off the last error, if they fall as the last two did."""
    if len(errors) < 3:
        return math.inf
    before, last = errors[-3] - errors[-2], errors[-2] - errors[-1]
    return last * last / (before - last) if 0 <= last < before else math.inf


def _orthonormal(X: Tensor) -> Tensor:
    """A basis of the columns of X, in their order, by Cholesky; by QR where some nearly depend.

    Cholesky does not mind how the columns are scaled, and so only their angles are looked at: the
    basis is orthonormal to some hundred roundings.
    """
    G = X.mT @ X
    L, info = torch.linalg.cholesky_ex(G)
    if int(info) or bool((L.diagonal().square() < 0.0025 * G.diagonal()).any()):
        return torch.linalg.qr(X).Q
    return torch.linalg.solve_triangular(L, X.mT, upper=False).mT


def _largest(X: Tensor) -> Tensor:
    """The largest absolute entry, 1 where there is none."""
    largest = X.abs().amax() if X.numel() else X.new_zeros(())
    return torch.where(largest > 0, largest, torch.ones_like(largest))


def _square(X: Tensor) -> float:
    """‖X‖²; rows, of like entries, are summed in X's dtype, their sums in float64."""
    return float(X.square().sum(1).double().sum())


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


def correction(
    cross: Float[Tensor, "n n"],
    gram: Float[Tensor, "n n"],
    ridge: float,
) -> Float[Tensor, "n n"]:
    """K with W K the weight that gives a layer's dense outputs on the inputs that it sees now.

    W K = argmin_M ‖W X - M X'‖² + λ ‖(W - M) D^1/2‖², K = (C + λ D) (G' + λ D)^-1 with
    C = X X'^T, G' = X' X'^T and D = diag(G'): a rescaling of channels changes nothing. Layers
    that read the same input share K.

    Args:
        cross: C (n, n), inputs X of the dense model against X' of the compressed one.
        gram: G' (n, n).
        ridge: λ > 0, how strongly the weight stays where it was; it keeps a few calibration
            tokens from deciding directions that they hardly reach.
    """
    if not (ridge > 0 and math.isfinite(ridge)):
        raise ValueError(f"ridge must be > 0 and finite, got {ridge}")
    size = gram.diagonal()
    if not bool((size > 0).any()):
        return torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    # A channel that saw nothing but zeros counts like the weakest that did.
    D = torch.diag(ridge * torch.where(size > 0, size, size[size > 0].amin()))
    scale = D.diagonal().rsqrt()
    L = torch.linalg.cholesky(scale[:, None] * ((gram + gram.mT) / 2 + D) * scale)
    right = (scale[:, None] * (cross + D).mT).contiguous()
    return (scale[:, None] * torch.cholesky_solve(right, L)).mT
