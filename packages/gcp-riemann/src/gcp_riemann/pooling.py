"""Covariance of feature maps over their positions: second-order (global covariance) pooling.

Σ = X Ī Xᵀ with Ī = (1/M)(I - (1/M) 11ᵀ), of M positions. Nothing of size M x M is formed: the
mean is taken off and products are added up over pieces of the positions, in float32 also where
the maps are float16 or bfloat16. The rank of Σ is at most min(C, M - 1).
"""

import torch
from jaxtyping import Float
from linalg_kernels import errors
from linalg_kernels.transforms import inspect
from torch import Tensor, nn

from gcp_riemann import inputs

PIECE = 1 << 22
"""Entries of the maps that are centred, and held in float32, at once."""


def _pieces(X: Tensor) -> list[slice]:
    """Ranges of positions of X (b, C, M), each of about `PIECE` entries."""
    b, channels, positions = X.shape
    step = max(1, PIECE // max(1, b * channels))
    return [slice(start, start + step) for start in range(0, positions, step)]


def _mean(X: Tensor) -> Tensor:
    """Mean over positions, added up in float32 if X is of half precision."""
    return X.mean(-1, keepdim=True, dtype=inputs.widened(X[..., :0]).dtype)


class _Covariance(torch.autograd.Function):
    """X (b, C, M) -> Σ. Only X itself, in its own dtype, is kept for the derivative."""

    @staticmethod
    def forward(ctx, X):
        ctx.save_for_backward(X)
        mean = _mean(X)
        Sigma = mean.new_zeros(X.shape[0], X.shape[1], X.shape[1])
        for piece in _pieces(X):
            centred = X[..., piece] - mean
            Sigma = Sigma.baddbmm_(centred, centred.mT)
        return Sigma / X.shape[-1]

    @staticmethod
    def backward(ctx, G):
        # ∂X = (G + Gᵀ) (X - mean) / M. Differentiable, as X and G are all that it is made of.
        (X,) = ctx.saved_tensors
        with inputs.full_precision(X.device):
            S = (G + G.mT) / X.shape[-1]
            mean = _mean(X)
            parts = [(S @ (X[..., piece] - mean)).to(X.dtype) for piece in _pieces(X)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)


def covariance_pooling(
    X: Float[Tensor, "*batch c m"], *, check: bool = True
) -> Float[Tensor, "*batch c c"]:
    """Σ = (X - mean)(X - mean)ᵀ / M of maps X (..., C, M), M >= 1 positions.

    float32 for maps of half precision, else in the dtype of X, and inside autocast as outside.
    One position gives zero. With `check`, NaN or Inf raises LinAlgError naming the element.

    Equivalent to `numpy.cov(X, bias=True)`. ∂X = (G + Gᵀ)(X - mean)/M for the gradient G of Σ.
    """
    if not isinstance(X, Tensor):
        raise TypeError(f"X must be a torch.Tensor, got {type(X).__name__}")
    if X.dtype not in (*inputs.HALF, torch.float32, torch.float64):
        raise TypeError(f"X must be of a real floating-point dtype, got {X.dtype}")
    if X.ndim < 2 or X.shape[-1] < 1:
        raise ValueError(f"X must be (..., channels, positions >= 1), got {tuple(X.shape)}")
    if check:
        X = inspect(X, lambda T: errors.check_finite(T, "X"))
    with inputs.full_precision(X.device):
        if inputs.traced():
            centred = X - _mean(X)
            return centred @ centred.mT / X.shape[-1]
        return _Covariance.apply(X.reshape(-1, *X.shape[-2:])).reshape(*X.shape[:-1], X.shape[-2])


def stacked(maps: tuple[Tensor, ...]) -> Float[Tensor, "batch c h w"]:
    """Maps (batch, C_i, h_i, w_i) as one with Σ C_i channels, averaged to the smallest grid."""
    shapes = [tuple(X.shape) for X in maps]
    if not maps or any(X.ndim != 4 for X in maps) or len({shape[0] for shape in shapes}) != 1:
        raise ValueError(f"maps must be (batch, C, h, w) with one batch size, got {shapes}")
    if len(maps) == 1:
        return maps[0]
    grid = (min(X.shape[-2] for X in maps), min(X.shape[-1] for X in maps))
    return torch.cat([nn.functional.adaptive_avg_pool2d(X, grid) for X in maps], 1)


class CovariancePooling(nn.Module):
    """Covariance (batch, C, C) of feature maps (batch, C, h, w) over their positions.

    Several maps are pooled together: averaged to the smallest grid among them and stacked
    along their channels, so that Σ has their covariances with one another too.

    Args:
        check: Raise LinAlgError naming the image whose map holds NaN or Inf.

    Source: Li et al., ICCV 2017 (MPN-COV); official code MPNCOV.py of RiemGCP, whose M x M
    centring matrix, rounded to float32 even for float64 maps, is not formed here.
    """

    def __init__(self, *, check: bool = True) -> None:
        super().__init__()
        self.check = check

    def forward(self, *maps: Float[Tensor, "batch _ _ _"]) -> Float[Tensor, "batch c c"]:
        """Σ of the maps; see `covariance_pooling`. Raises ValueError for other shapes."""
        return covariance_pooling(stacked(maps).flatten(-2), check=self.check)

    def extra_repr(self) -> str:
        """Options."""
        return f"check={self.check}"
