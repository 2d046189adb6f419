"""StyleGAN2 (Karras et al., CVPR 2020), skip architecture, in the names of rosinality's layout."""

import math
from collections.abc import Mapping
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from householder_gan.generators.equalized import EqualLinear, leaky, unit_moment
from householder_gan.generators.resample import binomial_kernel, resample


def default_channels(size: int, multiplier: int = 2) -> dict[int, int]:
    """Widths by resolution: 512 up to 32x32, then 256·multiplier at 64 and half at each step."""
    return {
        4 * 2**k: 512 if k <= 3 else 512 * multiplier // 2 ** (k - 3)
        for k in range(int(math.log2(size)) - 1)
    }


class PixelNorm(nn.Module):
    """`unit_moment` as a layer."""

    def forward(self, z: Float[Tensor, "batch d"]) -> Float[Tensor, "batch d"]:
        """z divided by its root mean square."""
        return unit_moment(z)


class Resample(nn.Module):
    """`resample` with a kernel that is stored."""

    kernel: Tensor

    def __init__(self, kernel: Tensor, padding: tuple[int, int], up: int = 1) -> None:
        super().__init__()
        self.register_buffer("kernel", kernel)
        self.padding, self.up = padding, up

    def forward(self, x: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch c i j"]:
        """Filtered images."""
        return resample(x, self.kernel, up=self.up, padding=(*self.padding, *self.padding))


class ModulatedConv(nn.Module):
    """Convolution with weights W_oikl s_i, s = A w + b, normalised for each output if `demodulate`.

    The styles scale the input and the norms (Σ_ikl (W_oikl s_i)² + 1e-8)^½ divide the output,
    which is the same and needs no weights of each sample.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        style_dim: int,
        *,
        demodulate: bool = True,
        upsample: bool = False,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, outputs, inputs, kernel, kernel))
        self.modulation = EqualLinear(style_dim, inputs, bias=1.0)
        self.scale = 1 / math.sqrt(inputs * kernel**2)
        self.demodulate, self.kernel = demodulate, kernel
        # Twice the rate has a quarter of the samples, hence the filter's sum of 4.
        self.blur = Resample(binomial_kernel(gain=4.0), (1, 1)) if upsample else None

    def forward(
        self, x: Float[Tensor, "batch c h w"], w: Float[Tensor, "batch d"]
    ) -> Float[Tensor, "batch k i j"]:
        """(batch, inputs, h, w) -> (batch, outputs, h, w), or twice the size."""
        style = self.modulation(w)
        weight = self.weight[0] * self.scale
        x = x * style[:, :, None, None]
        if self.blur is None:
            x = functional.conv2d(x, weight, padding=self.kernel // 2)
        else:
            x = self.blur(functional.conv_transpose2d(x, weight.transpose(0, 1), stride=2))
        if self.demodulate:
            power = style.square() @ weight.square().sum((-2, -1)).mT
            x = x * torch.rsqrt(power + 1e-8)[:, :, None, None]
        return x


class NoiseInjection(nn.Module):
    """x + weight · noise, one picture of noise for all channels."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(
        self, x: Float[Tensor, "batch c h w"], noise: Float[Tensor, "#batch 1 h w"]
    ) -> Float[Tensor, "batch c h w"]:
        """(batch, c, h, w) with noise (1 or batch, 1, h, w)."""
        return x + self.weight * noise


class BiasedLeaky(nn.Module):
    """`leaky` after a bias of each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch c h w"]:
        """leaky(x + bias)."""
        return leaky(x + self.bias[:, None, None])


class StyledConv(nn.Module):
    """Modulated convolution, noise, bias and leaky rectifier."""

    def __init__(
        self, inputs: int, outputs: int, style_dim: int, *, upsample: bool = False
    ) -> None:
        super().__init__()
        self.conv = ModulatedConv(inputs, outputs, 3, style_dim, upsample=upsample)
        self.noise = NoiseInjection()
        self.activate = BiasedLeaky(outputs)

    def forward(
        self,
        x: Float[Tensor, "batch c h w"],
        w: Float[Tensor, "batch d"],
        noise: Float[Tensor, "#batch 1 i j"],
    ) -> Float[Tensor, "batch k i j"]:
        """(batch, inputs, h, w) -> (batch, outputs, …) of the noise's size."""
        return self.activate(self.noise(self.conv(x, w), noise))


class ToRGB(nn.Module):
    """A modulated 1x1 convolution to an image, added to the image before it at twice its size."""

    def __init__(
        self, inputs: int, style_dim: int, image_channels: int, *, upsample: bool = True
    ) -> None:
        super().__init__()
        self.conv = ModulatedConv(inputs, image_channels, 1, style_dim, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(1, image_channels, 1, 1))
        self.upsample = Resample(binomial_kernel(gain=4.0), (2, 1), up=2) if upsample else None

    def forward(
        self,
        x: Float[Tensor, "batch c h w"],
        w: Float[Tensor, "batch d"],
        skip: Float[Tensor, "batch k i j"] | None = None,
    ) -> Float[Tensor, "batch k h w"]:
        """Features (batch, inputs, h, w) and the image before, of half the size."""
        image = self.conv(x, w) + self.bias
        return image if skip is None or self.upsample is None else image + self.upsample(skip)


