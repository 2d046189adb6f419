"""How large a compressed model will be, and about how long the compression takes."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor, nn

from asvd.blocks import call
from asvd.layers import matrix
from asvd.search import RATIOS
from asvd.spectra import Method

PASSES: Mapping[Method, float] = {"svd": 0, "asvd": 2, "whiten": 2.5, "sequential": 11}
"""Forward passes over the calibration data that a method takes the time of, moments included."""
PROBE = 0.55
"""Share of a forward pass that one probe of the rank search takes: from the touched block on."""


@dataclass(frozen=True)
class Estimate:
    """Parameters of the whole model after compression, their bytes, and seconds of work."""

    parameters: int
    bytes: int
    seconds: float


def estimate(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    calibration: Int[Tensor, "sequences length"],
    ratio: float,
    method: Method,
    allocation: str,
    clock: Callable[[], float] = time.perf_counter,
) -> Estimate:
    """Times one sequence through the model and one decomposition of each shape of a layer.

    The size is that of the ratio, which is met from below; the time is for this machine as
    loaded as it is now, and good to about a factor of two.
    """
    whole = sum(p.numel() for p in model.parameters())
    weights = sum(matrix(layer).numel() for layer in layers.values())
    left = whole - round((1 - ratio) * weights)
    width = next(iter(model.parameters())).element_size()
    start = clock()
    with torch.no_grad():
        call(model, calibration[:1])
    one_pass = (clock() - start) * len(calibration)
    passes = PASSES[method]
    if allocation == "strs":
        passes += PROBE * len(layers) * len(RATIOS)
    decompositions = 0.0
    times: dict[torch.Size, float] = {}
    for layer in layers.values():
        W = matrix(layer).float()
        if W.shape not in times:
            start = clock()
            torch.linalg.svd(W, full_matrices=False)
            times[W.shape] = clock() - start
        decompositions += times[W.shape]
    # The walk of "sequential" decomposes every layer once more.
    rounds = 2 if method == "sequential" else 1
    return Estimate(left, left * width, passes * one_pass + rounds * decompositions)
