"""RankFeat's removal from feature maps and tokens, RankWeight's removal from weights.

X' = X - s1 u1 v1^T with the leading singular triple of X. X' does not change when X is transposed,
so a map seen as channels x positions and a sequence seen as tokens x channels are one problem.
"""

import warnings
from collections.abc import Callable
from typing import Literal, get_args

import torch
from jaxtyping import Float
from linalg_kernels import remove_rank1, svd_topk
from linalg_kernels.errors import LinAlgError, can_read
from torch import Tensor

from rankfeat import krylov

Layout = Literal["auto", "nchw", "nhwc", "tokens"]
_DIMENSIONS = {"nchw": 4, "nhwc": 4, "tokens": 3}


def _named_layout(F: Tensor, layout: Layout) -> str:
    if layout not in get_args(Layout):
        raise ValueError(
            f"layout must be one of {', '.join(map(repr, get_args(Layout)))}, got {layout!r}"
        )
    named = {3: "tokens", 4: "nchw"}.get(F.ndim) if layout == "auto" else layout
    if named is None or F.ndim != _DIMENSIONS[named]:
        raise ValueError(
            "features must be (b, c, h, w) maps, (b, h, w, c) with layout 'nhwc' or (b, tokens, c)"
            f" sequences, got {tuple(F.shape)} with layout {layout!r}"
        )
    return named


def matrices(F: Float[Tensor, "b *feature"], layout: Layout = "auto") -> Float[Tensor, "b m n"]:
    """The matrix of each sample: channels x positions of a map, tokens x channels of a sequence."""
    return F.flatten(2) if _named_layout(F, layout) == "nchw" else F.flatten(1, -2)


def remove_feature(
    F: Float[Tensor, "b *feature"],
    layout: Layout = "auto",
    *,
    iters: int = 20,
    tol: float | None = None,
    check: bool = True,
) -> Float[Tensor, "b *feature"]:
    """F without the leading rank-one part of each sample's matrix: X - s1 u1 v1^T (RankFeat).

    The matrix of a map is channels x positions, that of a sequence tokens x channels, with every
    token in it, the class token too. Nothing is rectified afterwards: what is left of a
    non-negative map is signed. float16 and bfloat16 are computed in float32. A sample of one
    position or one channel has rank one: zeros are returned for it, with a warning.

    Args:
        F: Features, batch first; any memory format.
        layout: "nchw", "nhwc" or "tokens"; "auto" takes four dimensions for "nchw" and three for
            "tokens" (for which channels before positions is the same).
        iters: Steps in traced graphs, where none can be checked, and most steps of
            `linalg_kernels.remove_rank1`, which takes over where products with X did not converge.
        tol: Stop where ‖X^T X v - s² v‖ <= tol s²; by default at a few roundings. A
            `ConvergenceWarning` says where a tol that was given is not met.
        check: Raise `LinAlgError` naming the first sample that holds NaN or Inf. Without it
            that sample comes out as NaN and the others right.

    Raises:
        TypeError: F is not floating point.
        ValueError: F has other dimensions than `layout` says.

    Source: Song, Sebe and Wang, RankFeat (NeurIPS 2022), arXiv 2209.08590.
    """
    if not F.is_floating_point():
        raise TypeError(f"features must be floating point, got {F.dtype}")
    X = matrices(F, layout)
    if 1 in X.shape[1:]:
        if not torch.compiler.is_compiling():
            warnings.warn(
                f"features {tuple(F.shape)} have one position or one channel: each sample has rank"
                " one and nothing is left of it",
                stacklevel=2,
            )
        # Zeros where F is finite, NaN where it is not.
        return F - F
    half = X.dtype in (torch.float16, torch.bfloat16)
    left = _remove(X.float() if half else X, iters, tol, check)
    return left.to(F.dtype).reshape(F.shape)


