"""The native CPU library: found, checked and called through ctypes."""

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

import torch
from jaxtyping import Int32
from torch import Tensor

ABI_VERSION = 11
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
    library.lk_lanes.argtypes = [ctypes.c_int32]
    library.lk_reflect_saved.argtypes = [ctypes.c_int32] * 3
    library.lk_reflect_saved.restype = ctypes.c_int64
    f64 = ctypes.c_double
    head, function = [i32, i64, i32], [i32, pointer, f64]
    signatures = {
        "lk_spectral": [
            *(i32, pointer, pointer, i64, i32, *function, *[i32] * 3, *[pointer] * 4),
            *(pointer, f64),
        ],
        "lk_frechet": [i32, *[pointer] * 4, *function, pointer],
        "lk_compose": [pointer, pointer, *function, pointer],
        "lk_carry": [pointer, pointer, i64, *function, pointer],
        "lk_carry_adjoint": [pointer, pointer, i64, pointer, i64, *function, *[pointer] * 3],
        "lk_congruence_trace": [pointer, i64, *[pointer] * 2, i64, *function, *[pointer] * 3],
        "lk_eigh_adjoint": [pointer] * 5,
        "lk_cholesky": [i32, pointer, i32, f64, *[pointer] * 3, f64],
        "lk_cholesky_adjoint": [i32, f64, *[pointer] * 3],
        "lk_from_log": [pointer, pointer],
        "lk_from_log_adjoint": [pointer] * 3,
        "lk_cholesky_distance": [pointer, pointer, f64, *[pointer] * 4, f64],
        "lk_cholesky_distance_adjoint": [f64, *[pointer] * 7],
        "lk_inspect": [pointer, f64],
        "lk_congruence": [pointer, i64, pointer, pointer],
        "lk_pencil": [pointer, i64, pointer, i64, f64, f64, i32, *[pointer] * 2, f64],
        "lk_karcher": [i64, pointer, pointer, i32, f64, i32, f64, *[pointer] * 3],
        "lk_pencil_adjoint": [f64, f64, i32, *[pointer] * 4],
        "lk_wide_symmetric_part": [pointer, pointer, f64],
        "lk_wide_compose": [i32, *[pointer] * 3],
        "lk_wide_frechet": [i32, i32, *[pointer] * 3, *function, pointer],
        "lk_inner_products": [i32, i32, *[pointer] * 8],
        "lk_inner_products_adjoint": [i32, i32, *[pointer] * 9],
        "lk_reflect": [*[i32] * 3, *[pointer] * 4],
        "lk_reflect_adjoint": [*[i32] * 3, *[pointer] * 6],
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
    _lanes.clear()


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


# The library once it is there, for calls that cannot afford a lock, and how many matrices one
# block of the instruction set in use holds.
_loaded: dict[str, ctypes.CDLL] = {}
_lanes: dict[torch.dtype, int] = {}


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


# What may be found in a matrix of a batch.
NOT_FINITE, NOT_CONVERGED, NOT_POSITIVE, ASYMMETRIC = 1, 2, 4, 8

Info = Int32[Tensor, "*batch"] | None


def call(name: str, dtype: torch.dtype, batch: int, n: int, *arguments: object) -> int:
    """Calls a function on a batch; pointers are numbers. Returns what was found."""
    library = _loaded.get("library") or load()
    found = getattr(library, name)(DTYPES[dtype], batch, n, *arguments, torch.get_num_threads())
    if found < 0:
        raise RuntimeError(f"native library, {name}: {_ERRORS[found]}")
    return found


def run(name: str, A: Tensor, *arguments: object) -> int:
    """`call` on the batch of A."""
    n = A.shape[-1]
    return call(name, A.dtype, A.numel() // (n * n), n, *arguments)


def lanes_of(dtype: torch.dtype) -> int:
    """Matrices that one block of the instruction set in use holds."""
    lanes = _lanes.get(dtype)
    if lanes is None:
        lanes = _lanes[dtype] = load().lk_lanes(DTYPES[dtype])
    return lanes


def new_packed(A: Tensor, batch: int, n: int) -> Tensor:
    """Room for eigenvectors and eigenvalues as the library computes them (see abi.h)."""
    lanes = lanes_of(A.dtype)
    # A last dimension that tells what instruction set it is for.
    return A.new_empty((-(-batch // lanes), n * _leading(n) + n, lanes))


def is_packed(packed: Tensor) -> bool:
    """Whether the instruction set in use takes what another call has packed."""
    return packed.shape[-1] == lanes_of(packed.dtype) and packed.data_ptr() % 64 == 0


def unpack(packed: Tensor, shape: torch.Size) -> tuple[Tensor, Tensor]:
    """w (*batch, n) and V (*batch, n, n), of that shape, from packed eigensystems."""
    n, ld = shape[-1], _leading(shape[-1])
    flat = packed.mT.reshape(-1, packed.shape[1])[: math.prod(shape[:-2])]
    V = flat[:, : n * ld].view(-1, n, ld)[..., :n].mT
    return flat[:, n * ld :].reshape(shape[:-1]), V.reshape(shape)


def pack(w: Tensor, V: Tensor) -> Tensor:
    """Packed eigensystems from w (*batch, n) and V (*batch, n, n)."""
    n = V.shape[-1]
    batch = w.numel() // n
    packed = new_packed(w, batch, n)
    flat = w.new_zeros((packed.shape[0] * packed.shape[2], packed.shape[1]))
    flat[:batch, n * _leading(n) :] = w.reshape(batch, n)
    flat[:batch, : n * _leading(n)].view(batch, n, -1)[..., :n] = V.reshape(batch, n, n).mT
    return packed.copy_(flat.view(packed.shape[0], packed.shape[2], -1).mT)


def _leading(n: int) -> int:
    return n + 1 if n % 4 == 0 else n


def address(T: Tensor | None) -> int | None:
    """Where T lies; None where there is none."""
    return None if T is None else T.data_ptr()


def repeats(P: Tensor, batch: tuple[int, ...]) -> tuple[Tensor, int]:
    """P and a number such that P[b // number] is the matrix of element b of the batch.

    Copies nothing where P varies over leading dimensions only.
    """
    own = (1,) * (len(batch) - P.ndim + 2) + tuple(P.shape[:-2])
    cut = max((i + 1 for i, size in enumerate(own) if size != 1), default=0)
    if own[:cut] != batch[:cut]:
        return P.expand(*batch, *P.shape[-2:]).contiguous(), 1
    return P.contiguous(), math.prod(batch[cut:])


def cycles(Q: Tensor, batch: tuple[int, ...]) -> tuple[Tensor, int]:
    """Q and a number such that Q[b % number] is the matrix of element b of the batch.

    Copies nothing where Q varies over trailing dimensions only.
    """
    shape = tuple(Q.shape[:-2])
    own = shape[next((i for i, size in enumerate(shape) if size != 1), len(shape)) :]
    if own != batch[len(batch) - len(own) :]:
        return Q.expand(*batch, *Q.shape[-2:]).contiguous(), math.prod(batch)
    return Q.contiguous(), math.prod(own)
