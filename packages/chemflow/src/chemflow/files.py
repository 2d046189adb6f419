"""Files that are whole or not there, and files of SMILES."""

import csv
import gzip
import io
import json
import lzma
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

WRONG = (
    ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, RuntimeError, TypeError,
    ValueError, SafetensorError,
)  # fmt: skip
"""What comes of reading a file of another kind, or one that was cut or changed."""

LONGEST_LINE = 1 << 20
"""Characters. A compressed file can hold a line that fills the memory."""


def reason(error: BaseException) -> str:
    """The first line of what the error says, or what it is."""
    if isinstance(error, MemoryError):
        return "it asks for more memory than there is"
    return str(error).strip().partition("\n")[0] or type(error).__name__


def read_json(path: Path, *keys: str) -> dict[str, Any]:
    """An object with these keys. Raises ValueError naming any other file."""
    try:
        told = json.loads(path.read_text("utf-8"))
    except WRONG as error:
        raise ValueError(f"{path}: not JSON: {reason(error)}") from error
    if not isinstance(told, dict) or not set(keys) <= told.keys():
        raise ValueError(f"{path}: expected a JSON object with {list(keys)}")
    return told


def write_bytes(path: Path, data: bytes, shared: bool = False) -> None:
    """Beside the place and then into it, so that nobody sees half a file.

    What a killed process leaves beside it is overwritten by the next that writes the file;
    unless it is `shared`, of several processes that may write it at the same time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part" if shared else f".{path.name}.part")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str, shared: bool = False) -> None:
    """`write_bytes` of UTF-8 with a line's end."""
    write_bytes(path, (text if text.endswith("\n") else text + "\n").encode(), shared)


def _open(path: Path) -> io.BufferedReader:
    if path.suffix == ".gz":
        return io.BufferedReader(gzip.GzipFile(path, "rb"))
    if path.suffix == ".xz":
        return io.BufferedReader(lzma.LZMAFile(path, "rb"))
    return path.open("rb")


def read_smiles(path: str | Path, column: str | None = None) -> Iterator[str]:
    """SMILES of a file, one after another, plain or with .gz or .xz.

    A .csv or .tsv has a header, and `column` names the column (any spelling of "smiles" if None).
    Other files have a SMILES as the first word of each line; empty lines and lines that start
    with "#" are passed over.

    Raises ValueError for a file without that column or that is no text, OSError for one that
    cannot be read.
    """
    path = Path(path)
    kind = path.with_suffix("").suffix if path.suffix in (".gz", ".xz") else path.suffix
    try:
        with _open(path) as file, io.TextIOWrapper(file, "utf-8-sig", newline="") as text:
            if kind in (".csv", ".tsv"):
                yield from _column(text, path, "\t" if kind == ".tsv" else ",", column)
                return
            for line in _lines(text):
                words = line.split(maxsplit=1)
                if words and not words[0].startswith("#"):
                    yield words[0]
    except gzip.BadGzipFile as error:
        raise OSError(f"{path}: {error}") from error
    except (UnicodeDecodeError, lzma.LZMAError, zlib.error, EOFError, csv.Error) as error:
        raise ValueError(f"{path}: not a whole file of text: {error}") from error


def _lines(text: io.TextIOBase) -> Iterator[str]:
    while line := text.readline(LONGEST_LINE):
        if len(line) == LONGEST_LINE:
            raise EOFError(f"a line has more than {LONGEST_LINE:,} characters")
        yield line


def _column(text: io.TextIOBase, path: Path, delimiter: str, column: str | None) -> Iterator[str]:
    rows = csv.reader(_lines(text), delimiter=delimiter)
    header = next(rows, [])
    if column is None:
        found = [name for name in header if name.strip().lower() in ("smiles", "canonical_smiles")]
        column = found[0] if found else "smiles"
    if column not in header:
        raise ValueError(f"{path}: expected a column {column!r}, got {header}")
    place = header.index(column)
    for number, row in enumerate(rows, 2):
        if not row:
            continue
        if len(row) <= place:
            raise ValueError(f"{path}: line {number} has {len(row)} columns, expected {place + 1}")
        yield row[place].strip()
