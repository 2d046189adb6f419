"""Textures: ten classes of the Describable Textures Dataset, 60 photographs of each.

textures = TEXTURES.load()               # the JPEG files; nothing is decoded yet
textures.classes[textures.label[0]]      # "banded"
pixels = textures.pixels(0)              # (224, w, 3) or (h, 224, 3), uint8
"""

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8

from eigenworks.dataset import DataError, development_file


@dataclass(frozen=True)
class TextureImages:
    """JPEG files in the order of the archive, and the class of each by index."""

    jpeg: tuple[bytes, ...]
    name: tuple[str, ...]
    label: Int64[np.ndarray, " images"]
    classes: tuple[str, ...]

    def pixels(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """One photograph in RGB, its short side 224. Raises DataError for a broken file."""
        from PIL import Image, UnidentifiedImageError

        try:
            with Image.open(io.BytesIO(self.jpeg[index])) as image:
                return np.asarray(image.convert("RGB"))
        except (UnidentifiedImageError, OSError) as error:
            raise DataError(f"{self.name[index]}: not a whole image: {error}") from error


@dataclass(frozen=True)
class Textures:
    """The data set. Its terms do not allow it to travel: `EIGENWORKS_DATA` says where it lies."""

    name: str = "textures, ten classes of DTD"
    how: str = "images/textures_dev.zip in the folder that EIGENWORKS_DATA names"
    licence: str = "DTD: for research use"
    citation: str = "Cimpoi et al., Describing Textures in the Wild, CVPR 2014"

    def available(self) -> bool:
        """Whether the archive is there."""
        try:
            development_file("images/textures_dev.zip")
        except DataError:
            return False
        return True

    def load(self) -> TextureImages:
        """Reads the archive. Raises DataError if it is absent, cut short or has no folders."""
        return read_textures(development_file("images/textures_dev.zip"))


TEXTURES = Textures()


def read_textures(path: Path) -> TextureImages:
    """Every CLASS/FILE.jpg of the archive. Raises DataError naming the archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
            files = tuple(archive.read(name) for name in names)
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise DataError(f"{path}: not a whole archive: {error}") from error
    folders = [name.rpartition("/")[0] for name in names]
    if not names or not all(folders):
        raise DataError(f"{path}: expected images as CLASS/FILE.jpg")
    classes = tuple(sorted(set(folders)))
    label = np.array([classes.index(folder) for folder in folders], np.int64)
    return TextureImages(files, tuple(names), label, classes)
