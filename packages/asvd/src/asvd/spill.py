"""A folder of named tensors: what does not fit into memory, and what a second run goes on from."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from asvd.distributed import spread

MANIFEST = "manifest.json"
FORMAT = "asvd run 1"


class StaleRunError(ValueError):
    """A folder that holds the work of another model, other data or other options."""


class Folder:
    """Tensors by name, each file written whole or not at all.

    A folder that is named is kept and gone on from: `question` says what was asked, and a
    folder with another answer is refused. Without a path it is temporary and removed on exit.
    """

    def __init__(
        self, path: Path | str | None = None, question: Mapping[str, Any] | None = None
    ) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="asvd-") if path is None else None
        self.path = Path(self._temporary.name if self._temporary is not None else str(path))
        self.path.mkdir(parents=True, exist_ok=True)
        if question is not None:
            self._ask(question)

    def __enter__(self) -> "Folder":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._temporary is not None:
            self._temporary.cleanup()

    def has(self, name: str) -> bool:
        """Whether `save` has been called with the name."""
        return self._file(name).is_file()

    def save(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Writes the tensors; a reader sees all of them or the file that was there before."""
        path = self._file(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        try:
            save_file({key: value.contiguous() for key, value in tensors.items()}, partial)
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            partial.replace(path)
        except SafetensorError as error:
            partial.unlink(missing_ok=True)
            raise OSError(f"{path} cannot be written: {error}") from error
        except BaseException:
            partial.unlink(missing_ok=True)
            raise

    def load(self, name: str, device: torch.device | str = "cpu") -> dict[str, Tensor]:
        """The tensors of the name. FileNotFoundError where there are none."""
        return load_file(self._file(name), str(device))

    def shared(self, name: str, has: bool | None = None) -> bool:
        """Whether any process has the name; then all have it from now on.

        Args:
            has: Whether this one has it as it is wanted; by default as `has` says.
        """
        has = self.has(name) if has is None else has
        return spread(
            has,
            lambda: self._file(name).read_bytes(),
            lambda data: self.save(name, safetensors.torch.load(data)),
        )

    def remove(self, name: str) -> None:
        """Forgets the name, whether it is there or not."""
        self._file(name).unlink(missing_ok=True)

    def under(self, name: str) -> "Folder":
        """A folder in this one, of the same kind and as lasting."""
        return Folder(self.path / name)

    def clear(self) -> None:
        """Forgets everything."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _file(self, name: str) -> Path:
        return self.path / f"{name}.safetensors"

    def _ask(self, question: Mapping[str, Any]) -> None:
        for partial in self.path.rglob(".*.partial"):
            partial.unlink(missing_ok=True)
        path = self.path / MANIFEST
        asked = {"format": FORMAT, **json.loads(json.dumps(question))}
        if not path.is_file():
            if any(self.path.iterdir()):
                raise StaleRunError(f"{self.path} is not empty and holds no {MANIFEST}")
            write_json(path, asked)
            return
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise StaleRunError(f"{path} is not JSON: {error}") from error
        if stored != asked:
            keys = sorted(k for k in {*stored, *asked} if stored.get(k) != asked.get(k))
            raise StaleRunError(
                f"{self.path} was begun with another {', '.join(keys)}; choose another folder "
                "or remove it"
            )


def write_json(path: Path, data: Any) -> None:
    """Writes JSON whole or not at all."""
    write_bytes(path, (json.dumps(data, indent=1, ensure_ascii=False) + "\n").encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all; one that was left half is overwritten."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """A short hash of names, shapes and a sample of the values of the tensors."""
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        flat = tensor.detach().flatten()
        stride = max(1, flat.numel() // 4096)
        sample = flat[::stride].double().cpu().contiguous()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(sample.numpy().tobytes())
    return digest.hexdigest()[:16]
