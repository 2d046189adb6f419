"""The native CPU library: found, checked and called through ctypes.

Functions here take plain CPU tensors, know nothing of autograd and never look
at the values they return: what happened to a matrix stands in `info`.
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
from jaxtyping import Float, Int
from torch import Tensor

ABI_VERSION = 3
ISA_VARIABLE = "LINALG_KERNELS_ISA"

# Most matrices that one block holds, in any instruction set and dtype.
WIDEST = 16

DTYPES = {torch.float32: 0, torch.float64: 1}
_ERRORS = {
    1: "an argument is out of range",
    2: "out of memory",
    3: "this processor has none of the instruction sets that the library was built for",
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
            *(i32, pointer, pointer, i64, *function, i32, pointer, pointer, pointer),
            *(pointer, pointer, f64, pointer),
        ],
        "lk_frechet": [pointer, pointer, pointer, *function, pointer],
        "lk_compose": [pointer, pointer, *function, pointer],
        "lk_cholesky": [i32, pointer, pointer, pointer, pointer, f64, pointer],
        "lk_cholesky_adjoint": [pointer, pointer, pointer],
        "lk_congruence": [pointer, i64, pointer, pointer],
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
            raise NativeUnavailableError(f"the native library {path} cannot run: {_ERRORS[3]}")
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


class Report(NamedTuple):
    """Flat index of the first matrix with `info` not 0, and of the first that is far from
    symmetric; -1 for none."""

    failed: int
    asymmetric: int = -1


_REPORT = ctypes.c_int64 * 2


def _call(name: str, A: Tensor, *arguments: object) -> None:
    library = _loaded.get("library") or load()
    n = A.shape[-1]
    status = getattr(library, name)(
        DTYPES[A.dtype],
        A.numel() // (n * n),
        n,
        *[a.data_ptr() if isinstance(a, Tensor) else a for a in arguments],
        torch.get_num_threads(),
    )
    if status:
        raise RuntimeError(f"native library, {name}: {_ERRORS[status]}")


def _factor(L: Tensor | None, A: Tensor) -> tuple[Tensor | None, int]:
    """L as the library reads it, and the distance from one factor to the next."""
    if L is None:
        return None, 0
    if L.ndim == 2:
        return L.contiguous(), 0
    return L.expand(A.shape).contiguous(), A.shape[-1] ** 2


def _spectral(
    A: Tensor,
    *,
    L: Tensor | None = None,
    f: Function | None = None,
    symmetrize: bool = True,
    vectors: bool = True,
    tolerance: float = math.inf,
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor, Report]:
    """w, V, F, info and report of A, or of L^-1 A L^-T. With `f` eigenvalues are not sorted."""
    A = A.contiguous()
    batch, n = A.shape[:-2], A.shape[-1]
    w = A.new_empty(*batch, n)
    V = torch.empty_like(A) if vectors else None
    F = torch.empty_like(A) if f is not None else None
    info = torch.empty(batch, dtype=torch.int32)
    if A.numel() == 0:
        return w, V, F, info.zero_(), Report(-1)
    L, stride = _factor(L, A)
    kind, table, floor = (IDENTITY, None, -math.inf) if f is None else (f.kind, f.table, f.floor)
    table = None if table is None else table.contiguous()
    report = _REPORT()
    _call(
        "lk_spectral",
        A,
        *(symmetrize, A, L, stride, kind, table, floor, f is None, w, V, F, info),
        *(None, tolerance, report),
    )
    return w, V, F, info, Report(*report)


def eigh(
    A: Float[Tensor, "*batch n n"], *, symmetrize: bool = True, tolerance: float = math.inf
) -> tuple[Float[Tensor, "*batch n"], Float[Tensor, "*batch n n"], Int[Tensor, "*batch"], Report]:
    """Ascending eigenvalues, eigenvectors in columns, info and report.

    info is 0, -1 for a matrix with NaN or Inf (its results are NaN), or 1 + the index of an
    eigenvalue that did not converge. `tolerance` is the relative asymmetry that is reported.
    With `symmetrize` (A + A^T)/2 is taken, else the lower triangle.
    """
    w, V, _, info, report = _spectral(A, symmetrize=symmetrize, tolerance=tolerance)
    assert V is not None
    return w, V, info, report


def eigvalsh(
    A: Float[Tensor, "*batch n n"],
    *,
    L: Float[Tensor, "..."] | None = None,
    symmetrize: bool = True,
    tolerance: float = math.inf,
) -> tuple[Float[Tensor, "*batch n"], Int[Tensor, "*batch"], Report]:
    """Ascending eigenvalues of A, or of L^-1 A L^-T (L one matrix or one a matrix of A)."""
    w, _, _, info, report = _spectral(
        A, L=L, symmetrize=symmetrize, tolerance=tolerance, vectors=False
    )
    return w, info, report


def spectral(
    A: Float[Tensor, "*batch n n"],
    f: Function,
    *,
    L: Float[Tensor, "..."] | None = None,
    symmetrize: bool = True,
    tolerance: float = math.inf,
) -> tuple[
    Float[Tensor, "*batch n n"],
    Float[Tensor, "*batch n"],
    Float[Tensor, "*batch n n"],
    Int[Tensor, "*batch"],
    Report,
]:
    """F = V f(w) V^T with w (in no order), V, info and report, of A or of L^-1 A L^-T."""
    w, V, F, info, report = _spectral(A, L=L, f=f, symmetrize=symmetrize, tolerance=tolerance)
    assert F is not None
    assert V is not None
    return F, w, V, info, report


def frechet(
    w: Float[Tensor, "*batch n"],
    V: Float[Tensor, "*batch n n"],
    E: Float[Tensor, "*batch n n"],
    f: Function,
) -> Float[Tensor, "*batch n n"]:
    """Daleckii-Krein: V (f[w_i, w_j] ∘ V^T sym(E) V) V^T."""
    w, V, E = w.contiguous(), V.contiguous(), E.contiguous()
    D = torch.empty_like(E)
    table = None if f.table is None else f.table.contiguous()
    if E.numel():
        _call("lk_frechet", E, w, V, E, f.kind, table, f.floor, D)
    return D


def compose(
    w: Float[Tensor, "*batch n"], V: Float[Tensor, "*batch n n"], f: Function
) -> Float[Tensor, "*batch n n"]:
    """V f(w) V^T, exactly symmetric."""
    w, V = w.contiguous(), V.contiguous()
    F = torch.empty_like(V)
    table = None if f.table is None else f.table.contiguous()
    if V.numel():
        _call("lk_compose", V, w, V, f.kind, table, f.floor, F)
    return F


def cholesky(
    A: Float[Tensor, "*batch n n"], *, symmetrize: bool = True, tolerance: float = math.inf
) -> tuple[Float[Tensor, "*batch n n"], Int[Tensor, "*batch"], Report]:
    """L with L L^T = A, info and report; options as in `eigh`.

    info is 0, or k if the leading minor of order k is not positive definite or not finite; L
    of that matrix is NaN. Equivalent to `torch.linalg.cholesky_ex`.
    """
    A = A.contiguous()
    L = torch.empty_like(A)
    info = torch.empty(A.shape[:-2], dtype=torch.int32)
    if A.numel() == 0:
        return L, info.zero_(), Report(-1)
    report = _REPORT()
    _call("lk_cholesky", A, symmetrize, A, L, info, None, tolerance, report)
    return L, info, Report(*report)


def cholesky_vjp(
    L: Float[Tensor, "*batch n n"], G: Float[Tensor, "*batch n n"]
) -> Float[Tensor, "*batch n n"]:
    """Gradient sym(L^-T Φ(L^T G) L^-1) with respect to A of a loss with gradient G in L.

    Φ takes the lower triangle and halves the diagonal; only the lower triangle of G counts.
    """
    L, G = L.contiguous(), G.contiguous()
    gA = torch.empty_like(G)
    if G.numel():
        _call("lk_cholesky_adjoint", G, L, G, gA)
    return gA


def congruence(
    L: Float[Tensor, "..."], X: Float[Tensor, "*batch n n"]
) -> Float[Tensor, "*batch n n"]:
    """L^-1 sym(X) L^-T for lower triangular L, one for the batch or one a matrix."""
    X = X.contiguous()
    Y = torch.empty_like(X)
    factor, stride = _factor(L, X)
    if X.numel():
        _call("lk_congruence", X, factor, stride, X, Y)
    return Y
