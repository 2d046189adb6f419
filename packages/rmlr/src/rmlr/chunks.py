"""Functions of all pairs (sample, class), in pieces that fit a bound of memory.

A pair of a curved metric takes several n x n matrices; for many classes that is more than
anything else in a network. Pieces are computed one after another, and computed again for
their derivatives, so that at any time only one piece is held. The numbers are the same.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

DEFAULT_MEMORY = 1 << 30
"""Bytes that pairs may take before they are cut into pieces: 1 GiB."""


def in_chunks(
    fn: Callable[..., Float[Tensor, "b c"]],
    samples: tuple[Tensor, ...],
    classes: tuple[Tensor, ...],
    *,
    pair_matrices: int,
    memory: int | None = None,
) -> Float[Tensor, "b c"]:
    """fn(*samples, *classes), whole or piece by piece.

    Args:
        fn: From tensors (b, ...) and (c, ...) to a score (b, c) for each pair.
        samples: Tensors with one entry a sample.
        classes: Tensors with one entry a class.
        pair_matrices: How many matrices like an entry of `samples[0]` a pair takes.
        memory: The bound in bytes; None means `DEFAULT_MEMORY`.
    """
    bound = DEFAULT_MEMORY if memory is None else memory
    if bound < 1:
        raise ValueError(f"memory must be >= 1 (bytes), got {memory}")
    b, c = len(samples[0]), len(classes[0])
    entry = samples[0][:1].numel() * samples[0].element_size()
    pairs = max(1, bound // max(1, pair_matrices * entry))
    if b * c <= pairs:
        return fn(*samples, *classes)
    columns = max(1, pairs // b)
    rows = b if columns > 1 else min(b, pairs)
    differentiable = torch.is_grad_enabled() and any(T.requires_grad for T in (*samples, *classes))

    def piece(*tensors: Tensor) -> Tensor:
        if not differentiable:
            return fn(*tensors)
        return checkpoint(fn, *tensors, use_reentrant=False, preserve_rng_state=False)

    table = []
    for k in range(0, c, columns):
        some = tuple(T[k : k + columns] for T in classes)
        column = [piece(*(T[i : i + rows] for T in samples), *some) for i in range(0, b, rows)]
        table.append(torch.cat(column))
    return torch.cat(table, -1)
