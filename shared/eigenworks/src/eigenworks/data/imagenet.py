"""ImageNet-1k: one photograph of each even class, short side 256, as JPEG files.

images = IMAGENET.load()
images.label[1]                          # 2, the class index of ImageNet-1k
images.pixels(1)                         # (h, w, 3) uint8

They are probably training images, which flatters a classifier's confidence.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eigenworks.data.archive import ImageFiles, read_files
from eigenworks.dataset import DataError, development_file, has_development_files

FILE = "images/imagenet_samples_even.zip"
_NAME = re.compile(r"(?:.*/)?(\d{4})_n\d{8}_(.+)\.JPEG")


@dataclass(frozen=True)
class ImageNetSamples:
    """The data set. Its terms do not allow it to travel: `EIGENWORKS_DATA` says where it lies."""

    name: str = "ImageNet-1k, one photograph of each even class"
    how: str = f"{FILE} in the folder that EIGENWORKS_DATA names"
    licence: str = "ImageNet: for research use"
    citation: str = (
        "Deng et al., ImageNet, CVPR 2009; samples of EliSchwartz/imagenet-sample-images"
    )

    def available(self) -> bool:
        """Whether the archive is there."""
        return has_development_files(FILE)

    def load(self) -> ImageFiles:
        """Reads the archive. Raises DataError if it is absent, cut short or named otherwise."""
        return read_imagenet(development_file(FILE))


IMAGENET = ImageNetSamples()


def read_imagenet(path: Path) -> ImageFiles:
    """Every INDEX_WORDNET_NAME.JPEG of the archive; `label` is the INDEX of 1000 classes."""
    names, files = read_files(path, ".JPEG")
    read = [_NAME.fullmatch(name) for name in names]
    for name, match in zip(names, read, strict=True):
        if match is None or int(match[1]) > 999:
            raise DataError(f"{path}: expected images as 0002_n01484850_name.JPEG, got {name}")
    label = np.array([int(match[1]) for match in read if match], np.int64)
    classes = tuple(match[2] for match in read if match)
    return ImageFiles(files, names, label, classes)
