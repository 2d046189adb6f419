"""Handwritten digits of MNIST, 10,000 images of 28x28 pixels, sorted by digit.

    images = MNIST.load()
    images.image[images.digit == 3]          # (1032, 28, 28)

There is no official split among them: draw one with a seed.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8

from eigenworks.data.npz import read_npz
from eigenworks.dataset import DataError, development_file, has_development_files

FILE = "images/mnist_10k.npz"


@dataclass(frozen=True)
class MnistImages:
    """`image` in grey levels 0 (paper) to 255 (ink); `digit` 0..9."""

    image: UInt8[np.ndarray, "images 28 28"]
    digit: Int64[np.ndarray, " images"]


@dataclass(frozen=True)
class Mnist:
    """The data set; `EIGENWORKS_DATA` says where it lies."""

    name: str = "MNIST, 10,000 images"
    how: str = f"{FILE} (images uint8, labels) in the folder that EIGENWORKS_DATA names"
    licence: str = "MNIST: CC BY-SA 3.0 as usually given"
    citation: str = "LeCun et al., Proc. IEEE 86 (1998)"

    def available(self) -> bool:
        """Whether the file is there."""
        return has_development_files(FILE)

    def load(self) -> MnistImages:
        """Reads the images. Raises DataError if the file is absent, cut short or different."""
        return read_mnist(development_file(FILE))


MNIST = Mnist()


def read_mnist(path: Path) -> MnistImages:
    """`images` and `labels` of an .npz file. Raises DataError naming the file."""
    arrays = read_npz(path, "digits", ("images", "labels"))
    image, digit = arrays["images"], arrays["labels"]
    if image.dtype != np.uint8 or image.shape[1:] != (28, 28):
        raise DataError(f"{path}: expected uint8 images of 28x28, got {image.dtype} {image.shape}")
    if digit.shape != image.shape[:1] or not np.isin(digit, np.arange(10)).all():
        raise DataError(f"{path}: expected a digit 0..9 for each of {len(image)} images")
    return MnistImages(image, digit.astype(np.int64))
