"""Inner products with matrices given by the numbers of their lower triangles."""

import torch
from jaxtyping import Float
from torch import Tensor

from linalg_kernels.backends.native import library


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
    x = X.new_empty((b, -(-w.shape[-1] // 16) * 16))
    library.call(
        *("lk_inner_products", X.dtype, b, n, c, not lower, X.data_ptr(), w.data_ptr()),
        *(library.address(minus), scores.data_ptr(), x.data_ptr()),
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
        *(x.data_ptr(), w.data_ptr(), G.data_ptr()),
        *(library.address(gX), library.address(gw), library.address(gminus)),
    )
    return gX, gw, gminus


def factor_trace(
    z: Float[Tensor, "c m"], w: Float[Tensor, "c m"], n: int, derivatives: bool = True
) -> tuple[Float[Tensor, " c"], Float[Tensor, "c m"] | None, Float[Tensor, "c m"] | None]:
    """tr(W L L^T) and its derivatives for z and w.

    W is symmetric and L lower triangular but for exp on its diagonal, of the numbers w and z.
    """
    z, w = z.contiguous(), w.contiguous()
    value = z.new_empty(len(z))
    of_z, of_w = (torch.empty_like(z) if derivatives else None for _ in range(2))
    library.call(
        *("lk_factor_trace", z.dtype, len(z), n, z.data_ptr(), w.data_ptr(), value.data_ptr()),
        *(library.address(of_z), library.address(of_w)),
    )
    return value, of_z, of_w
