"""Statistics over the processes of `torch.distributed`: the analogue of SyncBatchNorm."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd import Function

from liebn.batch_norm import LieBatchNorm
from liebn.domain import DomainLieBatchNorm
from liebn.group import LieGroup
from liebn.pool import ChannelPool, Pool
from liebn.roll_call import roll_call


class _AllReduce(Function):
    """The sum over all processes; the gradient is the sum of their gradients."""

    @staticmethod
    def forward(ctx, T, group):
        ctx.group = group
        total = T.contiguous().clone()
        with roll_call("statistics over processes", group):
            dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx, G):
        return _AllReduce.apply(G, ctx.group), None


@dataclass(frozen=True)
class SyncPool:
    """A `ChannelPool` whose sets reach over all processes, `count` elements in all.

    `source` is the first process that has an element.
    """

    local: ChannelPool
    count: int
    source: int
    group: dist.ProcessGroup | None

    def mean(self, T: Float[Tensor, "*batch a b"]) -> Float[Tensor, "*sets a b"]:
        """The mean over all processes. A Karcher step is one of these of a tangent."""
        return _AllReduce.apply(T.sum(self.local.dims, keepdim=True), self.group) / self.count

    def first(self, T: Float[Tensor, "*batch a b"]) -> Float[Tensor, "*sets a b"]:
        """The first element of the first process that has one, a constant to autograd."""
        shape = [1 if dim in self.local.dims else size for dim, size in enumerate(T.shape)]
        found = T.new_empty(shape)
        if dist.get_rank(self.group) == self.source:
            found.copy_(self.local.first(T.detach()))
        with roll_call("statistics over processes", self.group):
            dist.broadcast(found, group=self.group, group_src=self.source)
        return found

    def spread(self, T: Float[Tensor, "*sets a b"]) -> Float[Tensor, "..."]:
        """T, which broadcasts as it is."""
        return T


class SyncLieBatchNorm(LieBatchNorm):
    """`LieBatchNorm` whose statistics are those of the joined batch of all processes.

    Batches may differ in size, and all but one may be empty. Arguments: those of
    `LieBatchNorm`, and `process_group` (None: all processes). Outputs, running statistics and
    gradients of the input are those of one process on the joined batch. Where
    torch.distributed is not initialised, and in eval mode, it is a `LieBatchNorm`. Where a
    process dies or stalls, the others end with LostProcessError, which names it.
    """

    def __init__(
        self,
        group: LieGroup,
        shape: int | Sequence[int],
        momentum: float | None = 0.1,
        eps: float = 1e-5,
        karcher_steps: int | None = 1,
        *,
        differentiable: bool = False,
        trivialized: bool = True,
        process_group: dist.ProcessGroup | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(
            group, shape, momentum, eps, karcher_steps,
            differentiable=differentiable, trivialized=trivialized, dtype=dtype, device=device,
        )  # fmt: skip
        self.process_group = process_group

    def _pool(self, X: Tensor) -> Pool:
        if not (dist.is_available() and dist.is_initialized()):
            return super()._pool(X)
        dims = self.pooled_dims(X)
        mine = torch.tensor([math.prod(X.shape[dim] for dim in dims)], device=X.device)
        counts = [torch.empty_like(mine) for _ in range(dist.get_world_size(self.process_group))]
        with roll_call("batch sizes of the processes", self.process_group):
            dist.all_gather(counts, mine, group=self.process_group)
        sizes = [int(count) for count in counts]
        total = sum(sizes)
        if total < 2:
            raise ValueError(f"training needs at least 2 matrices a channel, got {total} in all")
        source = next(rank for rank, size in enumerate(sizes) if size)
        return SyncPool(ChannelPool(dims), total, source, self.process_group)


def convert_sync(model: nn.Module, process_group: dist.ProcessGroup | None = None) -> nn.Module:
    """The model with every `LieBatchNorm` made a `SyncLieBatchNorm`, parameters kept.

    Raises TypeError for a `DomainLieBatchNorm`, whose statistics are not synchronised.
    """
    if isinstance(model, DomainLieBatchNorm):
        raise TypeError("statistics of DomainLieBatchNorm cannot be synchronised")
    if type(model) is LieBatchNorm:
        found = SyncLieBatchNorm(
            model.group, model.shape, model.momentum, model.eps, model.karcher_steps,
            differentiable=model.differentiable, trivialized=hasattr(model, "parametrizations"),
            process_group=process_group,
        )  # fmt: skip
        # The same parameters and buffers, not copies: an optimiser that has them keeps them.
        found._buffers = model._buffers
        found._modules = model._modules
        found._parameters = model._parameters
        return found.train(model.training)
    for name, child in model.named_children():
        setattr(model, name, convert_sync(child, process_group))
    return model
