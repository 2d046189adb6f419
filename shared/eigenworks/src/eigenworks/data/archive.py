"""Images in a zip archive that is not part of any package."""

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8

from eigenworks.dataset import DataError


@dataclass(frozen=True)
class ImageFiles:
    """Encoded images in the order of their names, and the class of each by index."""

    file: tuple[bytes, ...]
    name: tuple[str, ...]
    label: Int64[np.ndarray, " images"]
    classes: tuple[str, ...]

    def pixels(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """One image in RGB. Raises DataError for a broken file."""
        from PIL import Image, UnidentifiedImageError

        try:
            with Image.open(io.BytesIO(self.file[index])) as image:
                return np.asarray(image.convert("RGB"))
        except (UnidentifiedImageError, OSError) as error:
            raise DataError(f"{self.name[index]}: not a whole image: {error}") from error


def read_files(path: Path, ending: str) -> tuple[tuple[str, ...], tuple[bytes, ...]]:
    """Names and contents of the files with this ending. Raises DataError naming the archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = sorted(name for name in archive.namelist() if name.endswith(ending))
            files = tuple(archive.read(name) for name in names)
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise DataError(f"{path}: not a whole archive: {error}") from error
    if not names:
        raise DataError(f"{path}: expected images, *{ending}")
    return tuple(names), files


def read_classes(path: Path) -> ImageFiles:
    """Every CLASS/FILE.jpg of the archive. Raises DataError naming the archive."""
    names, files = read_files(path, ".jpg")
    folders = [name.rpartition("/")[0] for name in names]
    if not all(folders):
        raise DataError(f"{path}: expected images as CLASS/FILE.jpg")
    classes = tuple(sorted(set(folders)))
    label = np.array([classes.index(folder) for folder in folders], np.int64)
    return ImageFiles(files, names, label, classes)
