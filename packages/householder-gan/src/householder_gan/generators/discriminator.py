"""Discriminators: StyleGAN2's residual one, DCGAN's, and one on features of a frozen network."""

import math
from collections.abc import Callable, Mapping, Sequence

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
        return (
            y + self.shortcut(resample(x, self.kernel, down=2, padding=(1, 1, 1, 1)))
        ) / math.sqrt(2)


class Discriminator(nn.Module):
    """Images (batch, image_channels, size, size) -> one logit each, larger for real ones.

    StyleGAN2's (Karras et al., CVPR 2020). `channels` gives widths by resolution, from 4 to `size`.
    """

    def __init__(self, size: int, channels: Mapping[int, int], *, image_channels: int = 3) -> None:
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


class DCGANDiscriminator(nn.Module):
    """Images (batch, image_channels, size, size) -> one logit each, by strided 4x4 convolutions.

    DCGAN's (Radford et al., ICLR 2016) without batch normalisation, which R1 does not go with,
    and with `minibatch_deviation`. `width` channels after the first convolution, twice as many
    after each of the others, down to 4x4.
    """

    def __init__(self, size: int, width: int = 64, *, image_channels: int = 3) -> None:
        super().__init__()
        if size < 8 or size & (size - 1):
            raise ValueError(f"size must be a power of two from 8 on, got {size}")
        layers: list[nn.Module] = []
        before = image_channels
        for k in range(int(math.log2(size)) - 2):
            layers += [nn.Conv2d(before, width * 2**k, 4, 2, 1), nn.LeakyReLU(0.2)]
            before = width * 2**k
        self.features = nn.Sequential(*layers)
        self.logit = nn.Conv2d(before + 1, 1, 4)

    def forward(self, images: Float[Tensor, "batch c h w"]) -> Float[Tensor, " batch"]:
        """(batch, image_channels, size, size) -> (batch,)."""
        return self.logit(minibatch_deviation(self.features(images)))[:, 0, 0, 0]


class ProjectedDiscriminator(nn.Module):
    """Images -> one logit each, from feature maps of a network that is not trained.

    Small heads on every map, their logits averaged (Sauer et al., NeurIPS 2021, without their
    random mixing). It learns within hundreds of steps what one from scratch needs many thousands
    for. `maps` gives a list of feature maps of `channels` channels; distances in the same
    features flatter a generator trained against it.
    """

    def __init__(
        self,
        maps: Callable[[Tensor], list[Tensor]],
        channels: Sequence[int],
        width: int = 64,
    ) -> None:
        super().__init__()
        self._maps = [maps]  # in a list, so that a network is no part of the state
        self.heads = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(c, width, 3, padding=1),
                nn.LeakyReLU(0.2),
                nn.Conv2d(width, width, 4, stride=2, padding=1),
                nn.LeakyReLU(0.2),
            )
            for c in channels
        )
        self.logits = nn.ModuleList(nn.Conv2d(width + 1, 1, 3, padding=1) for _ in channels)

    def forward(self, images: Float[Tensor, "batch c h w"]) -> Float[Tensor, " batch"]:
        """(batch, c, h, w) -> (batch,)."""
        maps = self._maps[0](images)
        if len(maps) != len(self.heads):
            raise ValueError(f"maps must give {len(self.heads)} feature maps, got {len(maps)}")
        found = [
            logit(minibatch_deviation(head(x))).mean((1, 2, 3))
            for head, logit, x in zip(self.heads, self.logits, maps, strict=True)
        ]
        return torch.stack(found).mean(0)
