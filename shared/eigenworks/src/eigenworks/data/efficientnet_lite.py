"""EfficientNet-Lite0, the network that the weights of `EFFICIENTNET_LITE0` belong to.

EfficientNet-B0 without squeeze-and-excitation and with ReLU6 for swish: 16 inverted residual
blocks, 320 x 7 x 7 after the last one for an image of 224 x 224, 1280 after the head.

    network = EFFICIENTNET_LITE0.network().eval()
    logits = network(normalize(image))        # image (batch, 3, 224, 224), 0..255
"""

from collections import OrderedDict

import torch
from jaxtyping import Float
from torch import Tensor, nn

STAGES = (
    # repeats, kernel, stride, expansion, channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM, HEAD, CLASSES = 32, 1280, 1000


def normalize(image: Float[Tensor, "*batch 3 h w"]) -> Float[Tensor, "*batch 3 h w"]:
    """Grey levels 0..255 as the network saw them in training: (x - 127) / 128."""
    return (image - 127) / 128


class SameConv2d(nn.Conv2d):
    """A convolution whose output has ⌈size / stride⌉ rows and columns, as in TensorFlow.

    With an odd number of zeros to add, the end gets one more than the beginning.
    """

    def __init__(
        self, channels: int, out: int, kernel: int, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__(channels, out, kernel, stride, groups=groups, bias=False)

    def forward(self, input: Float[Tensor, "*batch c h w"]) -> Float[Tensor, "*batch d p q"]:
        """The convolution."""
        margins = []
        for size, kernel, stride in zip(
            input.shape[:-3:-1], self.kernel_size[::-1], self.stride[::-1], strict=True
        ):
            margin = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            margins += [margin // 2, margin - margin // 2]
        return super().forward(nn.functional.pad(input, margins) if any(margins) else input)


def norm(channels: int) -> nn.BatchNorm2d:
    """Batch normalisation with the constants of the original."""
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class Block(nn.Module):
    """Inverted residual: 1x1 expansion, depthwise convolution, 1x1 projection without ReLU6."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = channels * expansion
        self.residual = stride == 1 and channels == out
        layers: list[tuple[str, nn.Module]] = []
        if expansion != 1:
            layers += [("expand_conv", SameConv2d(channels, width, 1)), ("bn0", norm(width))]
            layers += [("act0", nn.ReLU6())]
        layers += [
            ("depthwise_conv", SameConv2d(width, width, kernel, stride, groups=width)),
            ("bn1", norm(width)),
            ("act1", nn.ReLU6()),
            ("project_conv", SameConv2d(width, out, 1)),
            ("bn2", norm(out)),
        ]
        for name, layer in layers:
            self.add_module(name, layer)

    def forward(self, x: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch d p q"]:
        """The block's output, with the input added where shapes allow."""
        y = x
        for layer in self.children():
            y = layer(y)
        return x + y if self.residual else y


class EfficientNetLite0Network(nn.Module):
    """Logits (batch, 1000) of normalised images (batch, 3, h, w), h = w = 224 in training.

    `features` is everything before the average: stem, blocks.0 to blocks.15, head.
    """

    def __init__(self) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        channels = STEM
        for repeats, kernel, stride, expansion, out in STAGES:
            for repeat in range(repeats):
                step = stride if repeat == 0 else 1
                blocks.append(Block(channels, out, kernel, step, expansion))
                channels = out
        self.conv_stem, self.bn0, self.act0 = SameConv2d(3, STEM, 3, 2), norm(STEM), nn.ReLU6()
        self.blocks = nn.Sequential(*blocks)
        self.conv_head, self.bn1 = SameConv2d(channels, HEAD, 1), norm(HEAD)
        self.act1 = nn.ReLU6()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(HEAD, CLASSES)

    def features(self, x: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch 1280 p q"]:
        """The last feature map, after ReLU6."""
        x = self.blocks(self.act0(self.bn0(self.conv_stem(x))))
        return self.act1(self.bn1(self.conv_head(x)))

    def forward(self, x: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch 1000"]:
        """Class scores before the softmax."""
        return self.fc(self.dropout(self.avgpool(self.features(x)).flatten(1)))


def from_checkpoint(weights: dict[str, Tensor]) -> EfficientNetLite0Network:
    """The network in evaluation mode with these weights; their names begin with underscores."""
    named = OrderedDict(
        (".".join(part.removeprefix("_") for part in name.split(".")), value)
        for name, value in weights.items()
    )
    with torch.device("meta"):
        network = EfficientNetLite0Network()
    network.load_state_dict(named, assign=True)
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    return network.eval()
