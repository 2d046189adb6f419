"""SqueezeNet 1.0 from the binary file of Deep Compression.

uint32 count[26], then for each convolution in the order of the network: float32 codebook[256],
float32 bias[out], uint8 code[count], and the distances of the weights that are not zero, 4 bits
each, low half of the byte first. Weight i lies at Σ_{j<=i} (distance_j + 1) - 1 and is
codebook[code_i].

Source: Han, Mao and Dally, Deep Compression (ICLR 2016), arXiv 1510.00149, and the file of its
authors.
"""

import numpy as np
import torch
from eigenworks.data import DataError
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models import squeezenet1_0


def _convolution(
    data: bytes, at: int, count: int, shape: tuple[int, ...]
) -> tuple[Float[Tensor, "out in h w"], Float[Tensor, " out"], int]:
    """Weight, bias and the place behind them."""

    def take(dtype: str, size: int) -> np.ndarray:
        nonlocal at
        kind = np.dtype(dtype)
        if at + size * kind.itemsize > len(data):
            raise DataError(f"the compressed weights end after {len(data)} bytes, within a layer")
        values = np.frombuffer(data, kind, size, at)
        at += size * kind.itemsize
        return values

    codebook, bias = take("<f4", 256), take("<f4", shape[0])
    code, packed = take("u1", count), take("u1", (count + 1) // 2)
    distance = np.stack([packed & 15, packed >> 4], 1).reshape(-1)[:count].astype(np.int64)
    place = np.cumsum(distance + 1) - 1
    size = int(np.prod(shape))
    if count and place[-1] >= size:
        raise DataError(f"a compressed weight lies at {place[-1]} of a layer of {size}")
    weight = np.zeros(size, np.float32)
    weight[place] = codebook[code]
    return torch.from_numpy(weight.reshape(shape)), torch.from_numpy(bias.copy()), at


def decode(data: bytes) -> nn.Module:
    """torchvision's squeezenet1_0 in eval mode with the weights of the file.

    Its last convolution has a padding of 1, as the file's authors trained it.

    Raises:
        DataError: The file is cut short, longer than the network, or of another one.
    """
    net = squeezenet1_0(weights=None)
    layers = [layer for layer in net.modules() if isinstance(layer, nn.Conv2d)]
    at = 4 * len(layers)
    if len(data) < at:
        raise DataError(f"the compressed weights end after {len(data)} bytes")
    counts = np.frombuffer(data[:at], "<u4")
    for layer, count in zip(layers, counts, strict=True):
        weight, bias, at = _convolution(data, at, int(count), tuple(layer.weight.shape))
        layer.load_state_dict({"weight": weight, "bias": bias})
    if at != len(data):
        raise DataError(f"{len(data) - at} bytes are left behind the compressed weights")
    layers[-1].padding = (1, 1)
    return net.eval()
