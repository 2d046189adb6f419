"""CIFAR-10: 50 test images of each class, 32x32, as JPEG files.

images = CIFAR10.load()
images.classes[images.label[0]]          # "airplane"
images.pixels(0)                         # (32, 32, 3) uint8
"""

from dataclasses import dataclass

from eigenworks.data.archive import ImageFiles, read_classes
from eigenworks.dataset import development_file, has_development_files

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
        return has_development_files(FILE)

    def load(self) -> ImageFiles:
        """Reads the archive. Raises DataError if it is absent, cut short or has no folders."""
        return read_classes(development_file(FILE))


CIFAR10 = Cifar10()
