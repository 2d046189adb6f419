"""The native CPU library: found, checked and called through ctypes.

Functions here take plain CPU tensors, know nothing of autograd and never look at the values
they return. They tell what was `found` in at least one matrix, NOT_FINITE and so on; `info`, an
int32 tensor of batch shape to be filled, says it of each.
"""

import contextlib
import ctypes
import functools
import importlib.metadata
import importlib.resources
import math
import os
import threading
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, Int32
from torch import Tensor

ABI_VERSION = 6
ISA_VARIABLE = "LINALG_KERNELS_ISA"

# Most matrices that one block holds, in any instruction set and dtype.
WIDEST = 16

DTYPES = {torch.float32: 0, torch.float64: 1}
_ERRORS = {
    -1: "an argument is out of range",
    -2: "out of memory",
    -3: "this processor has none of the instruction sets that the library was built for",
}


class NativeUnavailableError(RuntimeError):
    """The native library is missing, stale or does not fit this processor."""


@dataclass(frozen=True)
class NativeInfo:
    """What was loaded: file, interface version, instruction set in use and others that run."""

    path: str
    abi: int
    isa: str
    isas: tuple[str, ...]
    threads: int


def _find_library() -> str:
    folder = importlib.resources.files("linalg_kernels") / "native"
    names = ("linalg_kernels.so", "linalg_kernels.dylib", "linalg_kernels.dll")
    # An import hook (of a type checker, say) hides where an editable install keeps the library.
    installed = importlib.metadata.distribution("linalg-kernels").locate_file(
        "linalg_kernels/native"
    )
    for name in names:
        for candidate in (folder / name, Path(str(installed)) / name):
            if candidate.is_file():
                return str(candidate)
    raise NativeUnavailableError(
        f"linalg-kernels was installed without its native library (no {' or '.join(names)} in "
        f"{folder}): it was built without a C++ compiler, or is a platform-independent wheel"
    )


def _declare(library: ctypes.CDLL) -> None:
    i32, i64, pointer = ctypes.c_int32, ctypes.c_int64, ctypes.c_void_p
    library.lk_isa.restype = ctypes.c_char_p
    library.lk_available_isas.restype = ctypes.c_char_p
    library.lk_select_isa.argtypes = [ctypes.c_char_p]
    f64 = ctypes.c_double
    head, function = [i32, i64, i32], [i32, pointer, f64]
    signatures = {
        "lk_spectral": [
            *(i32, pointer, pointer, i64, i32, *function, i32, i32, *[pointer] * 3),
            *(pointer, f64),
        ],
        "lk_frechet": [i32, pointer, pointer, pointer, *function, pointer],
        "lk_compose": [pointer, pointer, *function, pointer],
        "lk_eigh_adjoint": [pointer] * 5,
        "lk_cholesky": [i32, pointer, i32, f64, *[pointer] * 3, f64],
        "lk_cholesky_adjoint": [i32, f64, *[pointer] * 3],
        "lk_from_log": [pointer, pointer],
        "lk_from_log_adjoint": [pointer] * 3,
        "lk_cholesky_distance": [pointer, pointer, f64, *[pointer] * 4, f64],
        "lk_cholesky_distance_adjoint": [f64, *[pointer] * 7],
        "lk_congruence": [pointer, i64, pointer, pointer],
        "lk_pencil": [pointer, i64, pointer, i64, f64, f64, i32, *[pointer] * 3, f64],
        "lk_pencil_adjoint": [f64, f64, i32, *[pointer] * 6],
    }
    for name, arguments in signatures.items():
        getattr(library, name).argtypes = [*head, *arguments, i32]


_lock = threading.Lock()


@functools.cache
def _load() -> tuple[ctypes.CDLL | None, str, str]:
    """The library or None, its path, and why there is none."""
    path = ""
    try:
        path = _find_library()
        library = ctypes.CDLL(path)
        version = library.lk_abi_version()
        if version != ABI_VERSION:
            raise NativeUnavailableError(
                f"the native library {path} has interface version {version}, this package needs "
                f"{ABI_VERSION}: it is left over from another version; install linalg-kernels anew"
            )
        _declare(library)
        if not library.lk_isa():
            raise NativeUnavailableError(f"the native library {path} cannot run: {_ERRORS[-3]}")
    except (NativeUnavailableError, OSError, AttributeError) as error:
        return None, path, str(error)
    wanted = os.environ.get(ISA_VARIABLE)
    if wanted:
        _select(library, wanted)
    return library, path, ""