def _remove(X: Tensor, iters: int, tol: float | None, check: bool) -> Tensor:
    if iters < 1:
        raise ValueError(f"iters must be >= 1, got {iters}")
    if tol is not None and not tol > 0:
        raise ValueError(f"tol must be > 0, got {tol}")
    if not can_read(X):
        # By products alone: the factorisations of linalg_kernels have no ONNX form.
        return X - (X - krylov.traced(X.detach(), iters)).detach()
    if X.numel() == 0:
        return X.clone()
    with torch.no_grad():
        left = krylov.removed(X.detach(), tol)
    if left is not None:
        # The component that was removed is a constant to autograd.
        return X - (X - left).detach() if X.requires_grad else left
    if check:
        finite = torch.isfinite(X.detach()).flatten(1).all(1)
        if not bool(finite.all()):
            sample = int((~finite).nonzero()[0])
            raise LinAlgError(f"features[{sample}] contains NaN or Inf")
    return remove_rank1(X, iters, tol, check=False)


def remove_weight(W: Float[Tensor, "out *rest"], groups: int = 1) -> Float[Tensor, "out *rest"]:
    """W without the leading rank-one part of its matrix: W - s1 u1 v1^T (RankWeight).

    The matrix of a linear layer is out x in, that of a convolution out x (in kh kw), one for each
    of `groups`. It is decomposed exactly, in double precision: weights have flat spectra, on which
    the 100 power steps of the official code are several per cent off.

    Raises:
        TypeError: W is not floating point.
        ValueError: W is not a matrix or a convolution's weight, or `groups` does not divide its
            output channels.
        LinAlgError: W contains NaN or Inf.

    Source: Song, Sebe and Wang, RankFeat & RankWeight (TPAMI 2024), arXiv 2311.13959.
    """
    if not W.is_floating_point():
        raise TypeError(f"weight must be floating point, got {W.dtype}")
    if W.ndim < 2 or 0 in W.shape:
        raise ValueError(f"weight must be (out, in, ...) and not empty, got {tuple(W.shape)}")
    if groups < 1 or W.shape[0] % groups:
        raise ValueError(f"groups must divide the {W.shape[0]} output channels, got {groups}")
    X = W.detach().double().reshape(groups, W.shape[0] // groups, -1)
    if not bool(torch.isfinite(X).all()):
        raise LinAlgError("weight contains NaN or Inf")
    U, S, V = svd_topk(X, 1, "exact", check=False)
    return (X - U * S[..., None, :] @ V.mH).reshape(W.shape).to(W.dtype)


def standardize(W: Float[Tensor, "out *rest"], eps: float = 1e-10) -> Float[Tensor, "out *rest"]:
    """Weight standardisation of BiT: (W - mean) / sqrt(var + eps) of each output filter.

    The mean and the biased variance are over all entries of a filter.

    Source: Qiao et al., Weight Standardization, arXiv 1903.10520; eps as in BiT.
    """
    rest = tuple(range(1, W.ndim))
    variance, mean = torch.var_mean(W, dim=rest, keepdim=True, correction=0)
    return (W - mean) / torch.sqrt(variance + eps)


def remove_effective_weight(
    W: Float[Tensor, "out *rest"],
    effective: Callable[[Tensor], Tensor] = standardize,
    groups: int = 1,
) -> tuple[Float[Tensor, "out *rest"], Float[Tensor, " out"]]:
    """(V, g) with g effective(V) = E - s1 u1 v1^T, where E = effective(W) is what the layer uses.

    For layers that standardise their weight when they run. The rows of a standardised E have mean
    zero, so 1 is in its null space and the rows of what is left have mean zero too; their norms
    are shorter, which standardising V = E - s1 u1 v1^T undoes and the gain g of each output
    filter restores.

    Raises:
        ValueError: `effective` does more to V than to scale its filters, so that no g exists.
        And as `remove_weight`.
    """
    V = remove_weight(effective(W.detach()), groups)
    rows, again = V.double().flatten(1), effective(V).double().flatten(1)
    size = again.square().sum(1)
    gain = (rows * again).sum(1) / torch.where(size > 0, size, 1)
    error = torch.linalg.vector_norm(rows - gain[:, None] * again)
    # Standardising subtracts a mean that is zero but for rounding, on entries of another size.
    allowed = torch.finfo(W.dtype).eps ** 0.5 * torch.linalg.vector_norm(rows)
    if not bool(error <= allowed):
        raise ValueError(
            "effective must scale the filters of a weight whose filters have mean zero, but "
            f"changes them by {float(error / torch.linalg.vector_norm(rows)):.2g} of their norm"
        )
    return V, gain.to(W.dtype)
