"""StyleGAN3 (Karras et al., NeurIPS 2021), configurations T and R, in the names of its layout.

Signals are band-limited: each layer raises the sampling rate, applies the leaky rectifier and
lowers the rate again behind a Kaiser-windowed low-pass filter, so that nothing aliases.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from householder_gan.generators.equalized import SLOPE, leaky, unit_moment
from householder_gan.generators.resample import resample

_FIRST_CUTOFF = 2.0
_FIRST_STOPBAND = 2.0**2.1
_LAST_STOPBAND = 2.0**0.3  # over the last cutoff
_MARGIN = 10
_FILTER_TAPS = 6  # at the rate before each change
_CLAMP = 256.0
_OUTPUT_SCALE = 0.25


@dataclass(frozen=True)
class Band:
    """Rate, cutoff, half width of the transition band, size and channels after a layer."""

    rate: int
    cutoff: float
    half_width: float
    size: int
    channels: int


def bands(
    size: int, layers: int, critical: int, channel_base: int, channel_max: int, image_channels: int
) -> list[Band]:
    """Cutoffs and stopbands in a geometric progression to the Nyquist frequency of the image.

    One more than layers; the last `critical` layers have the image's own cutoff.
    """
    last = size / 2
    found = []
    for k in range(layers + 1):
        t = min(k / (layers - critical), 1.0)
        cutoff = _FIRST_CUTOFF * (last / _FIRST_CUTOFF) ** t
        stopband = _FIRST_STOPBAND * (last * _LAST_STOPBAND / _FIRST_STOPBAND) ** t
        rate = 2 ** math.ceil(math.log2(min(2 * stopband, size)))
        image = k >= layers - 1
        found.append(
            Band(
                rate=rate,
                cutoff=cutoff,
                half_width=max(stopband, rate / 2) - cutoff,
                size=size if image else rate + 2 * _MARGIN,
                channels=(
                    image_channels
                    if k == layers
                    else round(min(channel_base / 2 / cutoff, channel_max))
                ),
            )
        )
    return found


def lowpass(
    taps: int, cutoff: float, width: float, rate: float, *, radial: bool = False
) -> Tensor | None:
    """Kaiser-windowed low-pass filter of unit sum, (taps,) or (taps, taps) if radial.

    `width` is that of the transition band. Separable as `scipy.signal.firwin(taps, cutoff,
    width=width, fs=rate)`; radially symmetric with J₁(2π f r)/r in place of the sinc. None for
    one tap, which changes nothing.
    """
    if taps == 1:
        return None
    attenuation = 2.285 * (taps - 1) * math.pi * width / (rate / 2) + 7.95
    if attenuation > 50:
        beta = 0.1102 * (attenuation - 8.7)
    elif attenuation > 21:
        beta = 0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21)
    else:
        beta = 0.0
    window = torch.kaiser_window(taps, periodic=False, beta=beta, dtype=torch.float64)
    x = (torch.arange(taps, dtype=torch.float64) - (taps - 1) / 2) / rate
    if radial:
        r = torch.hypot(x[:, None], x[None])
        # J₁(x)/x tends to 1/2 at the centre, which an odd number of taps has.
        safe = torch.where(r == 0, 1, r)
        bessel = torch.special.bessel_j1(2 * math.pi * cutoff * safe) / (math.pi * safe)
        kernel = torch.where(r == 0, cutoff, bessel) * torch.outer(window, window)
    else:
        kernel = torch.sinc(2 * cutoff * x) * window
    return (kernel / kernel.sum()).float()


class Affine(nn.Module):
    """x -> (W · rate/√d) x + rate · b in NVlabs' names, then `leaky` if `activate`."""

    def __init__(
        self, inputs: int, outputs: int, *, bias: float = 0.0, rate: float = 1.0,
        activate: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.full((outputs,), float(bias)))
        self.scale, self.rate, self.activate = rate / math.sqrt(inputs), rate, activate

    def forward(self, x: Float[Tensor, "batch d"]) -> Float[Tensor, "batch c"]:
        """(batch, inputs) -> (batch, outputs)."""
        y = functional.linear(x, self.weight * self.scale, self.bias * self.rate)
        return leaky(y) if self.activate else y


class Mapping(nn.Module):
    """z -> w, and the running mean of w that truncation draws towards."""

    w_avg: Tensor

    def __init__(self, z_dim: int, w_dim: int, layers: int, rate: float) -> None:
        super().__init__()
        self.layers = layers
        for i in range(layers):
            width = z_dim if i == 0 else w_dim
            self.add_module(f"fc{i}", Affine(width, w_dim, rate=rate, activate=True))
        self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(self, z: Float[Tensor, "batch z"]) -> Float[Tensor, "batch w"]:
        """(batch, z_dim) -> (batch, w_dim)."""
        x = unit_moment(z)
        for i in range(self.layers):
            x = self.get_submodule(f"fc{i}")(x)
        return x


