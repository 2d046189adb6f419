"""The native CPU library: found, checked and called through ctypes.

Functions here take plain CPU tensors, know nothing of autograd and never look
at the values they return: what happened to a matrix stands in `info`.
"""

import contextlib
import ctypes
import functools
import importlib.resources
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

ABI_VERSION = 1
ISA_VARIABLE = "LINALG_KERNELS_ISA"

_DTYPES = {torch.float32: 0, torch.float64: 1}
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
    for name in names:
        candidate = folder / name
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
    library.lk_cholesky.argtypes = [i32, i64, i32, pointer, pointer, pointer, i32]


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
    return library


def available() -> bool:
    """Whether the native library can be used here."""
    return not why_unavailable()


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
def use_isa(isa: str) -> Iterator[None]:
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


def _call(name: str, *arguments: object) -> None:
    library = load()
    status = getattr(library, name)(*arguments, torch.get_num_threads())
    if status:
        raise RuntimeError(f"native library, {name}: {_ERRORS[status]}")


def cholesky(
    A: Float[Tensor, "*batch n n"],
) -> tuple[Float[Tensor, "*batch n n"], Int[Tensor, "*batch"]]:
    """L with L L^T = A, read from the lower triangle, and info.

    info is 0, or k if the leading minor of order k is not positive definite or
    not finite; L of that matrix is NaN. Equivalent to `torch.linalg.cholesky_ex`.
    """
    n = A.shape[-1]
    A = A.contiguous()
    L = torch.empty_like(A)
    info = torch.empty(A.shape[:-2], dtype=torch.int32)
    if A.numel() == 0:
        return L, info.zero_()
    _call(
        "lk_cholesky",
        _DTYPES[A.dtype],
        info.numel(),
        n,
        A.data_ptr(),
        L.data_ptr(),
        info.data_ptr(),
    )
    return L, info
