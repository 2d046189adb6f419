"""The data sets of the paper's training runs, through torchvision (extra `training`).

Training images are cropped at random where the paper does so and flipped; test images are not.
(The official script validates Stanford Cars with its training transform, random flips
included; here test images are never flipped but in the two-crop evaluation.)
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from PIL import Image
from torch.utils.data import Dataset
from torchvision import datasets, transforms

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Name = Literal["imagenet", "aircraft", "cub", "cars", "folder", "generated"]


@dataclass(frozen=True)
class View:
    """How an image becomes a tensor: resized to `resize`, cropped to `crop` x `crop`.

    `resize` is the short side, or (height, width). `random_crop` cuts 8 to 100 % of the area
    in training, as for ImageNet; otherwise the middle is cut.
    """

    resize: int | tuple[int, int]
    crop: int
    random_crop: bool = False

    def transform(self, training: bool) -> Callable[[Image.Image], torch.Tensor]:
        """The transform of training or of test images."""
        steps: list[Callable] = []
        if training and self.random_crop:
            steps = [transforms.RandomResizedCrop(self.crop)]
        else:
            steps = [transforms.Resize(self.resize), transforms.CenterCrop(self.crop)]
        if training:
            steps.append(transforms.RandomHorizontalFlip())
        steps += [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
        return transforms.Compose(steps)


class CUB(Dataset):
    """CUB-200-2011 as it is distributed: images/, images.txt, train_test_split.txt, labels.

    Raises FileNotFoundError naming the list that is absent.
    """

    def __init__(self, root: Path, train: bool, transform: Callable) -> None:
        lists = {
            name: self._read(root / f"{name}.txt")
            for name in ("images", "image_class_labels", "train_test_split")
        }
        wanted = "1" if train else "0"
        self.samples = [
            (root / "images" / path, int(lists["image_class_labels"][key]) - 1)
            for key, path in lists["images"].items()
            if lists["train_test_split"][key] == wanted
        ]
        self.transform = transform

    @staticmethod
    def _read(path: Path) -> dict[str, str]:
        lines = path.read_text("utf-8").splitlines()
        return {key: value for key, _, value in (line.partition(" ") for line in lines)}

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        path, label = self.samples[index]
        with Image.open(path) as image:
            return self.transform(image.convert("RGB")), label


class Generated(Dataset):
    """Stripes whose direction is the class, at random phase, with noise: for smoke tests."""

    def __init__(self, count: int, classes: int, size: int, seed: int) -> None:
        self.count, self.classes, self.size, self.seed = count, classes, size, seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        if not 0 <= index < self.count:
            raise IndexError(index)
        draws = torch.Generator().manual_seed(self.seed * self.count + index)
        label = index % self.classes
        angle = torch.tensor(torch.pi * label / self.classes)
        line = torch.arange(self.size, dtype=torch.float32)
        phase = 6.28 * torch.rand((), generator=draws)
        wave = line[:, None] * angle.sin() + line * angle.cos()
        stripes = (0.8 * wave + phase).sin().expand(3, -1, -1)
        noise = torch.randn(3, self.size, self.size, generator=draws)
        return stripes + 0.3 * noise, label


def load(name: Name, root: Path, view: View, classes: int, *, train: bool) -> Dataset:
    """The training or the test images. Data are read from `root` and never downloaded.

    ValueError for an unknown name; RuntimeError or FileNotFoundError of torchvision for data
    that are not there.
    """
    transform = view.transform(train)
    part = "train" if train else "test"
    if name == "imagenet":
        return datasets.ImageNet(root, "train" if train else "val", transform=transform)
    if name == "aircraft":
        return datasets.FGVCAircraft(root, "trainval" if train else "test", transform=transform)
    if name == "cars":
        return datasets.StanfordCars(root, part, transform=transform)
    if name == "cub":
        return CUB(root, train, transform)
    if name == "folder":
        return datasets.ImageFolder(root / part, transform=transform)
    if name == "generated":
        return Generated(64 if train else 32, classes, view.crop, 0 if train else 1)
    raise ValueError(f"name must be one of {', '.join(Name.__args__)}, got {name!r}")
