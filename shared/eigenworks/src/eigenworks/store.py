"""Results on disk: one JSON for each (experiment, size, seed), written whole or not at all."""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows
    fcntl = None

from eigenworks.experiment import Row, SizeName
from eigenworks.plots import plot_from_json, plot_to_json
from eigenworks.statistics import Interval

FORMAT = "eigenworks unit 1"


@dataclass(frozen=True)
class Unit:
    """What came of one call of an experiment's function.

    `version`, `release` (of the distribution) and `parameters` say what was run; a stored
    unit answers for a planned one only where all three agree. `machine` describes where.
    """

    experiment: str
    size: SizeName
    seed: int
    version: int
    release: str
    parameters: Mapping[str, Any]
    status: Literal["done", "failed"]
    seconds: float
    finished: str
    machine: Mapping[str, Any]
    rows: tuple[Row, ...] = ()
    error: str = ""
    traceback: str = ""


class UnreadableError(Exception):
    """A result file that is not what this program wrote."""


def write_atomically(path: Path, text: str) -> None:
    """Writes beside `path` and renames: a reader sees the old file or the new one, never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files that only their owner may read; a report is for others too.
        Path(partial).chmod(0o644)
        Path(partial).replace(path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def clear_partials(out: Path) -> None:
    """Removes what killed processes were writing in the folder, and leaves what is being written.

    A living process holds a lock on its file; on Windows an open file cannot be removed.
    """
    for partial in out.rglob(".*.partial"):
        with suppress(OSError), partial.open("rb") as file:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                partial.unlink()
        if fcntl is None:
            with suppress(OSError):
                partial.unlink()


def unit_path(out: Path, experiment: str, size: SizeName, seed: int) -> Path:
    """Where the unit lies in the output folder."""
    return out / "units" / experiment / f"{size}-seed{seed}.json"


def save_unit(out: Path, unit: Unit) -> Path:
    """Writes the unit and returns its path."""
    path = unit_path(out, unit.experiment, unit.size, unit.seed)
    data = {"format": FORMAT, **unit_to_json(unit)}
    write_atomically(path, json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return path


def load_unit(path: Path) -> Unit | None:
    """The unit in the file, None where there is no file.

    Raises UnreadableError for a file that is cut short or from another format.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise UnreadableError(f"{path} is not a whole result: {error}") from error
    if not isinstance(data, dict) or data.pop("format", None) != FORMAT:
        raise UnreadableError(f"{path} is not in the format {FORMAT!r}")
    try:
        return unit_from_json(data)
    except (TypeError, LookupError, ValueError, AttributeError, ArithmeticError) as error:
        raise UnreadableError(f"{path} is not in the format {FORMAT!r}: {error}") from error


def stored_seeds(out: Path, experiment: str, size: SizeName) -> Iterator[int]:
    """Seeds of the experiment that have a result of this size in the folder, ascending."""
    folder = out / "units" / experiment
    seeds = []
    for path in folder.glob(f"{size}-seed*.json"):
        digits = path.stem.removeprefix(f"{size}-seed")
        if digits.isdecimal():
            seeds.append(int(digits))
    yield from sorted(seeds)


def unit_to_json(unit: Unit) -> dict[str, Any]:
    """The unit as plain JSON values."""
    return asdict(unit) | {"rows": [row_to_json(row) for row in unit.rows]}


def unit_from_json(data: Mapping[str, Any]) -> Unit:
    """The inverse of `unit_to_json`; TypeError, KeyError or ValueError for anything else."""
    fields = dict(data)
    fields["rows"] = tuple(row_from_json(row) for row in data["rows"])
    return Unit(**fields)


def row_to_json(row: Row) -> dict[str, Any]:
    """The row as plain JSON values."""
    data = asdict(row)
    data["plots"] = [plot_to_json(plot) for plot in row.plots]
    return data


def row_from_json(data: Mapping[str, Any]) -> Row:
    """The inverse of `row_to_json`."""
    fields = dict(data)
    if fields.get("interval") is not None:
        fields["interval"] = Interval(**fields["interval"])
    fields["plots"] = tuple(plot_from_json(plot) for plot in fields["plots"])
    return Row(**fields)
