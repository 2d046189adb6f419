"""Handwritten digits, 1797 images of 8x8 pixels, from the scikit-learn wheel."""

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8

from eigenworks.dataset import DataError, packaged_file, require


@dataclass(frozen=True)
class DigitImages:
    """`image` in grey levels 0 (paper) to 16 (ink); `digit` 0..9; in the order of the file."""

    image: UInt8[np.ndarray, "images 8 8"]
    digit: Int64[np.ndarray, " images"]


@dataclass(frozen=True)
class Digits:
    """The data set. Nothing is read before `load`."""

    name: str = "handwritten digits, 8x8 (scikit-learn wheel)"
    how: str = "pip install scikit-learn"
    licence: str = "BSD 3-clause (scikit-learn); UCI data set, CC BY 4.0"
    citation: str = "Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998"

    def path(self) -> Path | None:
        """Where the file lies, or None."""
        return packaged_file("sklearn", "datasets/data/digits.csv.gz")

    def available(self) -> bool:
        """Whether the file is installed."""
        return self.path() is not None

    def load(self) -> DigitImages:
        """Reads the images. Raises DataError if the file is absent, cut short or different."""
        return read_digits(require(self, self.path()))


DIGITS = Digits()


def read_digits(path: Path) -> DigitImages:
    """64 grey levels and the digit in each line. Raises DataError naming the file."""
    try:
        with gzip.open(path, "rt", encoding="ascii") as file:
            table = np.loadtxt(file, delimiter=",", dtype=np.float64, ndmin=2)
    except (ValueError, EOFError, OSError, zlib.error) as error:
        raise DataError(f"{path}: not a whole table of digits: {error}") from error
    if table.shape[1] != 65:
        raise DataError(f"{path}: expected 65 columns, got {table.shape[1]}")
    pixels, digit = table[:, :64], table[:, 64]
    if not (np.isin(pixels, np.arange(17)).all() and np.isin(digit, np.arange(10)).all()):
        raise DataError(f"{path}: expected grey levels 0..16 and digits 0..9")
    return DigitImages(pixels.astype(np.uint8).reshape(-1, 8, 8), digit.astype(np.int64))
