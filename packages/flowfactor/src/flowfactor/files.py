"""Files that are whole or not there, and what is said of others."""

import math
import os
import pickle
import struct
import zipfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.overrides import TorchFunctionMode

WRONG = (
    ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError,
    RuntimeError, TypeError, ValueError, SafetensorError, pickle.UnpicklingError, struct.error,
)  # fmt: skip
"""What comes of reading a file of another kind, or one that was cut or changed."""


def reason(error: BaseException) -> str:
    """The first line of what the error says, or what it is."""
    if isinstance(error, MemoryError):
        return "it asks for more memory than there is"
    return str(error).strip().partition("\n")[0] or type(error).__name__


@contextmanager
def whole(path: str | Path) -> Generator[Path]:
    """A path beside `path` to write to, which takes its place at the end and goes on an error.

    The name is always the same: what a killed process leaves there is overwritten by the next.
    Raises OSError where the file cannot be written.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.part")
    try:
        yield part
        part.replace(path)
    except (SafetensorError, RuntimeError) as error:
        # What safetensors and torch.save make of an error of the system.
        part.unlink(missing_ok=True)
        raise OSError(f"{path} cannot be written: {error}") from error
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_text(path: str | Path, text: str) -> None:
    """UTF-8, whole or not at all."""
    with whole(path) as part:
        part.write_text(text, "utf-8")


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


def no_more_than(weights: Mapping[str, Tensor]) -> TorchFunctionMode:
    """While it lasts, no module that is built may have many times the numbers of the weights.

    The head of a file may ask for a network of any size.
    """
    return _NoMoreThan(16 * sum(value.numel() for value in weights.values()) + 10**6)
