"""Features by which images are compared. Figures of different features are not comparable."""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


@runtime_checkable
class Distance(Protocol):
    """A distance of two batches of images in -1..1, (batch, c, h, w) each -> (batch,).

    `name` says which features it is of, and is printed beside every figure.
    """

    name: str

    def __call__(self, first: Tensor, second: Tensor, /) -> Tensor: ...


@runtime_checkable
class Features(Protocol):
    """Images (batch, c, h, w) -> feature vectors (batch, k), for Fréchet distances."""

    name: str

    def vectors(self, images: Tensor, /) -> Tensor: ...


class PixelDistance:
    """The mean squared difference of pixels; needs no network and sees no likeness."""

    name = "squared pixels"

    def __call__(
        self, first: Float[Tensor, "batch c h w"], second: Float[Tensor, "batch c h w"]
    ) -> Float[Tensor, " batch"]:
        """(batch, c, h, w) twice -> (batch,)."""
        return (first - second).square().flatten(1).mean(1)


# Repeats and stride of the stages of EfficientNet-Lite0 up to block 8.
_STAGES = ((1, 1), (2, 2), (2, 2), (3, 2), (3, 1))


class EfficientNetLite0(nn.Module):
    """A distance like LPIPS and pooled features, of EfficientNet-Lite0 trained on ImageNet.

    Images are taken to `size` pixels; the distance is the mean over the blocks of the squared
    differences of unit channel vectors, averaged over pixels (Zhang et al., CVPR 2018, without
    their linear weights and with another network, so not LPIPS). `vectors` are the channel means
    of the last of the blocks (112 for block 8).

    Args:
        state: The state dictionary of efficientnet-lite-pytorch (`_conv_stem.weight`, …); the
            names of later blocks are not used.
        size: Height and width that images are resized to.
        blocks: Ascending, of 0..10.
    """

    def __init__(
        self, state: Mapping[str, Tensor], size: int = 96, blocks: tuple[int, ...] = (2, 4, 8)
    ) -> None:
        super().__init__()
        if not blocks or list(blocks) != sorted(set(blocks)) or not 0 <= blocks[-1] <= 10:
            raise ValueError(f"blocks must ascend within 0..10, got {blocks}")
        self.size, self.blocks = size, blocks
        listed = ", ".join(map(str, blocks))
        self.name = f"lpips-like (EfficientNet-Lite0 blocks {listed} at {size} px)"
        used = ("_conv_stem.", "_bn0.", *(f"_blocks.{i}." for i in range(blocks[-1] + 1)))
        missing = [name for name in used if not any(key.startswith(name) for key in state)]
        if missing:
            raise ValueError(f"state must hold {missing[0]}* of EfficientNet-Lite0")
        self._strides: list[int] = []
        for repeats, stride in _STAGES:
            self._strides += [stride] + [1] * (repeats - 1)
        self._names: dict[str, str] = {}
        for key, value in state.items():
            if key.startswith(used) and not key.endswith("num_batches_tracked"):
                # Buffers may not have dots in their names.
                self._names[key] = key.replace(".", "/")
                self.register_buffer(self._names[key], value.detach().clone())

    def _of(self, key: str) -> Tensor:
        return self.get_buffer(self._names[key])

    def _normalised(self, x: Tensor, name: str) -> Tensor:
        mean, variance = (self._of(f"{name}.running_{k}") for k in ("mean", "var"))
        weight, bias = (self._of(f"{name}.{k}") for k in ("weight", "bias"))
        return functional.batch_norm(x, mean, variance, weight, bias, eps=1e-3)

    def _convolved(self, x: Tensor, name: str, stride: int = 1) -> Tensor:
        weight = self._of(f"{name}.weight")
        groups = x.shape[1] // weight.shape[1]
        # The network was trained with padding that puts the odd pixel at the end.
        kernel = weight.shape[-1]
        pads = []
        for length in (x.shape[-1], x.shape[-2]):
            total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
            pads += [total // 2, total - total // 2]
        return functional.conv2d(functional.pad(x, pads), weight, stride=stride, groups=groups)

    def _block(self, x: Tensor, number: int) -> Tensor:
        name = f"_blocks.{number}"
        y = x
        if f"{name}._expand_conv.weight" in self._names:
            y = self._normalised(self._convolved(y, f"{name}._expand_conv"), f"{name}._bn0")
            y = functional.relu6(y)
        y = self._convolved(y, f"{name}._depthwise_conv", self._strides[number])
        y = functional.relu6(self._normalised(y, f"{name}._bn1"))
        y = self._normalised(self._convolved(y, f"{name}._project_conv"), f"{name}._bn2")
        return x + y if x.shape == y.shape else y

    def maps(self, images: Float[Tensor, "batch c h w"]) -> list[Tensor]:
        """Feature maps of the blocks, of images with 1 or 3 channels in -1..1."""
        x = images.expand(-1, 3, -1, -1)
        if x.shape[-2:] != (self.size, self.size):
            x = functional.interpolate(
                x, (self.size, self.size), mode="bilinear", antialias=x.shape[-1] > self.size
            )
        x = functional.relu6(self._normalised(self._convolved(x, "_conv_stem", 2), "_bn0"))
        kept = []
        for number in range(self.blocks[-1] + 1):
            x = self._block(x, number)
            if number in self.blocks:
                kept.append(x)
        return kept

    def vectors(self, images: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch k"]:
        """Channel means of the last block."""
        return self.maps(images)[-1].mean((-2, -1))

    def forward(
        self, first: Float[Tensor, "batch c h w"], second: Float[Tensor, "batch c h w"]
    ) -> Float[Tensor, " batch"]:
        """The distance of each pair."""
        total = torch.zeros(len(first), dtype=first.dtype, device=first.device)
        for a, b in zip(self.maps(first), self.maps(second), strict=True):
            a, b = (functional.normalize(f, dim=1, eps=1e-10) for f in (a, b))
            total = total + (a - b).square().sum(1).mean((-2, -1))
        return total / len(self.blocks)
