"""Which tensors the native library may be given: memory of the CPU that nothing else follows."""

from collections.abc import Sequence
from contextvars import ContextVar
from typing import Literal

import torch
from torch import Tensor

from linalg_kernels.backends import native

Choice = Literal["auto", "torch", "native", "triton"]

# What the caller wishes; see `choice.backend`.
chosen: ContextVar[Choice] = ContextVar("linalg_kernels_backend", default="auto")

# Orders that the native library takes: beyond, blocks outgrow the cache.
NATIVE_LIMIT = 128
# Orders up to which it computes with one matrix at a time: beyond, LAPACK's eigensystem is what
# takes the time.
WIDE_LIMIT = 1024

PLAIN = (Tensor, torch.nn.Parameter)
is_wrapped = torch._C._functorch.is_functorch_wrapped_tensor
is_batched = torch._C._functorch.is_legacy_batchedtensor


def are_plain(tensors: Sequence[Tensor | None], dtype: torch.dtype) -> bool:
    """Whether all are memory of the CPU, and not stand-ins of a transform."""
    for T in tensors:
        if T is not None and (
            type(T) not in PLAIN
            or not T.is_cpu
            or T.dtype != dtype
            or is_wrapped(T)
            or is_batched(T)
        ):
            return False
    return True


def is_plain(T: Tensor) -> bool:
    """Whether T is memory of the CPU, of a dtype of the native library, and nothing is traced."""
    if torch.compiler.is_compiling():
        return False
    return T.dtype in native.DTYPES and are_plain((T,), T.dtype)


def seen_clean(A: Tensor, asymmetry: float) -> bool:
    """Whether the library has looked at the matrices A, in one pass, and found nothing."""
    if chosen.get() in ("torch", "triton") or A.numel() == 0 or not is_plain(A):
        return False
    return A.shape[-1] <= NATIVE_LIMIT and native.available() and not native.inspect(A, asymmetry)
