"""Models and image data by name, as the command and the protocols take them (extra `cli`)."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torchvision
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from rankfeat.files import WRONG, load_tensors, reason

_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm")
Resize = Literal["direct", "crop"]


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes a tensor. All of a comparison must have the same."""

    size: int = 224
    resize: Resize = "direct"
    """ "direct" squeezes to size x size, as the paper does; "crop" resizes the short side to
    size / 0.875 and takes the middle."""
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    def transform(self) -> Callable[[Image.Image], Tensor]:
        """The transform of one image. ValueError for settings that make none."""
        if self.size < 1:
            raise ValueError(f"size must be >= 1, got {self.size}")
        if self.resize not in ("direct", "crop"):
            raise ValueError(f"resize must be 'direct' or 'crop', got {self.resize!r}")
        if len(self.mean) not in (1, 3) or len(self.mean) != len(self.std):
            raise ValueError(
                f"mean and std must have 1 or 3 entries each, got {self.mean} and {self.std}"
            )
        if self.resize == "direct":
            shape: list[Any] = [v2.Resize((self.size, self.size), antialias=True)]
        else:
            short = round(self.size / 0.875)
            shape = [v2.Resize(short, antialias=True), v2.CenterCrop(self.size)]
        return v2.Compose([
            v2.RGB() if len(self.mean) == 3 else v2.Grayscale(),
            *shape,
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(list(self.mean), list(self.std)),
        ])  # fmt: skip


def _state_dict(path: str) -> dict[str, Tensor]:
    try:
        state = load_tensors(path)
    except FileNotFoundError:
        raise
    except (*WRONG, OSError) as error:
        told = f"weights {path} are not a whole state dictionary: {reason(error)}"
        raise ValueError(told) from error
    if not isinstance(state, dict):
        raise ValueError(f"weights {path} must be a state dictionary, got {type(state).__name__}")
    return state


def load_model(name: str, weights: str | None) -> nn.Module:
    """A model in eval mode.

    Args:
        name: "torchvision:squeezenet1_0", "timm:vit_base_patch16_224" or "module:function", a
            function without arguments of a module that can be imported.
        weights: A file of a state dictionary; "pretrained" for those that torchvision or timm
            download; None for what the model has by itself, which is random for torchvision.

    Raises:
        ValueError: An unknown form or name; weights that do not fit.
    """
    origin, _, rest = name.partition(":")
    if not rest:
        raise ValueError(
            f"model must be 'torchvision:NAME', 'timm:NAME' or 'MODULE:FUNCTION', got {name!r}"
        )
    pretrained = weights == "pretrained"
    if origin == "torchvision":
        if rest not in torchvision.models.list_models():
            raise ValueError(f"torchvision has no model {rest!r}")
        model = torchvision.models.get_model(rest, weights="DEFAULT" if pretrained else None)
    elif origin == "timm":
        timm = importlib.import_module("timm")
        if rest not in timm.list_models():
            raise ValueError(f"timm has no model {rest!r}")
        model = timm.create_model(rest, pretrained=pretrained)
    else:
        if pretrained:
            raise ValueError(f"weights must be a file for {name!r}, got 'pretrained'")
        model = _made_by(origin, rest)
    if weights is not None and not pretrained:
        state = _state_dict(weights)
        try:
            missing, unexpected = model.load_state_dict(state, strict=False)
        except WRONG as error:
            told = f"weights {weights} must fit {name}: {reason(error)}"
            raise ValueError(told) from error
        if missing or unexpected:
            raise ValueError(
                f"weights {weights} must fit {name}: missing {missing[:3]}, not known"
                f" {unexpected[:3]}"
            )
    return model.eval()


def _made_by(module: str, function: str) -> nn.Module:
    try:
        found = getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        # What the module itself lacks is told as it is.
        if not module.startswith(error.name or module):
            raise
        raise ValueError(f"model must name a module that is there, got {module!r}") from error
    except (AttributeError, TypeError) as error:
        raise ValueError(f"model must name a function of {module!r}, got {function!r}") from error
    model = found()
    if not isinstance(model, nn.Module):
        raise ValueError(f"model must be made by {module}:{function}, got {type(model).__name__}")
    return model


class ImageFiles(Dataset[Tensor]):
    """All images below a folder, in the order of their paths."""

    def __init__(self, folder: Path, transform: Callable[[Image.Image], Tensor]) -> None:
        if not folder.is_dir():
            raise ValueError(f"images must lie in a folder, got {folder}")
        self.paths = sorted(one for one in folder.rglob("*") if one.suffix.lower() in _ENDINGS)
        if not self.paths:
            raise ValueError(f"{folder} holds no image ({', '.join(_ENDINGS)})")
        self.transform = transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        try:
            with Image.open(self.paths[index]) as image:
                return self.transform(image)
        # Pillow's plugins raise nearly anything for a broken file.
        except Exception as error:
            told = f"{self.paths[index]} is not a whole image: {reason(error)}"
            raise ValueError(told) from error


def load_data(name: str, preprocessing: Preprocessing, *, labelled: bool = False) -> Any:
    """Images by a folder, or by "torchvision:NAME:ROOT[:SPLIT]", e.g. "torchvision:CIFAR10:data".

    Args:
        name: A folder of images, in folders or not; or a data set of torchvision, which lies in
            ROOT already (nothing is downloaded; FakeData takes a number for it). SPLIT is "train"
            or "test" where the data set has a `train` argument, and else its `split`.
        preprocessing: Of each image.
        labelled: Keep the labels: of a data set, and of a folder its folders as classes.
    """
    transform = preprocessing.transform()
    if not name.startswith("torchvision:"):
        folder = Path(name)
        return ImageFolder(folder, transform) if labelled else ImageFiles(folder, transform)
    _, kind, *rest = name.split(":")
    found = getattr(torchvision.datasets, kind, None)
    if found is None:
        raise ValueError(f"torchvision has no data set {kind!r}")
    if kind == "FakeData":
        count = int(rest[0]) if rest else 100
        data: Any = found(count, (3, 32, 32), 10, transform)
    else:
        if not rest:
            raise ValueError(f"{name} must name the folder: torchvision:{kind}:ROOT")
        split = rest[1] if len(rest) > 1 else "test"
        try:
            data = found(rest[0], train=split == "train", transform=transform)
        except TypeError:
            data = found(rest[0], split=split, transform=transform)
    return data if labelled else _Unlabelled(data)


class _Unlabelled(Dataset[Tensor]):
    def __init__(self, data: Any) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Tensor:
        return self.data[index][0]


def batches(data: Dataset, size: int, workers: int = 0) -> DataLoader:
    """The data in order."""
    return DataLoader(data, batch_size=size, num_workers=workers)
