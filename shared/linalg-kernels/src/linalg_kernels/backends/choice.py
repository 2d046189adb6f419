"""Which implementation is used: by the caller's wish, device, dtype, order and size of a batch."""

import contextlib
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

from linalg_kernels import errors
from linalg_kernels.backends import gpu, native
from linalg_kernels.backends.plain import (
    NATIVE_LIMIT,
    PLAIN,
    WIDE_LIMIT,
    Choice,
    are_plain,
    chosen,
    is_batched,
    is_wrapped,
)
from linalg_kernels.transforms import transformed


def _constant_in_graphs(fn: Callable[..., bool]) -> Callable[..., bool]:
    """As `torch.compiler.assume_constant_result`, which imports Dynamo: most of a second."""
    fn._dynamo_marked_constant = True  # ty: ignore[missing-attribute]
    return fn


def _smallest_batches(*steps: tuple[int, int]) -> tuple[int, ...]:
    """For each order the smallest batch, from steps (largest order, smallest batch)."""
    return tuple(next(k for last, k in steps if n <= last) for n in range(NATIVE_LIMIT + 1))


# A block costs the same with one matrix in it as with all of its lanes filled. Smallest batch
# for which the native library was measured to be the faster one.
EIGEN = _smallest_batches((32, 1), (48, 2), (64, 3), (96, 4), (112, 5), (128, 6))
SPECTRAL = EIGEN
PRODUCT = _smallest_batches((48, 1), (64, 3), (128, 6))
CHOLESKY = _smallest_batches((32, 1), (128, 2))


@contextlib.contextmanager
def backend(name: Choice) -> Generator[None]:
    """Compute with "torch", with "native" or "triton" wherever they can, or with the fastest.

    "native" serves tensors of the CPU, "triton" those of NVIDIA GPUs; what they do not take, torch
    computes. Holds for the current thread (context), also for the backward pass if it runs inside.

    Raises:
        ValueError: for another name.
        NativeUnavailableError: "native" where there is no native library; says why.
        TritonUnavailableError: "triton" where there is no Triton or nothing that runs it; says why.
    """
    if name not in get_args(Choice):
        raise ValueError(f"backend must be one of {get_args(Choice)}, got {name!r}")
    if name == "native":
        native.load()
    if name == "triton":
        gpu.require()
    token = chosen.set(name)
    try:
        yield
    finally:
        chosen.reset(token)


# torch.linalg.eigh of a batch on CUDA. What this package was tested with is said by its version;
# how that chooses among cuSOLVER's routines was read in its issues, not measured.
_CUDA_LOOP = (
    f"torch.linalg beyond, whose eigh is known to solve a batch on a GPU one matrix after the "
    f"other above order {gpu.LIMIT}"
)


@dataclass(frozen=True)
class BackendInfo:
    """What computes, and why; `str()` says it in words.

    Attributes:
        choice: "auto", "torch", "native" or "triton", as set by `backend`.
        native: The loaded native library, or None.
        reason: Why there is none; empty if there is.
        triton: Triton and the GPUs whose tensors its kernels take, or None.
        triton_reason: Why there is none; empty if there is.
    """

    choice: Choice
    native: native.NativeInfo | None
    reason: str
    triton: gpu.TritonInfo | None
    triton_reason: str

    def __str__(self) -> str:
        return f"{self._on_cpu()}; {self._on_gpu()}"

    def _on_cpu(self) -> str:
        if self.native is None:
            return f"torch for everything on the CPU, because of no native library: {self.reason}"
        found = (
            f"native library (interface {self.native.abi}, instruction set "
            f"{self.native.isa} of {', '.join(self.native.isas)}, up to {self.native.threads} "
            "threads)"
        )
        if self.choice in ("torch", "triton"):
            return (
                f'torch for everything on the CPU, because of backend("{self.choice}"); '
                f"there is a {found}"
            )
        what = "wherever it can" if self.choice == "native" else "where it is the faster one"
        return (
            f"{found} for real CPU tensors of order <= {NATIVE_LIMIT}, {what}, and around "
            f"LAPACK's eigensystems up to order {WIDE_LIMIT}; torch for everything else on the CPU"
        )

    def _on_gpu(self) -> str:
        if self.triton is None:
            return f"on GPUs torch alone: {self.triton_reason}"
        where = ", ".join(self.triton.devices)
        found = f"Triton {self.triton.version} ({where})"
        if self.choice in ("torch", "native"):
            return f'on GPUs torch alone, because of backend("{self.choice}"); there is {found}'
        return f"on GPUs {found} for real matrices of order <= {gpu.LIMIT}, {_CUDA_LOOP}"


