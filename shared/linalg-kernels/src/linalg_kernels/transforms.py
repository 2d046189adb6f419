"""What every rule here shares under torch.func transforms."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd import Function

from linalg_kernels import errors


def batch_first(size: int, dims: tuple, tensors: tuple) -> list:
    """The vmapped dimension of each tensor moved to the front; expanded where there is none."""
    moved = []
    for T, dim in zip(tensors, dims, strict=True):
        if T is None:
            moved.append(None)
        elif dim is None:
            moved.append(T.expand(size, *T.shape))
        else:
            moved.append(T.movedim(dim, 0))
    return moved


class _Inspect(Function):
    """The identity. Its forward sees values that a transform hides from the caller."""

    @staticmethod
    def forward(T, look):
        look(T)
        return T.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, G):  # noqa: ARG004
        return G, None

    @staticmethod
    def jvp(ctx, dT, _):  # noqa: ARG004
        return dT

    @staticmethod
    def vmap(info, dims, T, look):
        (T,) = batch_first(info.batch_size, dims[:1], (T,))
        return _Inspect.apply(T, look), 0


def inspect(T: Tensor, look: Callable[[Tensor], None]) -> Tensor:
    """T, after `look` has seen its values; also under vmap, where Python cannot read them."""
    if not errors.can_read(T):
        return T
    if torch._C._functorch.is_functorch_wrapped_tensor(T):
        return _Inspect.apply(T, look)
    look(T.detach())
    return T


def read(value: Tensor) -> float | None:
    """The number in a one-element tensor, or None where tracing or vmap hides it."""
    if not errors.can_read(value):
        return None
    try:
        return float(value)
    except RuntimeError:
        # vmap refuses to give one number for a batch of them.
        return None
