"""Reading a torch file of weights without running code from it."""

import os
import zipfile
from collections.abc import Mapping
from io import BufferedIOBase
from pathlib import Path
from typing import TYPE_CHECKING

from eigenworks.dataset import DataError

if TYPE_CHECKING:
    from torch import Tensor


def check_archive(file: BufferedIOBase) -> None:
    """ValueError for an archive that unpacks to more than it takes; those of torch.save do not.

    torch.load makes room for whatever the list of its files says, and unpacks all of it.
    """
    if file.read(4) == b"PK\x03\x04":
        try:
            with zipfile.ZipFile(file) as archive:
                asked = sum(one.file_size for one in archive.infolist())
        except zipfile.BadZipFile as error:
            raise ValueError(str(error)) from error
        if asked > file.seek(0, os.SEEK_END):
            raise ValueError("it unpacks to more than it takes")
    file.seek(0)


def read_state_dict(
    path: Path, shapes: Mapping[str, tuple[int, ...]], key: str | None = None
) -> dict[str, "Tensor"]:
    """The tensors of the file (of its entry `key`, if given) by name, on the CPU.

    `shapes` names some tensors with the shapes that they must have. Raises DataError for a
    file that is cut short, holds anything but tensors, or belongs to another network.
    """
    import torch

    try:
        with path.open("rb") as file:
            check_archive(file)
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
