"""The processes of a `torch.distributed` group, where there is one."""

import torch
from torch import Tensor, distributed, nn


def place() -> tuple[int, int]:
    """This process's number and how many there are."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def mean(value: Tensor) -> Tensor:
    """The mean of a detached tensor over the processes."""
    _, count = place()
    if count == 1:
        return value
    total = value.clone()
    distributed.all_reduce(total)
    return total / count


def average_gradients(parameters: list[nn.Parameter]) -> None:
    """Each parameter's gradient becomes its mean over the processes; None counts as 0.

    In one message. DistributedDataParallel would want every loss to be one call of one module,
    where a step of fine-tuning calls mapping and synthesis by themselves and takes gradients of
    gradients.
    """
    if place()[1] == 1 or not parameters:
        return
    found = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    together = mean(torch.cat([gradient.flatten() for gradient in found]))
    for parameter, gradient in zip(
        parameters, together.split([p.numel() for p in parameters]), strict=True
    ):
        parameter.grad = gradient.view_as(parameter).to(parameter.dtype)


def synchronise(module: nn.Module) -> None:
    """Parameters and buffers become those of process 0."""
    if place()[1] > 1:
        for tensor in (*module.parameters(), *module.buffers()):
            distributed.broadcast(tensor.detach(), 0)
