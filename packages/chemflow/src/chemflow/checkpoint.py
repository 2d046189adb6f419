"""Tensors with what they are made from: one safetensors file, plain values as JSON in its header.

Nothing in such a file is run, and it is replaced in one step, so that a death while it is written
leaves the one before.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.overrides import TorchFunctionMode

from chemflow.files import WRONG, reason


def write_checkpoint(
    path: Path, format: str, about: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Makes the folder where it has to. Raises OSError where the file cannot be written.

    Args:
        path: The file.
        format: What kind of file this is, and its version.
        about: Plain values.
        tensors: Copied to the CPU.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    header = {"format": format, "about": json.dumps(about)}
    # Copies: tensors that share memory cannot be saved.
    held = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
    try:
        save_file({name: tensor.contiguous() for name, tensor in held.items()}, part, header)
        part.replace(path)
    except SafetensorError as error:
        part.unlink(missing_ok=True)
        raise OSError(f"{path} cannot be written: {error}") from error


def read_checkpoint(path: Path, format: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """`about` and the tensors. ValueError for a file of any other kind, naming it.

    Raises FileNotFoundError where there is none.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (*WRONG, OSError) as error:
        raise ValueError(f"{path}: not a whole safetensors file: {reason(error)}") from error
    if header.get("format") != format:
        raise ValueError(f"{path}: expected {format!r}, got {header.get('format')!r}")
    try:
        about = json.loads(header["about"])
    except WRONG as error:
        raise ValueError(f"{path}: its head says nothing of it: {reason(error)}") from error
    if not isinstance(about, dict):
        raise ValueError(f"{path}: its head must hold an object")
    return about, tensors


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Twelve hexadecimal digits that tell values from others: equal for equal names and values."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        found.update(value.view(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:12]


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
