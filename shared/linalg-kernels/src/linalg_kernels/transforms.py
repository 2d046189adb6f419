"""What every rule here shares under torch.func transforms."""

import inspect as _inspect
from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd import Function

from linalg_kernels import errors


class Rule(Function):
    """A Function with `setup_context` whose `apply` costs less.

    PyTorch looks up the signature of `forward` in every call, 30 µs; a function that carries
    its signature is spared that.
    """

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        forward = cls.__dict__.get("forward")
        if isinstance(forward, staticmethod):
            signature = _inspect.signature(forward.__func__)
            forward.__func__.__signature__ = signature


class EagerRule(Function):
    """A Function for plain eager autograd, where nothing but a gradient is asked for.

    `forward(ctx, ...)` saves what it likes, which spares the bookkeeping of `Rule`: 15 µs in
    forward and backward together. Nor does `apply` look for transforms: there are none.
    """

    apply = torch._C._FunctionBase.__dict__["apply"]


def transformed() -> bool:
    """Whether a tracer, a transform or forward mode may ask more of a call than a gradient."""
    return (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or torch.autograd.forward_ad._current_level >= 0
    )


def differentiated(*tensors: Tensor | None) -> bool:
    """Whether autograd records what is done with one of the tensors."""
    if torch.is_grad_enabled():
        for T in tensors:
            if T is not None and T.requires_grad:
                return True
    return False


def needs_rule(*tensors: Tensor | None) -> bool:
    """Whether a derivative, a transform or a tracer may ask more of a call than its value."""
    return differentiated(*tensors) or transformed()


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
