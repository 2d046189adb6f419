"""Reading a torch file of weights without running code from it."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from eigenworks.dataset import DataError

if TYPE_CHECKING:
    from torch import Tensor


def read_state_dict(
    path: Path, shapes: Mapping[str, tuple[int, ...]], key: str | None = None
) -> dict[str, "Tensor"]:
    """The tensors of the file (of its entry `key`, if given) by name, on the CPU.

    `shapes` names some tensors with the shapes that they must have. Raises DataError for a
    file that is cut short, holds anything but tensors, or belongs to another network.
    """
    import torch

    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # A changed file makes torch.load fail in any way.
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise DataError(f"{path}: not a whole file of weights: {reason}") from error
    if key is not None:
        if not isinstance(held, dict) or key not in held:
            raise DataError(f"{path}: expected weights under the key {key!r}")
        held = held[key]
    if not isinstance(held, dict) or not all(isinstance(v, torch.Tensor) for v in held.values()):
        raise DataError(f"{path}: expected tensors by name, got {type(held).__name__}")
    for name, shape in shapes.items():
        if name not in held:
            raise DataError(f"{path}: expected a tensor {name!r}, which is not there")
        if tuple(held[name].shape) != shape:
            raise DataError(
                f"{path}: expected {name} of shape {shape}, got {tuple(held[name].shape)}"
            )
    return dict(held)
