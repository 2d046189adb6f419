"""Eigensystems of congruent matrices S = W X W^T, and K f(S) K^T with its adjoint."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from linalg_kernels.backends.native import library
from linalg_kernels.backends.native.eigensystems import IDENTITY, Function


def congruence_packed(
    W: Float[Tensor, "..."] | None,
    X: Float[Tensor, "*batch n n"],
    tolerance: float = math.inf,
    *,
    inverse: bool = False,
    positive: bool = False,
) -> tuple[Float[Tensor, "*batch n"], Float[Tensor, "blocks size lanes"], int]:
    """w in no order, V and w packed, and what was found, of W X W^T, or with `inverse` W^-1 X W^-T.

    X is not empty, of which the symmetric part is taken; W, None for the identity, broadcasts to
    its batch shape, and is lower triangular with `inverse`. With `positive` NOT_POSITIVE is found
    where an eigenvalue is not positive.
    """
    X = X.contiguous()
    n = X.shape[-1]
    batch = X.numel() // (n * n)
    W, repeat = (None, 1) if W is None else library.repeats(W, tuple(X.shape[:-2]))
    w = torch.empty(X.shape[:-1], dtype=X.dtype)
    packed = library.new_packed(w, batch, n)
    found = library.call(
        *("lk_spectral", X.dtype, batch, n, 1, X.data_ptr(), library.address(W), repeat),
        *(not inverse, IDENTITY, None, -math.inf, 0, 0, positive),
        *(w.data_ptr(), None, None, packed.data_ptr(), None, tolerance),
    )
    return w, packed, found


def carry(
    packed: Float[Tensor, "blocks size lanes"],
    K: Float[Tensor, "..."],
    f: Function,
    shape: tuple[int, ...],
) -> Float[Tensor, "*batch n n"]:
    """K f(S) K^T, exactly symmetric; `shape` is that of S, to whose batch K broadcasts."""
    K, repeat = library.repeats(K, shape[:-2])
    table = None if f.table is None else f.table.contiguous()
    Y = packed.new_empty(shape)
    library.run(
        *("lk_carry", Y, packed.data_ptr(), K.data_ptr(), repeat),
        *(f.kind, library.address(table), f.floor, Y.data_ptr()),
    )
    return Y


def carry_vjp(
    packed: Float[Tensor, "blocks size lanes"],
    K: Float[Tensor, "..."],
    W: Float[Tensor, "..."],
    f: Function,
    G: Float[Tensor, "*batch n n"],
    wanted: tuple[bool, bool] = (True, False),
) -> tuple[Float[Tensor, "*batch n n"] | None, Float[Tensor, "*batch"] | None]:
    """Gradients in X of S = W X W^T, and in the exponents of POWER, for a G in K f(S) K^T."""
    G = G.contiguous()
    batch = tuple(G.shape[:-2])
    K, K_repeat = library.repeats(K, batch)
    W, W_repeat = library.repeats(W, batch)
    table = None if f.table is None else f.table.contiguous()
    gX = torch.empty_like(G) if wanted[0] else None
    slope = G.new_empty(batch) if wanted[1] else None
    library.run(
        *("lk_carry_adjoint", G, packed.data_ptr(), K.data_ptr(), K_repeat),
        *(W.data_ptr(), W_repeat, f.kind, library.address(table), f.floor),
        *(G.data_ptr(), library.address(gX), library.address(slope)),
    )
    return gX, slope


def congruence_trace(
    X: Float[Tensor, "b n n"],
    K: Float[Tensor, "c n n"],
    A: Float[Tensor, "c n n"],
    f: Function,
    *,
    value: bool,
    derivative: bool,
) -> tuple[Float[Tensor, "c b"], Float[Tensor, "c b n n"] | None, Float[Tensor, "c b n n"] | None]:
    """tr(A f(M)) of M = K^T sym(X) K for symmetric A, of every K with every X.

    There is at least one of each. With `value` also f(M), with `derivative` the derivative of the
    trace with respect to M. f has no table.
    """
    X, K, A = X.contiguous(), K.contiguous(), A.contiguous()
    (b, n, _), c = X.shape, len(K)
    trace = X.new_empty(c, b)
    F = X.new_empty(c, b, n, n) if value else None
    D = X.new_empty(c, b, n, n) if derivative else None
    library.call(
        *("lk_congruence_trace", X.dtype, c * b, n, X.data_ptr(), b, K.data_ptr(), A.data_ptr()),
        *(b, f.kind, None, f.floor, trace.data_ptr(), library.address(F), library.address(D)),
    )
    return trace, F, D
