"""Tensors with what they are made from: one safetensors file, plain values as JSON in its header.

Nothing in such a file is run, and it is replaced in one step, so that a death while it is written
leaves the one before.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor


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
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: not a whole safetensors file: {error}") from error
    if header.get("format") != format:
        raise ValueError(f"{path}: expected {format!r}, got {header.get('format')!r}")
    return json.loads(header["about"]), tensors


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Twelve hexadecimal digits that tell values from others: equal for equal names and values."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        found.update(value.view(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:12]
