"""Layers whose stored weights have unit variance and are scaled at run time (equalised rate)."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

SLOPE = 0.2


def leaky(x: Tensor) -> Tensor:
    """√2 times the leaky rectifier of slope 0.2, which keeps the second moment of its input."""
    return functional.leaky_relu(x, SLOPE) * math.sqrt(2)


def unit_moment(z: Float[Tensor, "batch d"]) -> Float[Tensor, "batch d"]:
    """z divided by the root mean square of its entries."""
    return z * torch.rsqrt(z.square().mean(1, keepdim=True) + 1e-8)


class EqualLinear(nn.Module):
    """x -> (W · rate/√d) x + rate · b, W stored as N(0, 1)/rate; then `leaky` if `activate`.

    `rate` multiplies the learning rate of both.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        bias: float = 0.0,
        rate: float = 1.0,
        activate: bool = False,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.full((outputs,), float(bias)))
        self.scale, self.rate, self.activate = rate / math.sqrt(inputs), rate, activate

    def forward(self, x: Float[Tensor, "batch d"]) -> Float[Tensor, "batch c"]:
        """(batch, inputs) -> (batch, outputs)."""
        y = functional.linear(x, self.weight * self.scale, self.bias * self.rate)
        return leaky(y) if self.activate else y


class EqualConv(nn.Module):
    """Convolution with weights scaled by 1/√fan-in and zero padding."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, padding: int | None = None
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.scale = 1 / math.sqrt(inputs * kernel**2)
        self.stride, self.padding = stride, kernel // 2 if padding is None else padding

    def forward(self, x: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch k i j"]:
        """(batch, inputs, h, w) -> (batch, outputs, i, j)."""
        return functional.conv2d(x, self.weight * self.scale, self.bias, self.stride, self.padding)
