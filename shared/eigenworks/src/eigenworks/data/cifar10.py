"""CIFAR-10: 50 test images of each class, 32x32, as JPEG files.

images = CIFAR10.load()
images.classes[images.label[0]]          # "airplane"
images.pixels(0)                         # (32, 32, 3) uint8
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eigenworks.data.archive import ImageFiles, read_files
from eigenworks.dataset import DataError, development_file

FILE = "images/cifar10_test_500.zip"


@dataclass(frozen=True)
class Cifar10:
    """The data set; `EIGENWORKS_DATA` says where it lies."""

    name: str = "CIFAR-10, 500 test images"
    how: str = f"{FILE} in the folder that EIGENWORKS_DATA names"
    licence: str = "none stated"
    citation: str = "Krizhevsky, Learning multiple layers of features from tiny images, 2009"

    def available(self) -> bool:
        """Whether the archive is there."""
        try:
            development_file(FILE)
        except DataError:
            return False
        return True

    def load(self) -> ImageFiles:
        """Reads the archive. Raises DataError if it is absent, cut short or has no folders."""
        return read_cifar10(development_file(FILE))


CIFAR10 = Cifar10()


def read_cifar10(path: Path) -> ImageFiles:
    """Every CLASS/FILE.jpg of the archive. Raises DataError naming the archive."""
    names, files = read_files(path, ".jpg")
    folders = [name.rpartition("/")[0] for name in names]
    if not all(folders):
        raise DataError(f"{path}: expected images as CLASS/FILE.jpg")
    classes = tuple(sorted(set(folders)))
    label = np.array([classes.index(folder) for folder in folders], np.int64)
    return ImageFiles(files, names, label, classes)
