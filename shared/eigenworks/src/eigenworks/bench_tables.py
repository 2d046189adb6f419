"""The rows of benchmarks by what they measure, for the terminal and for the page."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from eigenworks.formatting import duration, measured, number
from eigenworks.statistics import Interval

if TYPE_CHECKING:
    from eigenworks.bench import Bench

_KNOWN = ("label", "metric", "value", "low", "high", "unit", "better")
_STYLES = {"done": "green", "failed": "red", "skipped": "yellow"}


@dataclass(frozen=True)
class Line:
    """One metric of a benchmark over all its rows: median, least and greatest value."""

    metric: str
    better: str | None
    rows: int
    median: str
    low: str
    high: str


@dataclass(frozen=True)
class MetricTable:
    """The rows of one metric: label, value with interval, and the other fields as text."""

    metric: str
    unit: str
    better: str | None
    others: tuple[str, ...]
    rows: tuple[tuple[str, str, tuple[str, ...]], ...]


def lines(bench: "Bench") -> list[Line]:
    """A line for each metric, in the order in which they first appear."""
    found = []
    for metric, rows in _by_metric(bench).items():
        values = [row["value"] for row in rows if row["value"] is not None]
        unit = rows[0].get("unit", "")
        shown = (
            [f"{number(f(values))} {unit}".rstrip() for f in (statistics.median, min, max)]
            if values
            else ["not finite"] * 3
        )
        found.append(Line(metric, rows[0].get("better"), len(rows), *shown))
    return found


def tables(bench: "Bench") -> list[MetricTable]:
    """A table for each metric, in the order in which they first appear."""
    found = []
    for metric, rows in _by_metric(bench).items():
        others = tuple(dict.fromkeys(name for row in rows for name in row if name not in _KNOWN))
        found.append(
            MetricTable(
                metric,
                rows[0].get("unit", ""),
                rows[0].get("better"),
                others,
                tuple(
                    (row["label"], _value(row), tuple(_text(row.get(name)) for name in others))
                    for row in rows
                ),
            )
        )
    return found


def benches_table(benches: Sequence["Bench"]) -> Table:
    """One table of all: what was measured over how many rows, and the span of it."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="dim")
    table.add_column("benchmark", overflow="fold", ratio=1)
    for name in ("rows", "median", "from", "to", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    for bench in benches:
        took = duration(bench.seconds)
        table.add_row(f"[bold]{escape(bench.name)}[/bold]", "", "", "", "", took)
        if bench.status != "done":
            style = _STYLES[bench.status]
            table.add_row(f"[{style}]{bench.status}:[/{style}] {escape(bench.error)}")
        for line in lines(bench):
            row = (str(line.rows), line.median, line.low, line.high)
            table.add_row(f"  {escape(line.metric)}", *row)
    return table


def _by_metric(bench: "Bench") -> dict[str, list[Mapping[str, Any]]]:
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in bench.rows:
        found.setdefault(row["metric"], []).append(row)
    return found


def _value(row: Mapping[str, Any]) -> str:
    if row["value"] is None:
        return "not finite"
    interval = Interval(row["low"], row["high"], "") if "low" in row else None
    return measured(row["value"], interval)


def _text(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return number(value) if isinstance(value, int | float) else str(value)
