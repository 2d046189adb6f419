"""The kernels as operators of PyTorch on plain tensors (batch, n, n), without derivatives.

A `triton_op` shows a compiler the kernels inside; while Triton interprets there are none, and the
operators are opaque. `select` calls the functions themselves on tensors and the operators while
a graph is traced. They never look at values: `found`, int32 of batch shape, has the bits
NOT_FINITE and so on of `backends.native`, and a matrix that is not finite or did not converge
comes out as NaN.
"""

from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from torch.library import wrap_triton
from triton.runtime.jit import JITFunction

from linalg_kernels.backends import native
from linalg_kernels.backends.triton.cholesky import cholesky_kernel, cholesky_vjp_kernel
from linalg_kernels.backends.triton.householder import householder_kernel
from linalg_kernels.backends.triton.jacobi import eigh_kernel
from linalg_kernels.backends.triton.pencil import pencil_kernel, pencil_vjp_kernel
from linalg_kernels.backends.triton.rank_one import rank_one_kernel
from linalg_kernels.backends.triton.spectral import (
    evaluate_kernel,
    frechet_kernel,
    spectral_kernel,
)
from linalg_kernels.transforms import batch_first

# Whether Triton interprets kernels instead of compiling them (TRITON_INTERPRET=1).
INTERPRETED = not isinstance(eigh_kernel, JITFunction)

# Programs of one launch, below what a grid may have.
LAUNCH = 1 << 30

# Warps of a program by the order of its tile, for float32 and float64.
WARPS = {8: (1, 1), 16: (2, 2), 32: (4, 8), 64: (8, 8)}
# The same for kernels that hold more tiles at a time.
_WIDE = {
    frechet_kernel: {8: (1, 1), 16: (4, 4), 32: (8, 16)},
    cholesky_vjp_kernel: {8: (1, 1), 16: (2, 2), 32: (8, 8)},
}

# How kernels are compiled, beside their warps: products and sums fuse, whatever the next Triton
# does by itself, and 512 threads share the registers of a multiprocessor. Said that there are so
# many, the assembler puts nothing on the stack to take fewer. A traced launch takes no options.
OPTIONS = {"enable_fp_fusion": True, "maxnreg": 128}


def tile_order(n: int) -> int:
    """The order of the tile that holds a matrix of order n."""
    return max(8, 1 << (n - 1).bit_length())


def warps(kernel: Any, N: int, dtype: torch.dtype) -> int:
    return _WIDE.get(kernel, WARPS)[N][dtype == torch.float64]


def rounds(n: int) -> int:
    """Rounds of a Jacobi sweep."""
    return (1 << (n - 1).bit_length()) - 1


def _batch(A: Tensor) -> int:
    n = A.shape[-1]
    return A.numel() // (n * n)


def launch(
    kernel: Any, batch: int, columns: int, dtype: torch.dtype, N: int, *arguments: Any,
    **constants: Any,
) -> None:  # fmt: skip
    """Runs one program a matrix (and block of columns), in as many launches as it takes."""
    wrapped = wrap_triton(kernel)
    options: dict[str, Any] = {"num_warps": warps(kernel, N, dtype)}
    if wrapped is kernel:
        options |= OPTIONS
    if batch <= LAUNCH:
        if batch > 0:
            wrapped[(batch, columns)](*arguments, first=0, N=N, **constants, **options)
        return
    for first in range(0, batch, LAUNCH):
        grid = min(LAUNCH, batch - first), columns
        wrapped[grid](*arguments, first=first, N=N, **constants, **options)


def _operator(fake: Callable) -> Callable[[FunctionType], Any]:
    """Registers linalg_kernels::triton_NAME; `fake` makes the empty results.

    Under vmap the batch dimension goes in front.
    """

    def register(fn: FunctionType) -> FunctionType:
        kind = torch.library.custom_op if INTERPRETED else torch.library.triton_op
        operator: Any = kind(f"linalg_kernels::triton_{fn.__name__}", fn, mutates_args=())
        operator.register_fake(fake)

        def batched(info, dims, *arguments):
            moved = [
                batch_first(info.batch_size, (dim,), (a,))[0] if isinstance(a, Tensor) else a
                for dim, a in zip(dims, arguments, strict=True)
            ]
            results = operator(*moved)
            return results, 0 if isinstance(results, Tensor) else (0,) * len(results)

        operator.register_vmap(batched)
        return fn

    return register


def _empty(
    A: Tensor, shape: torch.Size | tuple[int, ...], dtype: torch.dtype | None = None
) -> Tensor:
    return torch.empty(shape, dtype=dtype or A.dtype, device=A.device)


def _found(A: Tensor) -> Tensor:
    return _empty(A, A.shape[:-2], torch.int32)


def _floor(floor: float, like: Tensor) -> Tensor:
    """A floor on the device, in the dtype of the matrices: a number would pass as float32."""
    return (
        like
        if floor == -float("inf")
        else torch.full((), floor, dtype=like.dtype, device=like.device)
    )


