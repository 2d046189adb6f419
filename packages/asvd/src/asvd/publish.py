"""The folder of a compressed model: everything or nothing in it, whenever the command is killed.

Files are made in OUT/.asvd-run/model-KEY and moved up when all are there; the rest of the work
goes before that folder does. Who finds the folder has only to move what is left in it.
"""

import hashlib
import json
import shutil
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

WORK = ".asvd-run"


class Place:
    """Where a compressed model goes, asked for by `question` (plain values)."""

    def __init__(self, out: Path, question: Mapping[str, Any]) -> None:
        self.out, self.work = out, out / WORK
        key = hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()[:16]
        self._ready = self.work / f"model-{key}"

    @property
    def ready(self) -> bool:
        """Whether an earlier call made all files, and had no time to put them in place."""
        return self._ready.is_dir()

    def check(self) -> None:
        """Raises ValueError for a folder with other files than those of an interrupted call."""
        if self.ready or not self.out.exists():
            return
        if not self.out.is_dir():
            raise ValueError(f"OUT must be a folder, got the file {self.out}")
        if any(path.name != WORK for path in self.out.iterdir()):
            # The last step of an interrupted call.
            if self.work.is_dir() and not any(self.work.iterdir()):
                self.work.rmdir()
            raise ValueError(f"OUT must be an empty folder or a new one, got {self.out}")

    @contextmanager
    def staging(self) -> Generator[Path]:
        """A folder for the files, which is `ready` where the block ends without an error.

        Raises OSError where they cannot be written.
        """
        partial = self.work / "model.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            yield partial
        except SafetensorError as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise OSError(f"{self.out} cannot be written: {error}") from error
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        partial.rename(self._ready)

    def publish(self) -> None:
        """Moves the files into OUT and removes all work."""
        for path in sorted(self._ready.iterdir()):
            path.replace(self.out / path.name)
        for path in self.work.iterdir():
            if path != self._ready:
                shutil.rmtree(path)
        self._ready.rmdir()
        self.work.rmdir()


def state_of(path: Path) -> list[list[Any]]:
    """Names, sizes and times of a file, or of the files in a folder: what changes with them."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return [
        [str(file.resolve()), stat.st_size, stat.st_mtime_ns]
        for file in files
        for stat in [file.stat()]
    ]
