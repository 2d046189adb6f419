"""Batch normalisation after a change of weights."""

import torch
from torch import nn

from householder_gan.generators.protocol import Generator, codes, draw


def recalibrate(
    generator: Generator, samples: int = 1024, *, batch: int = 128, seed: int = 0
) -> int:
    """Measure the running statistics of batch normalisation anew over images of random z.

    A projector changes what enters the first normalisation, and the statistics that were stored
    are of the weights before. Each layer's become the plain average over the batches. Returns the
    number of layers, 0 for a generator without any, which stays as it is.
    """
    if samples < batch or batch < 2:
        raise ValueError(f"samples must be >= batch >= 2, got {samples} and {batch}")
    if not isinstance(generator, nn.Module):
        raise TypeError(f"generator must be a torch.nn.Module, got {type(generator).__name__}")
    norms = [
        m
        for m in generator.modules()
        if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d) and m.track_running_stats
    ]
    if not norms:
        return 0
    before = [norm.momentum for norm in norms]
    modes = {module: module.training for module in generator.modules()}
    rng = torch.Generator().manual_seed(seed)
    try:
        generator.eval()
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the average over all batches, torch's word for it
            norm.train()
        with torch.no_grad():
            for _ in range(samples // batch):
                generator.synthesis(codes(generator, draw(generator, batch, rng)))
    finally:
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum
        for module, mode in modes.items():
            module.training = mode
    return len(norms)