def _select(library: ctypes.CDLL, isa: str) -> None:
    if library.lk_select_isa(isa.encode()):
        names = ", ".join(library.lk_available_isas().decode().split())
        raise ValueError(f"{ISA_VARIABLE} must be one of {names} on this machine, got {isa!r}")


def load() -> ctypes.CDLL:
    """The loaded library.

    Raises:
        NativeUnavailableError: saying why there is none.
        ValueError: LINALG_KERNELS_ISA names an instruction set this machine lacks.
    """
    with _lock:
        library, _, reason = _load()
    if library is None:
        raise NativeUnavailableError(reason)
    _loaded["library"] = library
    return library


# The library once it is there, for calls that cannot afford a lock.
_loaded: dict[str, ctypes.CDLL] = {}


def available() -> bool:
    """Whether the native library can be used here."""
    return "library" in _loaded or not why_unavailable()


def why_unavailable() -> str:
    """One sentence saying why the native library cannot be used; empty if it can."""
    with _lock:
        return _load()[2]


def info() -> NativeInfo:
    """Path, interface version, instruction set and thread limit of the loaded library."""
    library = load()
    return NativeInfo(
        path=_load()[1],
        abi=library.lk_abi_version(),
        isa=library.lk_isa().decode(),
        isas=tuple(library.lk_available_isas().decode().split()),
        threads=torch.get_num_threads(),
    )


@contextlib.contextmanager
def use_isa(isa: str) -> Generator[None]:
    """Run with another instruction set of this machine, for tests and benchmarks.

    It changes the whole process, not one thread.
    """
    library = load()
    before = library.lk_isa().decode()
    _select(library, isa)
    try:
        yield
    finally:
        _select(library, before)


@dataclass(frozen=True, slots=True)
class Function:
    """A function of eigenvalues that the library knows, or a table of its values.

    `table` is the exponent of every matrix (*batch) for POWER. For TABLE it is f(w)
    (*batch, n) where values are asked for and f[w_i, w_j] (*batch, n, n) for derivatives.
    Eigenvalues below `floor` are raised to it, with derivative 0.
    """

    kind: int
    table: Tensor | None = None
    floor: float = -math.inf


IDENTITY, LOG, EXP, SQRT, INV_SQRT, INVERSE, POWER, TABLE = range(8)

# Functions of the diagonal of a Cholesky factor.
FACTOR, LOG_DIAGONAL, POWER_DIAGONAL = range(3)

# What may be found in a matrix of a batch.
NOT_FINITE, NOT_CONVERGED, NOT_POSITIVE, ASYMMETRIC = 1, 2, 4, 8

Info = Int32[Tensor, "*batch"] | None


def _call(name: str, dtype: torch.dtype, batch: int, n: int, *arguments: object) -> int:
    library = _loaded.get("library") or load()
    found = getattr(library, name)(DTYPES[dtype], batch, n, *arguments, torch.get_num_threads())
    if found < 0:
        raise RuntimeError(f"native library, {name}: {_ERRORS[found]}")
    return found


