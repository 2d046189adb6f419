"""Reading arguments: batches of symmetric matrices in a precision that can be computed with."""

from collections.abc import Generator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from linalg_kernels import errors
from linalg_kernels.transforms import inspect
from torch import Tensor

HALF = (torch.float16, torch.bfloat16)


@contextmanager
def full_precision(device: torch.device) -> Generator[None]:
    """Autocast switched off: it would round the operands of every matrix product."""
    if torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type):
        with torch.autocast(device.type, enabled=False):
            yield
    else:
        yield


def traced() -> bool:
    """Whether a compiler, an exporter, a transform or forward mode must see plain operations."""
    return (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or torch.autograd.forward_ad._current_level >= 0
    )


def widened(T: Tensor) -> Tensor:
    """T in float32 if it is float16 or bfloat16, else T."""
    return T.float() if T.dtype in HALF else T


def matrices(P: Tensor, check: bool, *, symmetrise: bool = True) -> Float[Tensor, "*batch n n"]:
    """P as symmetric matrices of at least float32; as it is, but for its dtype, if so asked.

    Raises TypeError or ValueError for what is no real (..., n, n), and with `check` also
    LinAlgError naming the element that holds NaN or Inf, ValueError naming one that is far
    from symmetric. While a graph is traced values are not looked at.
    """
    if isinstance(P, Tensor):
        P = widened(P)
    errors.require_float(P, "P")
    errors.require_real(P, "P")
    errors.require_square(P, "P")
    if check:
        P = inspect(P, lambda T: errors.check_matrices(T, "P"))
    return (P + P.mT) / 2 if symmetrise else P


def trace(P: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch 1 1"]:
    """tr P, shaped to divide P."""
    return P.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]


def require_positive(value: float, name: str) -> None:
    """ValueError unless value > 0 and finite."""
    if not 0 < value < float("inf"):
        raise ValueError(f"{name} must be > 0 and finite, got {value}")


def require_not_negative(value: float, name: str) -> None:
    """ValueError unless value >= 0 and finite."""
    if not 0 <= value < float("inf"):
        raise ValueError(f"{name} must be >= 0 and finite, got {value}")


def require_one_of(value: object, allowed: tuple[object, ...], name: str) -> None:
    """ValueError unless value is one of `allowed`."""
    if value not in allowed:
        told = ", ".join(map(repr, allowed))
        raise ValueError(f"{name} must be one of {told}, got {value!r}")