# --- eigensystems ---------------------------------------------------------------------------


def _eigh_like(A, *_):
    return _empty(A, A.shape[:-1]), _empty(A, A.shape), _found(A)


@_operator(_eigh_like)
def eigh(A: Tensor, symmetrize: bool, tolerance: float) -> tuple[Tensor, Tensor, Tensor]:
    """w ascending, V with eigenvectors in columns, and found."""
    A = A.contiguous()
    w, V, found = _eigh_like(A)
    n = A.shape[-1]
    launch(
        *(eigh_kernel, _batch(A), 1, A.dtype, tile_order(n), A, w, V, found, n),
        tolerance=tolerance, ROUNDS=rounds(n), SYMMETRIZE=symmetrize, VECTORS=True,
    )  # fmt: skip
    return w, V, found


def _eigvalsh_like(A, *_):
    return _empty(A, A.shape[:-1]), _found(A)


@_operator(_eigvalsh_like)
def eigvalsh(A: Tensor, symmetrize: bool, tolerance: float) -> tuple[Tensor, Tensor]:
    """w ascending, and found."""
    A = A.contiguous()
    w, found = _eigvalsh_like(A)
    n = A.shape[-1]
    launch(
        *(eigh_kernel, _batch(A), 1, A.dtype, tile_order(n), A, w, A, found, n),
        tolerance=tolerance, ROUNDS=rounds(n), SYMMETRIZE=symmetrize, VECTORS=False,
    )  # fmt: skip
    return w, found


# --- functions of them ----------------------------------------------------------------------


def _spectral_like(A, *_):
    return _empty(A, A.shape), _empty(A, A.shape[:-1]), _empty(A, A.shape), _found(A)


