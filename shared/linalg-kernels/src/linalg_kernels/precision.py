"""Half precision and autocast.

Eigenvalues and factorisations need at least float32. float16 and bfloat16 input is refused
unless `upcast=True`, which computes in float32 and gives the result back in the input's
dtype; inside a `torch.autocast` region input of half precision is computed and returned in
float32, as PyTorch's own float32-listed operations do. The decorator that sees to it is around
every operation, and so also sees to it that one with `check=False` does not wait for a GPU.
"""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

from linalg_kernels import errors

_HALF = (torch.float16, torch.bfloat16)

P = ParamSpec("P")
R = TypeVar("R")


def autocasting(device_type: str) -> bool:
    return torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type)


def promote(A: Tensor, upcast: bool) -> tuple[Tensor, torch.dtype | None]:
    """A in a dtype that can be computed with, and the dtype to give the result back in."""
    if upcast and isinstance(A, Tensor) and A.dtype in _HALF:
        return A.float(), A.dtype
    return A, None


def restore(F: Tensor, dtype: torch.dtype | None) -> Tensor:
    return F if dtype is None else F.to(dtype)


def _widened(a: object) -> object:
    return a.float() if isinstance(a, Tensor) and a.dtype in _HALF else a


def _on_device(args: tuple[object, ...]) -> bool:
    """Whether the first argument is a tensor that Python would wait for."""
    A = args[0] if args else None
    return isinstance(A, Tensor) and not A.is_cpu and not torch.compiler.is_compiling()


def full_precision(fn: Callable[P, R]) -> Callable[P, R]:
    """Inside autocast, run with autocast off and tensors of half precision taken to float32.

    Otherwise autocast would round the operands of every matrix product in `fn`. With
    `check=False` nothing in `fn` waits for a GPU.
    """

    @functools.wraps(fn)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        if kwargs.get("check") is False and _on_device(args) and errors.may_wait():
            with errors.waiting(False):
                return wrapped(*args, **kwargs)
        if not torch._C._is_any_autocast_enabled():
            return fn(*args, **kwargs)
        device = next((a.device.type for a in args if isinstance(a, Tensor)), None)
        if device is None or not autocasting(device):
            return fn(*args, **kwargs)
        with torch.autocast(device, enabled=False):
            return fn(*(_widened(a) for a in args), **kwargs)  # ty: ignore[invalid-argument-type]

    return wrapped