class FourierInput(nn.Module):
    """Sines of random frequencies within a band, turned and shifted by w, and mixed."""

    freqs: Tensor
    phases: Tensor
    transform: Tensor

    def __init__(self, w_dim: int, band: Band) -> None:
        super().__init__()
        self.band = band
        # Uniform within a disc, then drawn to its middle: the published distribution.
        directions = torch.randn(band.channels, 2)
        radius = directions.norm(dim=1, keepdim=True)
        freqs = directions / (radius * radius.square().exp().pow(0.25)) * band.cutoff
        self.weight = nn.Parameter(torch.randn(band.channels, band.channels))
        self.affine = Affine(w_dim, 4)
        with torch.no_grad():
            self.affine.weight.zero_()
            self.affine.bias.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0]))
        self.register_buffer("transform", torch.eye(3))
        self.register_buffer("freqs", freqs)
        self.register_buffer("phases", torch.rand(band.channels) - 0.5)

    def forward(self, w: Float[Tensor, "batch w"]) -> Float[Tensor, "batch c h h"]:
        """(batch, w_dim) -> (batch, channels, size, size)."""
        t = self.affine(w)
        t = t / t[:, :2].norm(dim=1, keepdim=True)
        cosine, sine, right, down = t.unbind(1)
        zero, one = torch.zeros_like(cosine), torch.ones_like(cosine)
        turn = torch.stack((cosine, -sine, zero, sine, cosine, zero, zero, zero, one), -1)
        shift = torch.stack((one, zero, -right, zero, one, -down, zero, zero, one), -1)
        M = turn.view(-1, 3, 3) @ shift.view(-1, 3, 3) @ self.transform
        phases = self.phases + (self.freqs @ M[:, :2, 2:])[..., 0]
        freqs = self.freqs @ M[:, :2, :2]
        # Frequencies that the transformation takes out of the band fade away.
        band = self.band
        past = (freqs.norm(dim=2) - band.cutoff) / (band.rate / 2 - band.cutoff)
        amplitude = (1 - past).clamp(0, 1)
        axis = (torch.arange(band.size, device=w.device, dtype=w.dtype) + 0.5) / band.size - 0.5
        axis = axis * band.size / band.rate
        grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1).view(-1, 2)
        waves = torch.sin(2 * math.pi * (grid @ freqs.mT + phases[:, None]))
        x = (waves * amplitude[:, None]) @ (self.weight / math.sqrt(len(self.weight))).mT
        return x.mT.reshape(len(w), -1, band.size, band.size)


