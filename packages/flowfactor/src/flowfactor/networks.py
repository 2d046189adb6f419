"""Encoders and decoders: the published convolutional pairs A and B, and a small MLP.

An encoder takes images (batch, C, H, W) to (μ, log σ²), each (batch, n); a decoder takes
latents (batch, n) to images before the observation's own map: logits, where that is Bernoulli.
"""

import itertools
import math

from jaxtyping import Float
from torch import Tensor, nn

Shape = tuple[int, int, int]
"""Channels, height, width of an image."""


class GaussianEncoder(nn.Module):
    """μ and log σ² by two linear heads on the features of `body`.

    Args:
        body: Images to features (batch, features).
        features: Their number.
        dim: n.
    """

    def __init__(self, body: nn.Module, features: int, dim: int) -> None:
        super().__init__()
        self.body = body
        self.mean = nn.Linear(features, dim)
        self.log_var = nn.Linear(features, dim)

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> tuple[Float[Tensor, "batch n"], Float[Tensor, "batch n"]]:
        """(μ, log σ²)."""
        features = self.body(x)
        return self.mean(features), self.log_var(features)


def mlp_body(shape: Shape, hidden: tuple[int, ...]) -> nn.Sequential:
    """Images to features through hidden layers with SiLU."""
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in zip((math.prod(shape), *hidden), hidden, strict=False):
        layers += [nn.Linear(before, after), nn.SiLU()]
    return nn.Sequential(*layers)


def mlp_decoder(shape: Shape, dim: int, hidden: tuple[int, ...]) -> nn.Sequential:
    """The mirror image of `mlp_body`."""
    layers: list[nn.Module] = []
    widths = (dim, *reversed(hidden))
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), nn.SiLU()]
    layers += [nn.Linear(widths[-1], math.prod(shape)), nn.Unflatten(1, shape)]
    return nn.Sequential(*layers)


def conv_body_a(shape: Shape, width: int, features: int) -> nn.Sequential:
    """Encoder A before its heads (MNIST, Shapes3D); two halvings, then a kernel of H/4.

    Args:
        shape: C, H, W with H = W a multiple of 4; ValueError otherwise.
        width: s, channels of the first layer; n in the paper.
        features: Channels of the last layer; 2 s before the heads, s in the classifier.
    """
    channels, side = _square(shape, 4)
    return nn.Sequential(
        *(nn.Conv2d(channels, width, 4, 2, 1), nn.ReLU()),
        *(nn.Conv2d(width, 2 * width, 4, 2, 1), nn.ReLU()),
        *(nn.Conv2d(2 * width, 3 * width, side // 4), nn.ReLU()),
        *(nn.Conv2d(3 * width, 2 * width, 1), nn.ReLU()),
        nn.Conv2d(2 * width, features, 1),
        nn.Flatten(),
    )


def conv_decoder_a(shape: Shape, dim: int, width: int) -> nn.Sequential:
    """Decoder A; arguments as `conv_body_a`."""
    channels, side = _square(shape, 4)
    return nn.Sequential(
        *(nn.Linear(dim, width), nn.Unflatten(1, (width, 1, 1)), nn.ReLU()),
        *(nn.ConvTranspose2d(width, 2 * width, 1), nn.ReLU()),
        *(nn.ConvTranspose2d(2 * width, 3 * width, 1), nn.ReLU()),
        *(nn.ConvTranspose2d(3 * width, 2 * width, side // 4), nn.ReLU()),
        *(nn.ConvTranspose2d(2 * width, width, 4, 2, 1), nn.ReLU()),
        nn.ConvTranspose2d(width, channels, 4, 2, 1),
    )


def conv_body_b(shape: Shape, width: int) -> nn.Sequential:
    """Encoder B before its heads (Falcol3D, Isaac3D); four halvings, then a kernel of H/16.

    Args:
        shape: C, H, W with H = W a multiple of 16; ValueError otherwise.
        width: s, the channels of every layer; n in the paper.
    """
    channels, side = _square(shape, 16)
    layers: list[nn.Module] = []
    for level in range(4):
        layers += [nn.Conv2d(width if level else channels, width, 4, 2, 1), nn.ReLU()]
        layers += [nn.Conv2d(width, width, 3, 1, 1), nn.ReLU()]
    layers += [nn.Conv2d(width, width, side // 16), nn.ReLU()]
    layers += [nn.Conv2d(width, width, 1), nn.ReLU(), nn.Conv2d(width, width, 1), nn.Flatten()]
    return nn.Sequential(*layers)


def conv_decoder_b(shape: Shape, dim: int, width: int) -> nn.Sequential:
    """Decoder B; arguments as `conv_body_b`."""
    channels, side = _square(shape, 16)
    layers: list[nn.Module] = [nn.Linear(dim, width), nn.Unflatten(1, (width, 1, 1)), nn.ReLU()]
    layers += [nn.ConvTranspose2d(width, width, 1), nn.ReLU()]
    layers += [nn.ConvTranspose2d(width, width, 1), nn.ReLU()]
    layers += [nn.ConvTranspose2d(width, width, side // 16), nn.ReLU()]
    for level in range(4):
        last = level == 3
        layers += [nn.ConvTranspose2d(width, width, 4, 2, 1), nn.ReLU()]
        layers += [nn.ConvTranspose2d(width, channels if last else width, 3, 1, 1)]
        layers += [] if last else [nn.ReLU()]
    return nn.Sequential(*layers)


def _square(shape: Shape, multiple: int) -> tuple[int, int]:
    channels, height, width = shape
    if height != width or height % multiple:
        raise ValueError(
            f"shape must be square with sides a multiple of {multiple}, got {height} x {width}"
        )
    return channels, height


class Bernoulli:
    """log p(x|z) = Σ x log σ(o) + (1-x) log(1-σ(o)) over pixels, o the decoder's logits."""

    def mean(self, raw: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """σ(o)."""
        return raw.sigmoid()

    def log_prob(
        self, raw: Float[Tensor, "*batch c h w"], x: Float[Tensor, "*#batch c h w"]
    ) -> Float[Tensor, "*batch"]:
        """In nats; x may be any value in [0, 1], not only 0 and 1."""
        # x log σ(o) + (1-x) log(1-σ(o)) = x o - softplus(o)
        return (x * raw - nn.functional.softplus(raw)).sum((-3, -2, -1))


class Gaussian:
    """log N(x; o, scale² I), o what the decoder returns."""

    def __init__(self, scale: float = 1.0) -> None:
        if not scale > 0:
            raise ValueError(f"scale must be positive, got {scale}")
        self.scale = scale

    def mean(self, raw: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """o itself."""
        return raw

    def log_prob(
        self, raw: Float[Tensor, "*batch c h w"], x: Float[Tensor, "*#batch c h w"]
    ) -> Float[Tensor, "*batch"]:
        """In nats, with the constant -½ C H W log(2π scale²)."""
        constant = 0.5 * math.log(2 * math.pi * self.scale**2)
        square = ((x - raw) / self.scale).square()
        return -(0.5 * square + constant).sum((-3, -2, -1))


Observation = Bernoulli | Gaussian
