"""Two runs, or two benches, side by side: the difference against the intervals."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from eigenworks import bench, summary
from eigenworks.formatting import measured, number
from eigenworks.statistics import Interval, Real

Judgement = Literal[
    "same",
    "within the intervals",
    "better",
    "worse",
    "changed",
    "one value",
    "only in A",
    "only in B",
]
STYLES = {"better": "green", "worse": "red", "changed": "yellow"}


class IncomparableError(Exception):
    """A file that cannot be read, or two of different kinds."""


@dataclass(frozen=True)
class Entry:
    """One row of one file. `exact` says that the value has no randomness in it."""

    value: Real
    interval: Interval | None
    unit: str
    better: str | None
    exact: bool


@dataclass(frozen=True)
class Difference:
    """A row in both files: (experiment, row, metric), the two entries and the judgement."""

    key: tuple[str, ...]
    a: Entry | None
    b: Entry | None
    judgement: Judgement
    note: str = ""


def compare_files(a: Path, b: Path) -> list[Difference]:
    """The differences of all rows, in the order of A, then what only B has.

    An experiment that is done in A and failed in B counts as worse. Raises
    IncomparableError for files that are not runs or benches, or one of each.
    """
    first, second = _read(a), _read(b)
    if first["format"] != second["format"]:
        raise IncomparableError(
            f"{a} is {first['format']!r} and {b} is {second['format']!r}: they do not compare"
        )
    try:
        rows_a, rows_b = dict(_entries(first)), dict(_entries(second))
        broke = sorted(_states(first, "done") & _states(second, "failed"))
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise IncomparableError(f"{a} or {b} lacks what its format asks for: {error!r}") from error
    differences = [
        Difference((name, "", ""), None, None, "worse", "done in A, failed in B") for name in broke
    ]
    for key in list(rows_a) + [key for key in rows_b if key not in rows_a]:
        left, right = rows_a.get(key), rows_b.get(key)
        differences.append(Difference(key, left, right, judge(left, right)))
    return differences


def judge(a: Entry | None, b: Entry | None) -> Judgement:
    """What became of a row.

    A change counts where the two intervals do not meet; a value that nothing random went
    into has no interval and counts when it differs at all (beyond 1e-9 of its size).
    """
    if a is None or b is None:
        return "only in B" if a is None else "only in A"
    if math.isclose(a.value, b.value, rel_tol=1e-9):
        return "same"
    one_value = any(entry.interval is None and not entry.exact for entry in (a, b))
    if one_value:
        return "one value"
    low_a, high_a = _ends(a)
    low_b, high_b = _ends(b)
    if low_a <= high_b and low_b <= high_a:
        return "within the intervals"
    if b.better is None:
        return "changed"
    return "better" if (b.value > a.value) == (b.better == "higher") else "worse"


def differences_table(differences: Sequence[Difference]) -> Table:
    """Rows that are not the same, with A, B, B - A and the judgement."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    table.add_column("row")
    table.add_column("A", justify="right")
    table.add_column("B", justify="right")
    table.add_column("B - A", justify="right")
    table.add_column("")
    before = None
    for difference in differences:
        if difference.judgement == "same":
            continue
        name, label, metric = difference.key
        if name != before:
            if before is not None:
                table.add_section()
            table.add_row(f"[bold]{escape(name)}[/bold]", "", "", "", "")
            before = name
        style = STYLES.get(difference.judgement, "dim")
        a, b = difference.a, difference.b
        table.add_row(
            f"  {escape(label)}, [dim]{escape(metric)}[/dim]" if label else "",
            escape(_shown(a)),
            escape(_shown(b)),
            f"{b.value - a.value:+.3g}" if a and b else "",
            f"[{style}]{difference.note or difference.judgement}[/{style}]",
        )
    return table


def _shown(entry: Entry | None) -> str:
    if entry is None:
        return ""
    if entry.interval is None:
        return f"{number(entry.value)} {entry.unit}".rstrip()
    return measured(entry.value, entry.interval, entry.unit)


def _ends(entry: Entry) -> tuple[Real, Real]:
    if entry.interval is None:
        return entry.value, entry.value
    return entry.interval.low, entry.interval.high


def _read(path: Path) -> Mapping[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise IncomparableError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise IncomparableError(f"{path} is not JSON: {error}") from error
    known = (summary.FORMAT, bench.FORMAT)
    if not isinstance(data, dict) or data.get("format") not in known:
        raise IncomparableError(f"{path} is neither a report.json nor a bench.json of eigenworks")
    return data


def _groups(data: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if data["format"] == bench.FORMAT:
        yield from ((group["name"], group) for group in data["benches"])
    else:
        yield from ((f"{group['name']} ({group['size']})", group) for group in data["experiments"])


def _states(data: Mapping[str, Any], status: str) -> set[str]:
    return {name for name, group in _groups(data) if group["status"] == status}


def _entries(data: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Entry]]:
    of_bench = data["format"] == bench.FORMAT
    for name, group in _groups(data):
        for row in group["rows" if of_bench else "measured"]:
            if of_bench and row["value"] is None:
                continue
            ends: Mapping[str, Any] = row if of_bench else (row["interval"] or {})
            interval = (
                Interval(ends["low"], ends["high"], ends.get("kind", "")) if "low" in ends else None
            )
            value = row["value" if of_bench else "mean"]
            if not all(isinstance(text, str) for text in (name, row["label"], row["metric"])):
                raise TypeError("names, labels and metrics must be text")
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError(f"a value must be a number, got {type(value).__name__}")
            yield (
                (name, row["label"], row["metric"]),
                Entry(
                    value=value,
                    interval=interval,
                    unit=row.get("unit", ""),
                    better=row.get("better"),
                    exact=not of_bench and not row["seeded"],
                ),
            )