class Layer(nn.Module):
    """Modulated convolution, bias and the leaky rectifier at twice the rate; or ToRGB."""

    magnitude_ema: Tensor
    up_filter: Tensor | None
    down_filter: Tensor | None

    def __init__(
        self, w_dim: int, before: Band, now: Band, *, rgb: bool, critical: bool, kernel: int,
        radial: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        self.rgb, self.size, self.kernel = rgb, now.size, kernel
        self.affine = Affine(w_dim, before.channels, bias=1.0)
        self.weight = nn.Parameter(torch.randn(now.channels, before.channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(now.channels))
        self.register_buffer("magnitude_ema", torch.ones(()))
        rate = max(before.rate, now.rate) * (1 if rgb else 2)
        self.up, self.down = rate // before.rate, rate // now.rate
        taps = [_FILTER_TAPS * k if k > 1 and not rgb else 1 for k in (self.up, self.down)]
        up = lowpass(taps[0], before.cutoff, 2 * before.half_width, float(rate))
        down = lowpass(
            taps[1], now.cutoff, 2 * now.half_width, float(rate), radial=radial and not critical
        )
        self.register_buffer("up_filter", up)
        self.register_buffer("down_filter", down)
        total = (now.size - 1) * self.down + 1 + sum(taps) - 2
        total -= (before.size + kernel - 1) * self.up
        low = (total + self.up) // 2
        self.padding = (low, total - low, low, total - low)

    def _convolved(self, x: Tensor, style: Tensor) -> Tensor:
        weight = self.weight
        if not self.rgb:
            weight = weight * weight.square().mean((1, 2, 3), keepdim=True).rsqrt()
            style = style * style.square().mean().rsqrt()
        y = functional.conv2d(x * style[:, :, None, None], weight, padding=self.kernel - 1)
        if not self.rgb:
            power = style.square() @ weight.square().sum((2, 3)).mT
            y = y * torch.rsqrt(power + 1e-8)[:, :, None, None]
        return y

    def forward(
        self, x: Float[Tensor, "batch c h h"], w: Float[Tensor, "batch w"]
    ) -> Float[Tensor, "batch k i i"]:
        """Features of the layer before, and w; in training mode the magnitude is tracked."""
        if self.training:
            with torch.no_grad():
                self.magnitude_ema.lerp_(x.float().square().mean(), 1 - 0.999)
        style = self.affine(w)
        if self.rgb:
            style = style / math.sqrt(x.shape[1] * self.kernel**2)
        x = self._convolved(x * self.magnitude_ema.rsqrt(), style)
        x = x + self.bias[:, None, None]
        up, down = self.up_filter, self.down_filter
        x = resample(x, up, up=self.up, padding=self.padding, gain=float(self.up**2))
        x = x if self.rgb else functional.leaky_relu(x, SLOPE) * math.sqrt(2)
        return resample(x.clamp(-_CLAMP, _CLAMP), down, down=self.down)


class Synthesis(nn.Module):
    """w+ -> images: the Fourier input and the layers in order, named L{i}_{size}_{channels}."""

    def __init__(
        self, w_dim: int, size: int, image_channels: int, *, layers: int, critical: int,
        channel_base: int, channel_max: int, kernel: int, radial: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        plan = bands(size, layers, critical, channel_base, channel_max, image_channels)
        self.input = FourierInput(w_dim, plan[0])
        self.names = []
        for i, now in enumerate(plan):
            rgb, near = i == layers, i >= layers - critical
            layer = Layer(
                w_dim,
                plan[max(i - 1, 0)],
                now,
                rgb=rgb,
                critical=near,
                kernel=1 if rgb else kernel,
                radial=radial,
            )
            self.names.append(f"L{i}_{now.size}_{now.channels}")
            self.add_module(self.names[-1], layer)

    def forward(self, ws: Float[Tensor, "batch slots w"]) -> Float[Tensor, "batch c h h"]:
        """(batch, layers + 2, w_dim) -> (batch, image_channels, size, size)."""
        x = self.input(ws[:, 0])
        for i, name in enumerate(self.names):
            x = self.get_submodule(name)(x, ws[:, i + 1])
        return x * _OUTPUT_SCALE


class StyleGAN3(nn.Module):
    """z (batch, z_dim) -> images (batch, image_channels, size, size), about -1..1.

    Args:
        size: A power of two.
        kernel: Of convolutions: 3 in configuration T, 1 in R. radial: Radially symmetric
            filters for lowering the rate, as in R. channel_base, channel_max: 32768 and 512 in T,
            65536 and 1024 in R.
        layers, critical: 14 layers before ToRGB, the last 2 with the image's cutoff.

    w+ has `layers` + 2 slots.
    """

    space = "w"

    def __init__(
        self,
        size: int,
        z_dim: int = 512,
        w_dim: int = 512,
        *,
        image_channels: int = 3,
        mapping_layers: int = 2,
        mapping_rate: float = 0.01,
        layers: int = 14,
        critical: int = 2,
        channel_base: int = 32768,
        channel_max: int = 512,
        kernel: int = 3,
        radial: bool = False,
    ) -> None:
        super().__init__()
        if size < 16 or size & (size - 1):
            raise ValueError(f"size must be a power of two from 16 on, got {size}")
        if not 0 < critical < layers:
            raise ValueError(f"critical must lie in [1, {layers - 1}], got {critical}")
        self.size, self.z_dim, self.w_dim, self.slots = size, z_dim, w_dim, layers + 2
        self._settings: dict[str, object] = {
            "image_channels": image_channels,
            "mapping_layers": mapping_layers,
            "mapping_rate": mapping_rate,
            "layers": layers,
            "critical": critical,
            "channel_base": channel_base,
            "channel_max": channel_max,
            "kernel": kernel,
            "radial": radial,
        }
        self.mapping = Mapping(z_dim, w_dim, mapping_layers, mapping_rate)
        self.synthesis = Synthesis(
            w_dim,
            size,
            image_channels,
            layers=layers,
            critical=critical,
            channel_base=channel_base,
            channel_max=channel_max,
            kernel=kernel,
            radial=radial,
        )

    def settings(self) -> dict[str, object]:
        """The arguments that make a generator of this shape."""
        return {"size": self.size, "z_dim": self.z_dim, "w_dim": self.w_dim, **self._settings}

    def forward(self, z: Float[Tensor, "batch z"]) -> Float[Tensor, "batch c h h"]:
        """Images of z (batch, z_dim), one w in every slot."""
        return self.synthesis(self.mapping(z)[:, None].expand(-1, self.slots, -1))
