"""Files that are whole or not there."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError


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