class ConstantInput(nn.Module):
    """The learned 4x4 features that every image starts from."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.input = nn.Parameter(torch.randn(1, channels, 4, 4))

    def forward(self, batch: int) -> Float[Tensor, "batch c 4 4"]:
        """A copy for each image."""
        return self.input.expand(batch, -1, -1, -1)


class StyleGAN2(nn.Module):
    """z (batch, style_dim) -> images (batch, image_channels, size, size), about -1..1.

    w+ has 2 log2(size) - 2 slots. In training mode noise is drawn for every image, in evaluation
    the stored noise is used. `channels` gives widths by resolution (`default_channels`);
    `mlp_rate` multiplies the learning rate of the mapping network.
    """

    space = "w"

    def __init__(
        self,
        size: int,
        style_dim: int = 512,
        mlp_layers: int = 8,
        channels: Mapping[int, int] | None = None,
        *,
        image_channels: int = 3,
        mlp_rate: float = 0.01,
    ) -> None:
        super().__init__()
        if size < 8 or size & (size - 1):
            raise ValueError(f"size must be a power of two from 8 on, got {size}")
        widths = dict(default_channels(size) if channels is None else channels)
        resolutions = [4 * 2**k for k in range(int(math.log2(size)) - 1)]
        missing = [r for r in resolutions if r not in widths]
        if missing:
            raise ValueError(f"channels must give a width for {missing}, got {sorted(widths)}")
        self.size, self.image_channels, self.mlp_layers = size, image_channels, mlp_layers
        self.z_dim = self.w_dim = style_dim
        self.channels, self.mlp_rate = {r: widths[r] for r in resolutions}, mlp_rate
        self.slots = 2 * len(resolutions)
        self.style = nn.Sequential(
            PixelNorm(),
            *(
                EqualLinear(style_dim, style_dim, rate=mlp_rate, activate=True)
                for _ in range(mlp_layers)
            ),
        )
        self.input = ConstantInput(widths[4])
        self.conv1 = StyledConv(widths[4], widths[4], style_dim)
        self.to_rgb1 = ToRGB(widths[4], style_dim, image_channels, upsample=False)
        self.convs, self.to_rgbs, self.noises = nn.ModuleList(), nn.ModuleList(), nn.Module()
        self.noises.register_buffer("noise_0", torch.randn(1, 1, 4, 4))
        for k, (before, now) in enumerate(pairwise(resolutions)):
            self.convs.append(StyledConv(widths[before], widths[now], style_dim, upsample=True))
            self.convs.append(StyledConv(widths[now], widths[now], style_dim))
            self.to_rgbs.append(ToRGB(widths[now], style_dim, image_channels))
            for i in (2 * k + 1, 2 * k + 2):
                self.noises.register_buffer(f"noise_{i}", torch.randn(1, 1, now, now))

    def settings(self) -> dict[str, object]:
        """The arguments that make a generator of this shape."""
        return {
            "size": self.size,
            "style_dim": self.w_dim,
            "mlp_layers": self.mlp_layers,
            "channels": self.channels,
            "image_channels": self.image_channels,
            "mlp_rate": self.mlp_rate,
        }

    def mapping(self, z: Float[Tensor, "batch d"]) -> Float[Tensor, "batch d"]:
        """w of z."""
        return self.style(z)

    def _noise(self, i: int, batch: int) -> Tensor:
        stored = getattr(self.noises, f"noise_{i}")
        if not self.training:
            return stored
        return torch.randn(batch, *stored.shape[1:], dtype=stored.dtype, device=stored.device)

    def synthesis(self, ws: Float[Tensor, "batch slots d"]) -> Float[Tensor, "batch c h w"]:
        """Images of codes (batch, slots, style_dim). Raises ValueError for another shape."""
        if ws.ndim != 3 or tuple(ws.shape[1:]) != (self.slots, self.w_dim):
            raise ValueError(
                f"ws must be (batch, {self.slots}, {self.w_dim}), got {tuple(ws.shape)}"
            )
        batch = len(ws)
        x = self.conv1(self.input(batch), ws[:, 0], self._noise(0, batch))
        image = self.to_rgb1(x, ws[:, 1])
        for k, to_rgb in enumerate(self.to_rgbs):
            for i in (2 * k, 2 * k + 1):
                x = self.convs[i](x, ws[:, i + 1], self._noise(i + 1, batch))
            image = to_rgb(x, ws[:, 2 * k + 3], image)
        return image

    def forward(self, z: Float[Tensor, "batch d"]) -> Float[Tensor, "batch c h w"]:
        """Images of z (batch, style_dim), one w in every slot."""
        return self.synthesis(self.mapping(z)[:, None].expand(-1, self.slots, -1))
