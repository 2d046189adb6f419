"""Round-to-nearest quantisation of weights, by output row with a zero point."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from asvd.layers import low_rank_layers


class Quantized(NamedTuple):
    """Codes (m, n) in [0, 2^bits - 1] with scale and zero point (m, 1) of each row."""

    codes: Int[Tensor, "m n"]
    scale: Float[Tensor, "m 1"]
    zero: Float[Tensor, "m 1"]

    def dequantize(self) -> Float[Tensor, "m n"]:
        """scale (codes - zero)."""
        return self.scale * (self.codes - self.zero)


def quantize(W: Float[Tensor, "m n"], bits: int) -> Quantized:
    """Nearest codes on the row's range, zero included: scale = (max - min) / (2^bits - 1).

    With min = min(row, 0) and max = max(row, 0); a row of zeros gets the range [-1, 1], as in
    GPTQ's quantizer. Raises ValueError unless 2 <= bits <= 8, or for NaN and Inf.
    """
    if not 2 <= bits <= 8:
        raise ValueError(f"bits must lie in [2, 8], got {bits}")
    if not bool(torch.isfinite(W).all()):
        raise ValueError("W must be finite, got NaN or Inf")
    if W.shape[1] == 0:
        ones = W.new_ones(W.shape[0], 1)
        return Quantized(torch.zeros_like(W, dtype=torch.uint8), ones, torch.zeros_like(ones))
    low = W.amin(1, keepdim=True).clamp_max(0)
    high = W.amax(1, keepdim=True).clamp_min(0)
    empty = (low == 0) & (high == 0)
    low, high = torch.where(empty, -1, low), torch.where(empty, 1, high)
    top = 2**bits - 1
    scale = (high - low) / top
    zero = (-low / scale).round()
    codes = ((W / scale).round() + zero).clamp(0, top)
    return Quantized(codes.to(torch.uint8), scale, zero)


@torch.no_grad()
def quantize_factors(model: nn.Module, bits: int) -> nn.Module:
    """Rounds both factors of every factored layer to `bits`, in place, and returns the model.

    The rounding is simulated: weights keep their dtype and take the values that the codes stand
    for. For kernels that compute with codes give the factors, which are linear layers, to torchao.
    """
    for layer in low_rank_layers(model).values():
        for factor in (layer.BLinear, layer.ALinear):
            W = factor.weight
            W.copy_(quantize(W.float(), bits).dequantize().to(W.dtype))
    return model
