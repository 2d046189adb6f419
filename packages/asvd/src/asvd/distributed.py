"""Calibration and decomposition over the processes of torch.distributed.

Each process reads its share of the batches and sums its moments with the others'; each layer is
decomposed by one process, which gives the result to all. Without a process group nothing here
does anything. Where a process dies or stalls, the others end with LostProcessError, which names it.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from asvd.roll_call import roll_call
from asvd.statistics import GradientMoments, InputMoments

Item = TypeVar("Item")


def processes() -> tuple[int, int]:
    """(this process's rank, number of processes)."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def share(items: Sequence[Item]) -> list[Item]:
    """This process's part of the items; all parts together are the whole.

    Raises ValueError where there are fewer items than processes: an idle one would wait.
    """
    rank, world = processes()
    if len(items) < world:
        raise ValueError(
            f"calibration must have at least one batch for each of {world} processes, "
            f"got {len(items)}"
        )
    return list(items[rank::world])


def sum_moments(moments: InputMoments | GradientMoments) -> None:
    """Adds up the moments of all processes, in place, in each of them."""
    if processes()[1] == 1:
        return
    for name, tensor in moments.state().items():
        operation = dist.ReduceOp.MAX if name == "abs_max" else dist.ReduceOp.SUM
        with roll_call("calibration, summing moments"):
            dist.all_reduce(tensor, operation)
        getattr(moments, name).copy_(tensor)


def is_mine(position: int) -> bool:
    """Whether this process decomposes the layer at the position in the list of layers."""
    rank, world = processes()
    return position % world == rank


def from_owner(tensors: Sequence[Tensor], position: int) -> None:
    """Overwrites the tensors with those of the process that owns the position, in place."""
    world = processes()[1]
    if world == 1:
        return
    for tensor in tensors:
        with roll_call("decomposition, from the process that owns a layer"):
            dist.broadcast(tensor, src=position % world)


def sum_scalars(*values: float) -> tuple[float, ...]:
    """The sums over all processes."""
    if processes()[1] == 1:
        return values
    total = torch.tensor(values, dtype=torch.float64)
    with roll_call("perplexity, summing over processes"):
        dist.all_reduce(total)
    return tuple(total.tolist())


def sum_tensors(*tensors: Tensor) -> None:
    """Adds up the tensors of all processes, in place, in each of them."""
    if processes()[1] > 1:
        for tensor in tensors:
            with roll_call("calibration, summing moments"):
                dist.all_reduce(tensor)


def spread(has: bool, read: Callable[[], bytes], keep: Callable[[bytes], None]) -> bool:
    """Gives what one process has to those that have not; whether any had it.

    An interrupted run may leave a result with some of the processes, and who has it may have no
    longer what it was made of. `read` gives the bytes where `has`, `keep` takes them where not.
    """
    world = processes()[1]
    if world == 1:
        return has
    found = [torch.zeros(1, dtype=torch.long) for _ in range(world)]
    with roll_call("asking which process has a result"):
        dist.all_gather(found, torch.tensor([int(has)]))
    holders = [rank for rank, flag in enumerate(found) if flag]
    if not holders or len(holders) == world:
        return bool(holders)
    source = holders[0]
    mine = read() if processes()[0] == source else b""
    size = torch.tensor([len(mine)])
    with roll_call("sharing a result of an interrupted run"):
        dist.broadcast(size, src=source)
        data = torch.empty(int(size), dtype=torch.uint8)
        if mine:
            data = torch.frombuffer(bytearray(mine), dtype=torch.uint8)
        dist.broadcast(data, src=source)
    if not has:
        keep(data.numpy().tobytes())
    return True
