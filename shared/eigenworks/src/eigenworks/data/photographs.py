"""Nineteen photographs that travel in the wheels of scikit-image and scikit-learn.

pixels = PHOTOGRAPHS.load()["coffee"]    # (400, 600, 3) uint8
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from eigenworks.dataset import DataError, packaged_file

THINGS = {
    "astronaut": ("skimage", "data/astronaut.png"),
    "chelsea": ("skimage", "data/chelsea.png"),
    "coffee": ("skimage", "data/coffee.png"),
    "rocket": ("skimage", "data/rocket.jpg"),
    "camera": ("skimage", "data/camera.png"),
    "coins": ("skimage", "data/coins.png"),
    "motorcycle": ("skimage", "data/motorcycle_left.png"),
    "china": ("sklearn", "datasets/images/china.jpg"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
}
"""Photographs of things."""
TEXTURES = {name: ("skimage", f"data/{name}.png") for name in ("brick", "grass", "gravel")}
"""Photographs of surfaces."""
SCIENCE = {
    "cell": ("skimage", "data/cell.png"),
    "hubble": ("skimage", "data/hubble_deep_field.jpg"),
    "tissue": ("skimage", "data/ihc.png"),
    "moon": ("skimage", "data/moon.png"),
    "retina": ("skimage", "data/retina.jpg"),
}
"""Photographs by microscopes and telescopes."""
DOCUMENTS = {name: ("skimage", f"data/{name}.png") for name in ("page", "text")}
"""Photographs of print."""


@dataclass(frozen=True)
class Photographs:
    """Images by the names of `THINGS`, `TEXTURES`, `SCIENCE` and `DOCUMENTS`, in RGB."""

    name: str = "photographs of the scikit-image and scikit-learn wheels"
    how: str = "pip install scikit-image scikit-learn"
    licence: str = "public domain, CC0 and CC BY: see the README of each wheel's images"
    citation: str = "van der Walt et al., scikit-image, PeerJ 2014; Pedregosa et al., JMLR 2011"

    def paths(self) -> dict[str, Path | None]:
        """Where the files lie."""
        return {
            name: packaged_file(package, file)
            for name, (package, file) in (THINGS | TEXTURES | SCIENCE | DOCUMENTS).items()
        }

    def available(self) -> bool:
        """Whether all files are installed."""
        return all(self.paths().values())

    def load(self) -> dict[str, UInt8[np.ndarray, "h w 3"]]:
        """Decodes the images. Raises DataError if one is absent or broken."""
        from PIL import Image, UnidentifiedImageError

        read = {}
        for name, path in self.paths().items():
            if path is None:
                raise DataError(f"the photograph {name!r} is not installed: {self.how}")
            try:
                with Image.open(path) as image:
                    read[name] = np.asarray(image.convert("RGB"))
            except (UnidentifiedImageError, OSError) as error:
                raise DataError(f"{path}: not a whole image: {error}") from error
        return read


PHOTOGRAPHS = Photographs()
