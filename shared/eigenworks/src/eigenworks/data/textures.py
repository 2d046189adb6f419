"""Textures: ten classes of the Describable Textures Dataset, 60 photographs of each.

textures = TEXTURES.load()               # the JPEG files; nothing is decoded yet
textures.classes[textures.label[0]]      # "banded"
pixels = textures.pixels(0)              # (224, w, 3) or (h, 224, 3), uint8
"""

from dataclasses import dataclass

from eigenworks.data.archive import ImageFiles, read_classes
from eigenworks.dataset import development_file, has_development_files

FILE = "images/textures_dev.zip"


@dataclass(frozen=True)
class Textures:
    """The data set. Its terms do not allow it to travel: `EIGENWORKS_DATA` says where it lies."""

    name: str = "textures, ten classes of DTD"
    how: str = f"{FILE} in the folder that EIGENWORKS_DATA names"
    licence: str = "DTD: for research use"
    citation: str = "Cimpoi et al., Describing Textures in the Wild, CVPR 2014"

    def available(self) -> bool:
        """Whether the archive is there."""
        return has_development_files(FILE)

    def load(self) -> ImageFiles:
        """Reads the archive. Raises DataError if it is absent, cut short or has no folders."""
        return read_classes(development_file(FILE))


TEXTURES = Textures()