def backend_info() -> BackendInfo:
    """Which implementations there are and which is used."""
    there, triton = native.available(), gpu.info()
    return BackendInfo(
        chosen.get(),
        native.info() if there else None,
        "" if there else native.why_unavailable(),
        triton,
        gpu.why_unavailable(),
    )


def native_takes(least: tuple[int, ...], A: Tensor, *others: Tensor | None) -> bool:
    """Whether the native library computes a primitive of A.

    `least` says from which batch on it is the faster one.
    """
    choice = chosen.get()
    if choice in ("torch", "triton"):
        return False
    n, size, dtype = A.shape[-1], A.numel(), A.dtype
    if not 1 <= n <= NATIVE_LIMIT or size == 0 or dtype not in native.DTYPES:
        return False
    if choice == "auto" and size < least[n] * n * n:
        return False
    return are_plain((A, *others), dtype) and native.available()


def library_takes(A: Tensor, *others: Tensor | None) -> bool:
    """Whether the library may be given A, which is not empty, and others of its dtype."""
    if chosen.get() in ("torch", "triton") or A.numel() == 0 or A.dtype not in native.DTYPES:
        return False
    return are_plain((A, *others), A.dtype) and native.available()


def wide_takes(A: Tensor, *others: Tensor | None) -> bool:
    """Whether the library does what lies around an eigensystem of A that it leaves to LAPACK.

    That is one too large for its blocks, or of too few matrices to fill them.
    """
    if torch.compiler.is_compiling() or not 1 < A.shape[-1] <= WIDE_LIMIT:
        return False
    return library_takes(A, *others)


def native_goes_on(G: Tensor) -> bool:
    """Whether the library computes, from G, the gradient of what it has computed.

    Not where a derivative of that is asked for, and not if the caller has chosen otherwise since.
    """
    if torch.is_grad_enabled() or transformed() or chosen.get() in ("torch", "triton"):
        return False
    return are_plain((G,), G.dtype)


def opaque_takes(A: Tensor) -> bool:
    """Whether a primitive of A, met while a graph is traced, becomes one operator."""
    if chosen.get() in ("torch", "triton") or not 1 <= A.shape[-1] <= NATIVE_LIMIT:
        return False
    return A.device.type == "cpu" and A.dtype in native.DTYPES and _available()


@_constant_in_graphs
def _available() -> bool:
    return native.available()


def triton_takes(order: int, limit: int, A: Tensor, *others: Tensor | None) -> bool:
    """Whether the Triton kernels compute a primitive of A of this order, in a graph or now."""
    choice, kind = chosen.get(), A.device.type
    if choice in ("torch", "native") or A.dtype not in gpu.DTYPES:
        return False
    if kind != "cuda" and not (kind == "cpu" and choice == "triton"):
        return False
    if not 1 <= order <= limit or not _kernels_run(kind, A.device.index or 0):
        return False
    if torch.compiler.is_compiling():
        return True
    for T in (A, *others):
        if T is not None and not (
            type(T) in (*PLAIN, FakeTensor)
            and T.device == A.device
            and T.dtype == A.dtype
            and not is_wrapped(T)
            and not is_batched(T)
        ):
            return False
    return A.numel() > 0


@_constant_in_graphs
def _kernels_run(kind: str, index: int) -> bool:
    return gpu.runs_on(kind, index)


def kernel(name: str, A: Tensor) -> Callable[..., Any]:
    """A function of `backends.triton.operators`, or where A is traced its operator."""
    if torch.compiler.is_compiling() or watched(A):
        return getattr(torch.ops.linalg_kernels, f"triton_{name}")
    return getattr(gpu.operators(), name)


def watched(A: Tensor) -> bool:
    """Whether A has no values, or a dispatch mode sees what is done with it."""
    return type(A) is FakeTensor or _get_current_dispatch_mode() is not None


def settled_on_gpu(found: Tensor, check: bool, allowed: int = 0) -> bool:
    """Whether results of kernels stand. Waits for the device, if values may be read at all."""
    if not check or not errors.can_read(found):
        return True
    return not bool((found & ~allowed).any())


def prefers_kernels() -> bool:
    """Whether the caller asked for the Triton kernels, as in their interpreter on the CPU."""
    return chosen.get() == "triton"
