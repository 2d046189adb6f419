"""Distances of pairs of matrices: of their Cholesky factors, and of pencils."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from linalg_kernels.backends.native import library

# --- distances of Cholesky factors ----------------------------------------------------------


class CholeskyDistance(NamedTuple):
    """‖R‖_F with R = ⌊K - L⌋ + diag weight (h(k) - h(l)) of P = L L^T and Q = K K^T.

    h(x) = (x^a - 1)/a, log x for a = 0. L and K are None unless asked for.
    """

    value: Float[Tensor, "*batch"]
    L: Float[Tensor, "*batch n n"] | None
    K: Float[Tensor, "*batch n n"] | None
    found: int


def cholesky_distance(
    P: Float[Tensor, "*batch n n"],
    Q: Float[Tensor, "*batch n n"],
    a: float,
    weight: Float[Tensor, " n"],
    *,
    factors: bool = True,
    tolerance: float = math.inf,
) -> CholeskyDistance:
    """The distance, and the Cholesky factors that its gradient needs."""
    P, Q, weight = P.contiguous(), Q.contiguous(), weight.contiguous()
    value = torch.empty(P.shape[:-2], dtype=P.dtype)
    L = torch.empty_like(P) if factors else None
    K = torch.empty_like(P) if factors else None
    if P.numel() == 0:
        return CholeskyDistance(value.zero_(), L, K, 0)
    found = library.run(
        "lk_cholesky_distance",
        P,
        *(P.data_ptr(), Q.data_ptr(), a, weight.data_ptr(), value.data_ptr()),
        *(library.address(L), library.address(K), tolerance),
    )
    return CholeskyDistance(value, L, K, found)


def cholesky_distance_vjp(
    of: tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch n n"], Float[Tensor, "*batch n n"]],
    g: Float[Tensor, "*batch"],
    a: float,
    weight: Float[Tensor, " n"],
    *,
    wanted: tuple[bool, bool] = (True, True),
) -> tuple[Float[Tensor, "*batch n n"] | None, Float[Tensor, "*batch n n"] | None]:
    """Gradients with respect to P and Q of a loss with gradient g in the distance; 0 at 0.

    `of` are value, L and K of `cholesky_distance`.
    """
    value, L, K = of
    g = g.contiguous()
    gP = torch.empty_like(L) if wanted[0] else None
    gQ = torch.empty_like(L) if wanted[1] else None
    if L.numel():
        pointers = (T.data_ptr() for T in (weight, value, L, K, g))
        library.run(
            "lk_cholesky_distance_adjoint",
            L,
            a,
            *pointers,
            library.address(gP),
            library.address(gQ),
        )
    return gP, gQ


# --- pencils --------------------------------------------------------------------------------


class Pencil(NamedTuple):
    """What is known of the pencils (Q, P), Q u = w P u with u^T P u = 1.

    Attributes:
        value: α Σ (log w)² + β (Σ log w)², or its square root.
        packed: The u and log w, exactly 0 where P and Q are equal, as `pencil_vjp` takes them.
        found: What was found in P or Q; such elements are NaN.
    """

    value: Float[Tensor, "*batch"]
    packed: Float[Tensor, "blocks size lanes"] | None
    found: int


def pencil(
    P: Float[Tensor, "*#batch n n"],
    Q: Float[Tensor, "*#batch n n"],
    *,
    alpha: float = 1.0,
    beta: float = 0.0,
    root: bool = False,
    vectors: bool = True,
    tolerance: float = math.inf,
) -> Pencil:
    """Sums over the logarithms of the eigenvalues of P^-1 Q; of `value` the root with `root`.

    Requires alpha > 0 and alpha + n beta > 0. Without `vectors` only `value` is computed.
    """
    n = P.shape[-1]
    if P.shape == Q.shape:
        batch = P.shape[:-2]
        P, Q, repeat = P.contiguous(), Q.contiguous(), 1
        size = count = P.numel() // (n * n)
    else:
        batch = torch.broadcast_shapes(P.shape[:-2], Q.shape[:-2])
        size = math.prod(batch)
        P, repeat = library.repeats(P, tuple(batch))
        Q, count = library.cycles(Q, tuple(batch))
    value = P.new_empty(batch)
    packed = library.new_packed(P, size, n) if vectors else None
    if size == 0:
        return Pencil(value, packed, 0)
    found = library.call(
        *("lk_pencil", P.dtype, size, n),
        *(P.data_ptr(), repeat, Q.data_ptr(), count, alpha, beta, root),
        *(value.data_ptr(), library.address(packed), tolerance),
    )
    return Pencil(value, packed, found)


def pencil_vjp(
    packed: Float[Tensor, "blocks size lanes"],
    g: Float[Tensor, "*batch"],
    n: int,
    alpha: float = 1.0,
    beta: float = 0.0,
    root: bool = False,
    wanted: tuple[bool, bool] = (True, True),
) -> tuple[Float[Tensor, "*batch n n"] | None, Float[Tensor, "*batch n n"] | None]:
    """Gradients with respect to P and Q of a loss with gradient g in `value`; 0 at a root 0.

    `packed` is of `pencil` of matrices of order n.
    """
    g = g.contiguous()
    shape = (*g.shape, n, n)
    gP = g.new_empty(shape) if wanted[0] else None
    gQ = g.new_empty(shape) if wanted[1] else None
    if size := g.numel():
        library.call(
            *("lk_pencil_adjoint", g.dtype, size, n, alpha, beta, root),
            *(packed.data_ptr(), g.data_ptr(), library.address(gP), library.address(gQ)),
        )
    return gP, gQ