@_operator(_spectral_like)
def spectral(
    A: Tensor, table: Tensor | None, kind: int, floor: float, symmetrize: bool, tolerance: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """F = V f(w) V^T, w in no order, V, and found.

    `kind` is a number of `native.Function`, `table` the exponents (*batch) for POWER.
    """
    A = A.contiguous()
    F, w, V, found = _spectral_like(A)
    n = A.shape[-1]
    launch(
        *(spectral_kernel, _batch(A), 1, A.dtype, tile_order(n)),
        *(A, A if table is None else table.contiguous(), _floor(floor, A), F, w, V, found, n),
        tolerance=tolerance, ROUNDS=rounds(n), SYMMETRIZE=symmetrize,
        KIND=kind, FLOORED=floor != -float("inf"),
    )  # fmt: skip
    return F, w, V, found


@_operator(lambda w, V, *_: _empty(V, V.shape))  # noqa: ARG005
def evaluate(w: Tensor, V: Tensor, table: Tensor | None, kind: int, floor: float) -> Tensor:
    """V f(w) V^T; for TABLE the table holds f(w) (*batch, n)."""
    w, V = w.contiguous(), V.contiguous()
    F = _empty(V, V.shape)
    n = V.shape[-1]
    launch(
        *(evaluate_kernel, _batch(V), 1, V.dtype, tile_order(n)),
        *(w, V, w if table is None else table.contiguous(), _floor(floor, w), F, n),
        KIND=kind, FLOORED=floor != -float("inf"),
    )  # fmt: skip
    return F


@_operator(lambda w, V, *_: _empty(V, V.shape))  # noqa: ARG005
def frechet(
    w: Tensor, V: Tensor, E: Tensor, table: Tensor | None, kind: int, floor: float
) -> Tensor:
    """V (f[w_i, w_j] ∘ V^T sym(E) V) V^T; for TABLE the table holds f[w_i, w_j] (*batch, n, n)."""
    w, V, E = w.contiguous(), V.contiguous(), E.contiguous()
    D = _empty(V, V.shape)
    n = V.shape[-1]
    launch(
        *(frechet_kernel, _batch(V), 1, V.dtype, tile_order(n)),
        *(w, V, E, w if table is None else table.contiguous(), _floor(floor, w), D, n),
        KIND=kind, FLOORED=floor != -float("inf"),
    )  # fmt: skip
    return D


# --- Cholesky -------------------------------------------------------------------------------


def _cholesky_like(A, *_):
    return _empty(A, A.shape), _found(A), _found(A)


@_operator(_cholesky_like)
def cholesky(A: Tensor, symmetrize: bool, tolerance: float) -> tuple[Tensor, Tensor, Tensor]:
    """L, info as in `torch.linalg.cholesky_ex` but n + 1 for a matrix not finite, and found."""
    A = A.contiguous()
    L, info, found = _cholesky_like(A)
    n = A.shape[-1]
    launch(
        *(cholesky_kernel, _batch(A), 1, A.dtype, tile_order(n), A, L, info, found, n),
        tolerance=tolerance, SYMMETRIZE=symmetrize,
    )  # fmt: skip
    return L, info, found


@_operator(lambda L, G: _empty(L, L.shape))  # noqa: ARG005
def cholesky_vjp(L: Tensor, G: Tensor) -> Tensor:
    """sym(L^-T Φ(L^T G) L^-1)."""
    L, G = L.contiguous(), G.contiguous()
    gA = _empty(L, L.shape)
    n = L.shape[-1]
    launch(cholesky_vjp_kernel, _batch(L), 1, L.dtype, tile_order(n), L, G, gA, n)
    return gA


# --- pencils --------------------------------------------------------------------------------


def pencil(
    P: Tensor, Q: Tensor, tolerance: float, vectors: bool
) -> tuple[Tensor, Tensor | None, Tensor]:
    """log w of P^-1 Q, the rows u of Q u = w P u with u^T P u = 1, and found.

    Batches broadcast; one matrix against many, and all of (p, 1) against all of (q,), are not
    copied out.
    """
    batch = tuple(torch.broadcast_shapes(P.shape[:-2], Q.shape[:-2]))
    P, repeat = native.library.repeats(P, batch)
    Q, count = native.library.cycles(Q, batch)
    n = P.shape[-1]
    logs, found = _empty(P, (*batch, n)), _empty(P, batch, torch.int32)
    U = _empty(P, (*batch, n, n)) if vectors else None
    launch(
        *(pencil_kernel, found.numel(), 1, P.dtype, tile_order(n)),
        *(P, Q, logs, logs if U is None else U, found, repeat, count, n),
        tolerance=tolerance, ROUNDS=rounds(n), VECTORS=vectors,
    )  # fmt: skip
    return logs, U, found


def pencil_vjp(
    weights: Tensor, logs: Tensor, U: Tensor, wanted: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients in P and Q of a loss whose gradients in the logarithms are `weights`."""
    gP, gQ = (_empty(U, U.shape) if want else None for want in wanted)
    n = U.shape[-1]
    launch(
        *(pencil_vjp_kernel, _batch(U), 1, U.dtype, tile_order(n), weights.contiguous(), logs, U),
        *(logs if gP is None else gP, logs if gQ is None else gQ, n),
        WITH_P=wanted[0], WITH_Q=wanted[1],
    )  # fmt: skip
    return gP, gQ


# --- rank one -------------------------------------------------------------------------------

# Rows of a block of the tall matrix.
ROWS = 32


def _tall(A: Tensor) -> tuple[Tensor, tuple[int, int, int, int]]:
    """A, and rows, columns and strides of it or of its transpose, whichever is the taller."""
    A = A.contiguous()
    m, n = A.shape[-2:]
    return A, (m, n, n, 1) if m >= n else (n, m, 1, n)


def _leading_like(A, *_):
    return _empty(A, A.shape[:-1]), _empty(A, A.shape[:-2]), _empty(A, (*A.shape[:-2], A.shape[-1]))


@_operator(_leading_like)
def leading_triple(A: Tensor, iters: int, tolerance: float) -> tuple[Tensor, Tensor, Tensor]:
    """u (*batch, m), s (*batch) and v (*batch, n) of A (*batch, m, n)."""
    A, layout = _tall(A)
    u, s, v = _leading_like(A)
    left, right = (u, v) if A.shape[-2] >= A.shape[-1] else (v, u)
    N = tile_order(layout[1])
    launch(
        *(rank_one_kernel, s.numel(), 1, A.dtype, N, A, left, s, right, A, *layout, iters),
        tolerance=tolerance, ROWS=ROWS, REMOVE=False,
    )  # fmt: skip
    return u, s, v


@_operator(lambda A, *_: _empty(A, A.shape))
def without_leading_triple(A: Tensor, iters: int, tolerance: float) -> Tensor:
    """A - s u v^T."""
    A, layout = _tall(A)
    rest = _empty(A, A.shape)
    N = tile_order(layout[1])
    batch = A.numel() // (layout[0] * layout[1])
    launch(
        *(rank_one_kernel, batch, 1, A.dtype, N, A, A, A, A, rest, *layout, iters),
        tolerance=tolerance, ROWS=ROWS, REMOVE=True,
    )  # fmt: skip
    return rest


# --- reflections ----------------------------------------------------------------------------

COLUMNS = 32


@_operator(lambda V, X, adjoint: _empty(X, X.shape))  # noqa: ARG005
def householder(V: Tensor, X: Tensor, adjoint: bool) -> Tensor:
    """H_1 ... H_k X, or with `adjoint` H_k ... H_1 X, for V (*batch, n, k) and X (*batch, n, m)."""
    V, X = V.contiguous(), X.contiguous()
    out = _empty(X, X.shape)
    n, m = X.shape[-2:]
    blocks = (m + COLUMNS - 1) // COLUMNS
    launch(
        *(householder_kernel, X.numel() // (n * m), blocks, X.dtype, tile_order(n)),
        *(V, X, out, n, V.shape[-1], m), COLUMNS=COLUMNS, ADJOINT=adjoint,
    )  # fmt: skip
    return out
