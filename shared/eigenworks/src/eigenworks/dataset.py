"""What a data set is, and where its file lies.

Data travels in wheels of other projects and is read as a file by path; the package around
it is never imported, since most of them no longer work with today's libraries.
"""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

DEVELOPMENT = "EIGENWORKS_DATA"


class DataError(Exception):
    """A data file is absent, cut short, or not what its reader expects; one sentence."""


@runtime_checkable
class DataSet(Protocol):
    """A small frozen object that knows how to get a data set and how to read it.

    `how` is the command that fetches it; `licence` and `citation` are for the report.
    """

    @property
    def name(self) -> str: ...
    @property
    def how(self) -> str: ...
    @property
    def licence(self) -> str: ...
    @property
    def citation(self) -> str: ...

    def available(self) -> bool:
        """Whether the file is there. Reads nothing of it and imports nothing."""
        ...

    def load(self) -> Any:
        """The data. Raises DataError with one sentence if the file is absent or wrong."""
        ...


def packaged_file(package: str, relative: str) -> Path | None:
    """The path of a file inside an installed import package, or None. Does not import it."""
    try:
        spec = find_spec(package)
    except (ImportError, ValueError):
        return None
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder, relative)
        if path.is_file():
            return path
    return None


def require(data: DataSet, path: Path | None) -> Path:
    """The path, or DataError saying how to get the data set."""
    if path is None:
        raise DataError(f"{data.name} is not installed: {data.how}")
    return path


def development_file(relative: str) -> Path:
    """A file in the folder that the environment variable EIGENWORKS_DATA names.

    For data that cannot be distributed; no default test or command needs it.
    Raises DataError if the variable is unset, names no folder, or the file is not in it.
    """
    value = os.environ.get(DEVELOPMENT)
    if not value:
        raise DataError(
            f"{relative} is looked for in the folder that {DEVELOPMENT} names, which is not set"
        )
    folder = Path(value)
    if not folder.is_dir():
        raise DataError(f"{DEVELOPMENT} must name a folder, got {value!r}")
    path = folder / relative
    if not path.is_file():
        raise DataError(f"{relative} is not in the folder {folder}, which {DEVELOPMENT} names")
    return path


def has_development_files(*relative: str) -> bool:
    """Whether all these files are in the folder that EIGENWORKS_DATA names."""
    try:
        for one in relative:
            development_file(one)
    except DataError:
        return False
    return True
