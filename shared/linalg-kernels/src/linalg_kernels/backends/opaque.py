"""Primitives as operators of PyTorch, for graphs: a compiler sees shapes, not what is inside.

Each comes back to `select` when the graph runs, which then chooses by the batch at hand. They
carry no derivative: the rules around them (`daleckii_krein`, `cholesky`) do, and an operator
that is differentiated by itself raises. Real matrices on the CPU only; others are traced as the
operations they consist of.
"""

from collections.abc import Callable
from types import FunctionType

import torch
from torch import Tensor

from linalg_kernels import scalar
from linalg_kernels.backends import select
from linalg_kernels.transforms import batch_first


def _operator(fake: Callable) -> Callable[[FunctionType], None]:
    """Registers linalg_kernels::name; `fake` makes empty results from the same arguments.

    Under vmap the batch dimension goes in front.
    """

    def register(fn: FunctionType) -> None:
        operator = torch.library.custom_op(f"linalg_kernels::{fn.__name__}", fn, mutates_args=())
        operator.register_fake(fake)

        def batched(info, dims, *arguments):
            moved = [
                batch_first(info.batch_size, (dim,), (a,))[0] if isinstance(a, Tensor) else a
                for dim, a in zip(dims, arguments, strict=True)
            ]
            results = operator(*moved)
            return results, 0 if isinstance(results, Tensor) else (0,) * len(results)

        operator.register_vmap(batched)

    return register


def _vector(A: Tensor) -> Tensor:
    return A.new_empty(A.shape[:-1])


def _matrix(A: Tensor) -> Tensor:
    return A.new_empty(A.shape)


@_operator(lambda A, symmetrize: (_vector(A), _matrix(A)))  # noqa: ARG005
def eigh(A: Tensor, symmetrize: bool) -> tuple[Tensor, Tensor]:
    w, V = select.eigh(A, symmetrize, False, "A")
    return w, V.contiguous()


@_operator(lambda A, symmetrize: _vector(A))  # noqa: ARG005
def eigvalsh(A: Tensor, symmetrize: bool) -> Tensor:
    return select.eigvalsh(A, symmetrize, False, "A")


@_operator(lambda A, *_: (_matrix(A), _vector(A), _matrix(A)))
def spectral(
    A: Tensor, p: Tensor | None, fn: str, floor: float, symmetrize: bool
) -> tuple[Tensor, Tensor, Tensor]:
    F, w, V = select.spectral(A, p, scalar.decode(fn, floor), symmetrize, False, "A")
    return F.contiguous(), w, V.contiguous()


@_operator(lambda w, V, *_: _matrix(V))  # noqa: ARG005
def evaluate(w: Tensor, V: Tensor, p: Tensor | None, fn: str, floor: float) -> Tensor:
    return select.evaluate(w, V, p, scalar.decode(fn, floor)).contiguous()


@_operator(lambda w, V, *_: _matrix(V))  # noqa: ARG005
def frechet(w: Tensor, V: Tensor, E: Tensor, p: Tensor | None, fn: str, floor: float) -> Tensor:
    return select.frechet(w, V, E, p, scalar.decode(fn, floor)).contiguous()


@_operator(lambda A, _: (_matrix(A), A.new_empty(A.shape[:-2], dtype=torch.int32)))
def cholesky(A: Tensor, symmetrize: bool) -> tuple[Tensor, Tensor]:
    L, info = select.cholesky(A, symmetrize, False, "A")
    if info is None:
        info = torch.zeros(A.shape[:-2], dtype=torch.int32)
    return L.contiguous(), info


@_operator(lambda L, G: _matrix(L))  # noqa: ARG005
def cholesky_vjp(L: Tensor, G: Tensor) -> Tensor:
    return select.cholesky_vjp(L, G).contiguous()
