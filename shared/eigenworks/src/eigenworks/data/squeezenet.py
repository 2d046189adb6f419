"""SqueezeNet 1.0 trained on ImageNet-1k, in the binary form of Deep Compression, 0.66 MB."""

from dataclasses import dataclass

from eigenworks.dataset import DataError, development_file

FILE = "images/compressed_SqueezeNet.net"


@dataclass(frozen=True)
class CompressedSqueezeNet:
    """The file; whoever uses the weights decodes it."""

    name: str = "SqueezeNet 1.0 weights, deep-compressed"
    how: str = f"{FILE} in the folder that EIGENWORKS_DATA names"
    licence: str = "BSD 2-clause"
    citation: str = "Han et al., Deep Compression, ICLR 2016; Iandola et al., SqueezeNet, 2016"

    def available(self) -> bool:
        """Whether the file is there."""
        try:
            development_file(FILE)
        except DataError:
            return False
        return True

    def load(self) -> bytes:
        """The file as it is. Raises DataError if it is absent."""
        return development_file(FILE).read_bytes()


SQUEEZENET = CompressedSqueezeNet()
