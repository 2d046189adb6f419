"""Files that may be anyone's: no more room is made than they hold."""

import os
import zipfile
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import torch


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


def load_tensors(path: str | Path, device: str | torch.device = "cpu") -> Any:
    """What torch.save wrote, by whomever: tensors and numbers alone, in no more room than theirs.

    Raises ValueError or what torch.load makes of another file.
    """
    with Path(path).open("rb") as file:
        check_archive(file)
    return torch.load(path, map_location=device, weights_only=True)
