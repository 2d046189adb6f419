"""The residual discriminator of StyleGAN2 (Karras et al., CVPR 2020)."""

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from householder_gan.generators.equalized import EqualConv, EqualLinear, leaky
from householder_gan.generators.resample import binomial_kernel, resample


def minibatch_deviation(
    x: Float[Tensor, "batch c h w"], group: int = 4
) -> Float[Tensor, "batch d h w"]:
    """x and one channel more: the mean standard deviation within groups of the batch.

    The group is the largest divisor of the batch up to `group`.
    """
    batch = len(x)
    size = next(k for k in range(min(group, batch), 0, -1) if batch % k == 0)
    grouped = x.reshape(size, -1, *x.shape[1:])
    spread = (grouped.var(0, unbiased=False) + 1e-8).sqrt().mean((1, 2, 3))
    return torch.cat((x, spread.repeat(size)[:, None, None, None].expand(-1, 1, *x.shape[2:])), 1)


class Block(nn.Module):
    """Two convolutions to half the size, beside a 1x1 shortcut; their sum over √2."""

    kernel: Tensor

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = EqualConv(inputs, inputs, 3)
        self.second = EqualConv(inputs, outputs, 3, stride=2, padding=0)
        self.shortcut = EqualConv(inputs, outputs, 1)
        self.register_buffer("kernel", binomial_kernel(), persistent=False)

    def forward(self, x: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch k i j"]:
        """(batch, inputs, h, w) -> (batch, outputs, h/2, w/2)."""
        y = leaky(self.first(x))
        y = leaky(self.second(resample(y, self.kernel, padding=(2, 2, 2, 2))))
        return (y + self.shortcut(resample(x, self.kernel, down=2, padding=(1, 1, 1, 1)))) / math.sqrt(2)


class Discriminator(nn.Module):
    """Images (batch, image_channels, size, size) -> one logit each, larger for real ones.

    `channels` gives widths by resolution, from 4 to `size`.
    """

    def __init__(
        self, size: int, channels: Mapping[int, int], *, image_channels: int = 3
    ) -> None:
        super().__init__()
        resolutions = [2**k for k in range(int(math.log2(size)), 1, -1)]
        missing = [r for r in resolutions if r not in channels]
        if size != resolutions[0] or missing:
            raise ValueError(
                f"channels must give a width for {missing or resolutions}, size a power of two; "
                f"got {sorted(channels)} and {size}"
            )
        self.from_rgb = EqualConv(image_channels, channels[size], 1)
        self.blocks = nn.Sequential(
            *(Block(channels[r], channels[r // 2]) for r in resolutions[:-1])
        )
        self.last = EqualConv(channels[4] + 1, channels[4], 3)
        self.hidden = EqualLinear(channels[4] * 16, channels[4], activate=True)
        self.logit = EqualLinear(channels[4], 1)

    def forward(self, images: Float[Tensor, "batch c h w"]) -> Float[Tensor, " batch"]:
        """(batch, image_channels, size, size) -> (batch,)."""
        x = self.blocks(leaky(self.from_rgb(images)))
        x = leaky(self.last(minibatch_deviation(x)))
        return self.logit(self.hidden(x.flatten(1)))[:, 0]
