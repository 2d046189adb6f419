"""Files that may be anyone's: no more room is made than they hold."""

import math
import os
import zipfile
from collections.abc import Iterable
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


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


class _NoMoreThan(TorchFunctionMode):
    """Counts the numbers that are made room for."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.left = count

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:  # fmt: skip
        if func in _MAKERS:
            given = (kwargs or {}).get("size", args[0] if args else ())
            size = given if isinstance(given, (tuple, list)) else args
            self.left -= math.prod(n for n in size if isinstance(n, int))
            if self.left < 0:
                raise ValueError("it asks for a network of more numbers than it holds")
        return func(*args, **(kwargs or {}))


_MAKERS = (torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn)


def no_more_than(files: Iterable[Path]) -> TorchFunctionMode:
    """While it lasts, no model that is built may have many times the numbers of the files.

    Their heads may ask for a model of any size. Four numbers a byte is as small as formats go.
    """
    return _NoMoreThan(16 * 4 * sum(file.stat().st_size for file in files) + 10**6)
