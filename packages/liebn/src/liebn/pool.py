"""Which matrices of a batch make one set, for statistics: all of a channel, or those of a domain.

A pool averages over each set and hands what belongs to a set back to its members. Groups
take their means through it, so that the same iteration serves channels, domains and several
processes (`liebn.sync`).
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor


@runtime_checkable
class Pool(Protocol):
    """Sets within a batch of matrices `(*batch, a, b)`."""

    def mean(self, T: Float[Tensor, "*batch a b"]) -> Float[Tensor, "*sets a b"]:
        """The arithmetic mean of each set."""
        ...

    def first(self, T: Float[Tensor, "*batch a b"]) -> Float[Tensor, "*sets a b"]:
        """The first element of each set."""
        ...

    def spread(self, T: Float[Tensor, "*sets a b"]) -> Float[Tensor, "..."]:
        """What belongs to each set, in a shape that broadcasts with the batch."""
        ...


@dataclass(frozen=True)
class ChannelPool:
    """Sets are what is left of the batch shape when the dimensions `dims` (>= 0) are averaged."""

    dims: tuple[int, ...]

    def mean(self, T: Float[Tensor, "*batch a b"]) -> Float[Tensor, "*sets a b"]:
        """Averages over `dims`, which stay with size 1."""
        return T.mean(self.dims, keepdim=True) if self.dims else T

    def first(self, T: Float[Tensor, "*batch a b"]) -> Float[Tensor, "*sets a b"]:
        """The element 0 of each of `dims`."""
        for dim in self.dims:
            T = T.narrow(dim, 0, 1)
        return T

    def spread(self, T: Float[Tensor, "*sets a b"]) -> Float[Tensor, "..."]:
        """T, which broadcasts as it is."""
        return T


@dataclass(frozen=True)
class DomainPool:
    """Sets are told apart by `index` along dimension 0, `count` of them, none empty.

    `channels` averages the dimensions behind the first. The sets come along dimension 0.
    """

    index: Int64[Tensor, " b"]
    count: int
    channels: ChannelPool

    def sizes(self) -> Int64[Tensor, " count"]:
        """Entries of `index` in each set."""
        return torch.bincount(self.index, minlength=self.count)

    def mean(self, T: Float[Tensor, "*batch a b"]) -> Float[Tensor, "*sets a b"]:
        """The mean of each set."""
        T = self.channels.mean(T)
        total = T.new_zeros(self.count, *T.shape[1:]).index_add(0, self.index, T)
        return total / self.sizes().to(T.dtype).reshape(-1, *[1] * (T.ndim - 1))

    def first(self, T: Float[Tensor, "*batch a b"]) -> Float[Tensor, "*sets a b"]:
        """The first entry of each set."""
        order = torch.arange(len(self.index), device=self.index.device)
        first = torch.full((self.count,), len(self.index), device=order.device)
        first = first.scatter_reduce(0, self.index, order, "amin")
        return self.channels.first(T)[first]

    def spread(self, T: Float[Tensor, "*sets a b"]) -> Float[Tensor, "..."]:
        """Each entry's own."""
        return T[self.index]
