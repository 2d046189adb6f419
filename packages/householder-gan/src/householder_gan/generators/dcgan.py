"""DCGAN (Radford et al., ICLR 2016): transposed convolutions with batch normalisation."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn


class DCGAN(nn.Module):
    """z (batch, z_dim) -> images (batch, image_channels, size, size) in -1..1, size = 4·2^layers.

    The first layer is linear in z: its weight (z_dim, channels[0], 4, 4) is what SeFa
    factorises. z is the one latent code: `mapping` is the identity and w+ has one slot. State
    dictionaries are those of torch's DCGAN example, `main.0.weight` and so on.
    """

    slots = 1
    space = "z"

    def __init__(
        self,
        z_dim: int = 100,
        channels: Sequence[int] = (512, 256, 128, 64),
        image_channels: int = 3,
    ) -> None:
        super().__init__()
        self.z_dim = self.w_dim = z_dim
        self.channels, self.image_channels = tuple(channels), image_channels
        self.size = 4 * 2 ** len(channels)
        layers: list[nn.Module] = []
        before = z_dim
        for depth, width in enumerate(channels):
            stride, padding = (2, 1) if depth else (1, 0)
            layers += [
                nn.ConvTranspose2d(before, width, 4, stride, padding, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            ]
            before = width
        layers += [nn.ConvTranspose2d(before, image_channels, 4, 2, 1, bias=False), nn.Tanh()]
        self.main = nn.Sequential(*layers)

    def settings(self) -> dict[str, object]:
        """The arguments that make a generator of this shape."""
        return {
            "z_dim": self.z_dim,
            "channels": self.channels,
            "image_channels": self.image_channels,
        }

    def mapping(self, z: Float[Tensor, "batch d"]) -> Float[Tensor, "batch d"]:
        """z itself."""
        return z

    def synthesis(self, ws: Float[Tensor, "batch 1 d"]) -> Float[Tensor, "batch c h w"]:
        """Images of codes (batch, 1, z_dim)."""
        return self.main(ws[:, 0, :, None, None])

    def forward(self, z: Float[Tensor, "batch d"]) -> Float[Tensor, "batch c h w"]:
        """Images of z (batch, z_dim)."""
        return self.synthesis(self.mapping(z)[:, None])


def load_dcgan(state: dict[str, Tensor]) -> DCGAN:
    """The generator of a state dictionary, its sizes read from the shapes of the weights.

    Raises ValueError for a state dictionary of another network.
    """
    names = sorted(
        (name for name, value in state.items() if value.ndim == 4 and name.startswith("main.")),
        key=lambda name: int(name.split(".")[1]),
    )
    if len(names) < 2 or names[0] != "main.0.weight":
        raise ValueError(f"state must hold main.0.weight and so on, got {sorted(state)[:5]}")
    shapes = [state[name].shape for name in names]
    generator = DCGAN(shapes[0][0], tuple(s[1] for s in shapes[:-1]), shapes[-1][1])
    generator.load_state_dict(state)
    return generator