def _run(name: str, A: Tensor, *arguments: object) -> int:
    """Calls a function on the batch of A; pointers are numbers. Returns what was found."""
    n = A.shape[-1]
    return _call(name, A.dtype, A.numel() // (n * n), n, *arguments)


def _address(T: Tensor | None) -> int | None:
    return None if T is None else T.data_ptr()


def _spectral(
    A: Tensor,
    L: Tensor | None,
    f: Function | None,
    symmetrize: bool,
    vectors: bool,
    tolerance: float,
    info: Tensor | None,
    multiply: bool = False,
    accurate: bool = False,
) -> tuple[Tensor, Tensor | None, Tensor | None, int]:
    """w, V, F and what was found, of A, of L^-1 A L^-T, or with `multiply` of L A L^T.

    With `f` eigenvalues are not sorted.
    """
    A = A.contiguous()
    w = torch.empty(A.shape[:-1], dtype=A.dtype)
    V = torch.empty_like(A) if vectors else None
    F = torch.empty_like(A) if f is not None else None
    if A.numel() == 0:
        return w, V, F, 0
    L, repeat = (None, 1) if L is None else _repeats(L, tuple(A.shape[:-2]))
    kind, table, floor = (IDENTITY, None, -math.inf) if f is None else (f.kind, f.table, f.floor)
    table = None if table is None else table.contiguous()
    found = _run(
        "lk_spectral",
        A,
        *(symmetrize, A.data_ptr(), _address(L), repeat, multiply, kind, _address(table), floor),
        *(f is None, accurate, w.data_ptr(), _address(V), _address(F), _address(info)),
        tolerance,
    )
    return w, V, F, found


def eigh(
    A: Float[Tensor, "*batch n n"],
    *,
    symmetrize: bool = True,
    tolerance: float = math.inf,
    info: Info = None,
) -> tuple[Float[Tensor, "*batch n"], Float[Tensor, "*batch n n"], int]:
    """Ascending eigenvalues, eigenvectors in columns, and what was found.

    info is 0, -1 for a matrix with NaN or Inf (its results are NaN), or 1 + the index of an
    eigenvalue that did not converge. `tolerance` is the relative asymmetry that is told.
    With `symmetrize` (A + A^T)/2 is taken, else the lower triangle.
    """
    w, V, _, found = _spectral(A, None, None, symmetrize, True, tolerance, info)
    assert V is not None
    return w, V, found


def eigh_positive(
    A: Float[Tensor, "*batch n n"], *, symmetrize: bool = True, tolerance: float = math.inf
) -> tuple[Float[Tensor, "*batch n"], Float[Tensor, "*batch n n"], int]:
    """`eigh` of positive definite A, each eigenvalue to its own relative accuracy.

    By one-sided Jacobi rotations of the Cholesky factor; errors are governed by the condition
    number of A after its diagonal is scaled to 1.
    """
    w, V, _, found = _spectral(A, None, None, symmetrize, True, tolerance, None, accurate=True)
    assert V is not None
    return w, V, found


def eigvalsh(
    A: Float[Tensor, "*batch n n"],
    *,
    L: Float[Tensor, "..."] | None = None,
    symmetrize: bool = True,
    tolerance: float = math.inf,
    info: Info = None,
) -> tuple[Float[Tensor, "*batch n"], int]:
    """Ascending eigenvalues of A, or of L^-1 A L^-T; batch shapes of L and A broadcast."""
    w, _, _, found = _spectral(A, L, None, symmetrize, False, tolerance, info)
    return w, found


def spectral(
    A: Float[Tensor, "*batch n n"],
    f: Function,
    *,
    L: Float[Tensor, "..."] | None = None,
    symmetrize: bool = True,
    tolerance: float = math.inf,
    info: Info = None,
) -> tuple[
    Float[Tensor, "*batch n n"], Float[Tensor, "*batch n"], Float[Tensor, "*batch n n"], int
]:
    """F = V f(w) V^T, w (in no order), V and what was found, of A or of L^-1 A L^-T."""
    w, V, F, found = _spectral(A, L, f, symmetrize, True, tolerance, info)
    assert F is not None
    assert V is not None
    return F, w, V, found


def spectral_of_congruence(
    C: Float[Tensor, "..."], X: Float[Tensor, "*batch n n"], f: Function
) -> tuple[Float[Tensor, "*batch n n"], Float[Tensor, "*batch n"], int]:
    """f(C sym(X) C^T), the eigenvalues of C sym(X) C^T in no order, and what was found.

    The batch shape of C broadcasts to that of X.
    """
    w, _, F, found = _spectral(X, C, f, True, False, math.inf, None, multiply=True)
    assert F is not None
    return F, w, found


def frechet(
    w: Float[Tensor, "*base n"],
    V: Float[Tensor, "*base n n"],
    E: Float[Tensor, "*batch n n"],
    f: Function,
) -> Float[Tensor, "*batch n n"]:
    """Daleckii-Krein: V (f[w_i, w_j] ∘ V^T sym(E) V) V^T.

    One w (n) and V (n, n), with one exponent or table, may serve the whole batch.
    """
    w, V, E = w.contiguous(), V.contiguous(), E.contiguous()
    D = torch.empty_like(E)
    table = None if f.table is None else f.table.contiguous()
    if E.numel():
        _run(
            "lk_frechet",
            E,
            *(V.ndim < E.ndim, w.data_ptr(), V.data_ptr(), E.data_ptr()),
            *(f.kind, _address(table), f.floor),
            D.data_ptr(),
        )
    return D


def eigh_vjp(
    w: Float[Tensor, "*batch n"],
    V: Float[Tensor, "*batch n n"],
    gw: Float[Tensor, "*batch n"] | None,
    gV: Float[Tensor, "*batch n n"] | None,
) -> Float[Tensor, "*batch n n"]:
    """V (diag gw + sym(V^T gV / (w_j - w_i))) V^T; 0 where w_i, w_j are equal to rounding."""
    w, V = w.contiguous(), V.contiguous()
    gw = None if gw is None else gw.contiguous()
    gV = None if gV is None else gV.contiguous()
    gA = torch.empty_like(V)
    if V.numel():
        pointers = w.data_ptr(), V.data_ptr(), _address(gw), _address(gV), gA.data_ptr()
        _run("lk_eigh_adjoint", V, *pointers)
    return gA


def compose(
    w: Float[Tensor, "*batch n"], V: Float[Tensor, "*batch n n"], f: Function
) -> Float[Tensor, "*batch n n"]:
    """V f(w) V^T, exactly symmetric."""
    w, V = w.contiguous(), V.contiguous()
    F = torch.empty_like(V)
    table = None if f.table is None else f.table.contiguous()
    if V.numel():
        arguments = w.data_ptr(), V.data_ptr(), f.kind, _address(table), f.floor, F.data_ptr()
        _run("lk_compose", V, *arguments)
    return F


def cholesky(
    A: Float[Tensor, "*batch n n"],
    *,
    symmetrize: bool = True,
    tolerance: float = math.inf,
    info: Info = None,
) -> tuple[Float[Tensor, "*batch n n"], int]:
    """L with L L^T = A, and what was found; options as in `eigh`.

    info is 0, or k if the leading minor of order k is not positive definite or not finite; L
    of that matrix is NaN. Equivalent to `torch.linalg.cholesky_ex`.
    """
    A = A.contiguous()
    L = torch.empty_like(A)
    if A.numel() == 0:
        return L, 0
    head = symmetrize, A.data_ptr(), FACTOR, 1.0
    found = _run("lk_cholesky", A, *head, L.data_ptr(), None, _address(info), tolerance)
    return L, found


def cholesky_chart(
    A: Float[Tensor, "*batch n n"],
    chart: int,
    exponent: float = 1.0,
    *,
    symmetrize: bool = True,
    tolerance: float = math.inf,
) -> tuple[Float[Tensor, "*batch n n"], Float[Tensor, "*batch n n"], int]:
    """X = L but for log l or l^exponent on the diagonal, L, and what was found."""
    A = A.contiguous()
    X, L = torch.empty_like(A), torch.empty_like(A)
    if A.numel() == 0:
        return X, L, 0
    head = symmetrize, A.data_ptr(), chart, exponent
    return X, L, _run("lk_cholesky", A, *head, L.data_ptr(), X.data_ptr(), None, tolerance)


def cholesky_vjp(
    L: Float[Tensor, "*batch n n"],
    G: Float[Tensor, "*batch n n"],
    chart: int = FACTOR,
    exponent: float = 1.0,
) -> Float[Tensor, "*batch n n"]:
    """Gradient sym(L^-T Φ(L^T G) L^-1) with respect to A of a loss with gradient G in L.

    Φ takes the lower triangle and halves the diagonal; only the lower triangle of G counts.
    With `chart` G is the gradient in X of `cholesky_chart`.
    """
    L, G = L.contiguous(), G.contiguous()
    gA = torch.empty_like(G)
    if G.numel():
        pointers = L.data_ptr(), G.data_ptr(), gA.data_ptr()
        _run("lk_cholesky_adjoint", G, chart, exponent, *pointers)
    return gA


def from_chol_log(X: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
    """L L^T with L = ⌊X⌋ + exp diag X."""
    X = X.contiguous()
    A = torch.empty_like(X)
    if X.numel():
        _run("lk_from_log", X, X.data_ptr(), A.data_ptr())
    return A


def from_chol_log_vjp(
    X: Float[Tensor, "*batch n n"], G: Float[Tensor, "*batch n n"]
) -> Float[Tensor, "*batch n n"]:
    """Gradient with respect to X of a loss with gradient G in `from_chol_log`."""
    X, G = X.contiguous(), G.contiguous()
    gX = torch.empty_like(X)
    if X.numel():
        _run("lk_from_log_adjoint", X, X.data_ptr(), G.data_ptr(), gX.data_ptr())
    return gX


def congruence(
    L: Float[Tensor, "..."], X: Float[Tensor, "*batch n n"]
) -> Float[Tensor, "*batch n n"]:
    """L^-1 sym(X) L^-T for lower triangular L, whose batch shape broadcasts to that of X."""
    X = X.contiguous()
    Y = torch.empty_like(X)
    if X.numel():
        factor, repeat = _repeats(L, tuple(X.shape[:-2]))
        _run("lk_congruence", X, factor.data_ptr(), repeat, X.data_ptr(), Y.data_ptr())
    return Y


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
    found = _run(
        "lk_cholesky_distance",
        P,
        *(P.data_ptr(), Q.data_ptr(), a, weight.data_ptr(), value.data_ptr()),
        *(_address(L), _address(K), tolerance),
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
        _run("lk_cholesky_distance_adjoint", L, a, *pointers, _address(gP), _address(gQ))
    return gP, gQ


# --- pencils --------------------------------------------------------------------------------


class Pencil(NamedTuple):
    """What is known of the pencils (Q, P), Q u = w P u with u^T P u = 1.

    Attributes:
        value: α Σ (log w)² + β (Σ log w)², or its square root.
        logs: log w, in no order; exactly 0 where P and Q are equal.
        vectors: The u, one a row.
        found: What was found in P or Q; such elements are NaN.
    """

    value: Float[Tensor, "*batch"]
    logs: Float[Tensor, "*batch n"] | None
    vectors: Float[Tensor, "*batch n n"] | None
    found: int


def _repeats(P: Tensor, batch: tuple[int, ...]) -> tuple[Tensor, int]:
    """P and a number such that P[b // number] is the matrix of element b of the batch.

    Copies nothing where P varies over leading dimensions only.
    """
    own = (1,) * (len(batch) - P.ndim + 2) + tuple(P.shape[:-2])
    cut = max((i + 1 for i, size in enumerate(own) if size != 1), default=0)
    if own[:cut] != batch[:cut]:
        return P.expand(*batch, *P.shape[-2:]).contiguous(), 1
    return P.contiguous(), math.prod(batch[cut:])


def _cycles(Q: Tensor, batch: tuple[int, ...]) -> tuple[Tensor, int]:
    """Q and a number such that Q[b % number] is the matrix of element b of the batch.

    Copies nothing where Q varies over trailing dimensions only.
    """
    shape = tuple(Q.shape[:-2])
    own = shape[next((i for i, size in enumerate(shape) if size != 1), len(shape)) :]
    if own != batch[len(batch) - len(own) :]:
        return Q.expand(*batch, *Q.shape[-2:]).contiguous(), math.prod(batch)
    return Q.contiguous(), math.prod(own)


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
    batch = tuple(P.shape[:-2])
    if P.shape == Q.shape:
        P, Q, repeat, count = P.contiguous(), Q.contiguous(), 1, math.prod(batch)
    else:
        batch = tuple(torch.broadcast_shapes(batch, Q.shape[:-2]))
        P, repeat = _repeats(P, batch)
        Q, count = _cycles(Q, batch)
    n = P.shape[-1]
    value = torch.empty(batch, dtype=P.dtype)
    logs = torch.empty((*batch, n), dtype=P.dtype) if vectors else None
    U = torch.empty((*batch, n, n), dtype=P.dtype) if vectors else None
    if value.numel() == 0:
        return Pencil(value, logs, U, 0)
    found = _call(
        *("lk_pencil", P.dtype, value.numel(), n),
        *(P.data_ptr(), repeat, Q.data_ptr(), count, alpha, beta, root),
        *(value.data_ptr(), _address(logs), _address(U), tolerance),
    )
    return Pencil(value, logs, U, found)


def pencil_vjp(
    of: tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch n"], Float[Tensor, "*batch n n"]],
    g: Float[Tensor, "*batch"],
    *,
    alpha: float = 1.0,
    beta: float = 0.0,
    root: bool = False,
    wanted: tuple[bool, bool] = (True, True),
) -> tuple[Float[Tensor, "*batch n n"] | None, Float[Tensor, "*batch n n"] | None]:
    """Gradients with respect to P and Q of a loss with gradient g in `value`; 0 at a root 0.

    `of` are value, logs and vectors of `pencil`.
    """
    value, logs, U = of
    g = g.contiguous()
    gP = torch.empty_like(U) if wanted[0] else None
    gQ = torch.empty_like(U) if wanted[1] else None
    if U.numel():
        pointers = (T.data_ptr() for T in (value, logs, U, g))
        _run("lk_pencil_adjoint", U, alpha, beta, root, *pointers, _address(gP), _address(gQ))
    return gP, gQ
