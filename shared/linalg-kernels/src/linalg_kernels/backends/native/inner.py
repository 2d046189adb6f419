"""Inner products with matrices given by the numbers of their lower triangles."""

import torch
from jaxtyping import Float
from torch import Tensor

from linalg_kernels.backends.native import library


def _row(w: Tensor) -> int:
    """Numbers that the adjoint needs of a sample."""
    return -(-w.shape[-1] // 16) * 16


def inner_products(
    X: Float[Tensor, "b n n"],
    w: Float[Tensor, "c m"],
    minus: Float[Tensor, " c"] | None = None,
    lower: bool = False,
) -> tuple[Float[Tensor, "b c"], Float[Tensor, "b k"]]:
    """⟨X_i, W_k⟩ - minus_k, and what `inner_products_vjp` needs. Nothing is empty.

    W_k is symmetric, or with `lower` lower triangular; w_k are its numbers, row by row.
    """
    X, w = X.contiguous(), w.contiguous()
    minus = None if minus is None else minus.contiguous()
    b, n, c = X.shape[0], X.shape[-1], len(w)
    scores = X.new_empty((b, c))
    x = X.new_empty((b, _row(w)))
    library.call(
        *("lk_inner_products", X.dtype, b, n, c, not lower, X.data_ptr(), w.data_ptr()),
        *(library.address(minus), None, scores.data_ptr(), x.data_ptr(), None, None),
    )
    return scores, x


def inner_products_vjp(
    x: Float[Tensor, "b k"],
    w: Float[Tensor, "c m"],
    G: Float[Tensor, "b c"],
    n: int,
    lower: bool = False,
    wanted: tuple[bool, bool, bool] = (True, True, True),
) -> tuple[Float[Tensor, "b n n"] | None, Float[Tensor, "c m"] | None, Float[Tensor, " c"] | None]:
    """Gradients with respect to X, w and `minus` of a loss with gradient G in the products."""
    w, G = w.contiguous(), G.contiguous()
    gX = x.new_empty((len(x), n, n)) if wanted[0] else None
    gw = torch.empty_like(w) if wanted[1] else None
    gminus = w.new_empty(len(w)) if wanted[2] else None
    library.call(
        *("lk_inner_products_adjoint", x.dtype, len(x), n, len(w), not lower),
        *(x.data_ptr(), w.data_ptr(), None, None, G.data_ptr()),
        *(library.address(gX), library.address(gw), library.address(gminus), None),
    )
    return gX, gw, gminus


def inner_products_at(
    X: Float[Tensor, "b n n"],
    w: Float[Tensor, "c m"],
    z: Float[Tensor, "c m"],
    derivatives: bool = True,
) -> tuple[Float[Tensor, "b c"], Float[Tensor, " k"]]:
    """⟨X_i - L_k L_k^T, W_k⟩, and with `derivatives` what `inner_products_at_vjp` needs.

    W is symmetric and L lower triangular but for exp on its diagonal, of the numbers w and z.
    """
    X, w, z = X.contiguous(), w.contiguous(), z.contiguous()
    b, n, c = X.shape[0], X.shape[-1], len(w)
    scores = X.new_empty((b, c))
    # One tensor, which autograd keeps for less than three.
    kept = X.new_empty(b * _row(w) + (2 * w.numel() if derivatives else 0))
    x, of_z, of_w = _kept(kept, b, w)
    library.call(
        *("lk_inner_products", X.dtype, b, n, c, True, X.data_ptr(), w.data_ptr(), None),
        *(z.data_ptr(), scores.data_ptr(), x),
        *((of_z, of_w) if derivatives else (None, None)),
    )
    return scores, kept


def _kept(kept: Tensor, b: int, w: Tensor) -> tuple[int, int, int]:
    """Where numbers of b samples lie in `kept`, and the derivatives for z and w."""
    x, size = kept.data_ptr(), kept.element_size()
    of_z = x + b * _row(w) * size
    return x, of_z, of_z + w.numel() * size


def inner_products_at_vjp(
    kept: Float[Tensor, " k"],
    w: Float[Tensor, "c m"],
    G: Float[Tensor, "b c"],
    n: int,
    wanted: tuple[bool, bool, bool] = (True, True, True),
) -> tuple[Float[Tensor, "b n n"] | None, Float[Tensor, "c m"] | None, Float[Tensor, "c m"] | None]:
    """Gradients with respect to X, w and z of a loss with gradient G in the products."""
    w, G = w.contiguous(), G.contiguous()
    b = len(G)
    gX = w.new_empty((b, n, n)) if wanted[0] else None
    gw, gz = (torch.empty_like(w) if want else None for want in wanted[1:])
    x, of_z, of_w = _kept(kept, b, w)
    library.call(
        *("lk_inner_products_adjoint", w.dtype, b, n, len(w), True, x, w.data_ptr()),
        *(of_z, of_w, G.data_ptr(), library.address(gX), library.address(gw), None),
        library.address(gz),
    )
    return gX, gw, gz
