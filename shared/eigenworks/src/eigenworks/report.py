"""The report: report.json, index.html with one table of all, and a page for each package."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from eigenworks import formatting, svg
from eigenworks.experiment import Figure, SizeName
from eigenworks.headline import by_package, figures_beside
from eigenworks.pages import MARKS, fill, summary_of
from eigenworks.store import write_atomically
from eigenworks.summary import Measured, Result, folded, machines, run_to_json

DECADES = 1000.0
"""Beyond this ratio of the largest value to the smallest a scale is logarithmic."""
INDEX = "index.html"
BENCH = "bench.html"


def write_report(
    results: Sequence[Result], out: Path, *, size: SizeName, finished: datetime, interrupted: bool
) -> Path:
    """Writes all files, each whole or not at all, and returns the path of the index."""
    stamp = finished.isoformat(timespec="seconds")
    data = run_to_json(results, size=size, finished=stamp, interrupted=interrupted)
    # Not indented: the pixels of a picture would each have a line.
    text = json.dumps(data, ensure_ascii=False, allow_nan=False)
    write_atomically(out / "report.json", text + "\n")
    bench = (out / BENCH).exists()
    for name, page in render(
        results, size=size, finished=finished, interrupted=interrupted, bench=bench
    ).items():
        write_atomically(out / name, page)
    return out / INDEX


def render(
    results: Sequence[Result],
    *,
    size: SizeName,
    finished: datetime,
    interrupted: bool,
    bench: bool = False,
) -> dict[str, str]:
    """The pages by file name, the index last: whoever follows its links finds the others."""
    filters = {
        "measured": lambda row, metric: formatting.measured(
            row.mean, row.interval, row.unit, metric.figures
        ),
        "headline_measured": lambda row, result: formatting.measured(
            row.mean, row.interval, row.unit, figures_beside(result, row)
        ),
        "metrics": metrics,
        "over": over,
        "strip": _strip,
    }
    grouped = by_package(results)
    pages = {}
    for package, experiments in grouped.items():
        shown = [result for sizes in experiments.values() for result in sizes]
        pages[f"{package}.html"] = fill(
            "package.html.j2",
            finished=finished,
            filters=filters,
            package=package,
            summary=summary_of(package),
            results=shown,
            machines=[dict(machine) for machine in machines(shown)],
        )
    pages[INDEX] = fill(
        "index.html.j2",
        finished=finished,
        filters=filters,
        packages=[
            (package, summary_of(package), list(experiments.values()))
            for package, experiments in grouped.items()
        ],
        size=size,
        interrupted=interrupted,
        bench=bench,
        machines=[dict(machine) for machine in machines(results)],
        counts=_counts(results),
    )
    return pages


def _counts(results: Sequence[Result]) -> Mapping[str, int]:
    counts = dict.fromkeys(MARKS, 0)
    for result in results:
        if not result.recorded:
            counts[result.status] += 1
    return {status: count for status, count in counts.items() if count}


@dataclass(frozen=True)
class Metric:
    """Rows of one experiment that measure the same thing, and the scale they are drawn on.

    `waiting` are rows that the page folds away; see `summary.folded`. A lone value beside
    no figure has nothing to be compared with and no scale. All rows are written with as many
    digits as `figures`, the published ones among them.
    """

    name: str
    better: str | None
    shown: tuple[Measured, ...]
    waiting: tuple[Measured, ...]
    figures: tuple[Figure, ...]
    span: tuple[float, float] | None
    log: bool = False

    @property
    def ends(self) -> tuple[str, str]:
        """The ends of the scale as they are written above it; of a logarithmic one the powers."""
        if self.span is None:
            return "", ""
        low, high = (10**end if self.log else end for end in self.span)
        return f"{low:.3g}", f"{high:.3g}"


def metrics(result: Result) -> list[Metric]:
    """The rows by what they measure, in the order in which the metrics first appear."""
    groups: dict[tuple[str, str, str | None], list[Measured]] = {}
    for row in result.measured:
        groups.setdefault((row.metric, row.unit, row.better), []).append(row)
    found = []
    for (name, unit, better), rows in groups.items():
        figures = tuple(figure for row in rows for figure in row.figures)
        shown = [row.mean for row in rows]
        shown += [figure.value for figure in figures]
        shown += [end for row in rows if (i := row.interval) for end in (i.low, i.high)]
        title = f"{name} ({unit})" if unit else name
        log = min(shown) > 0 and max(shown) > DECADES * min(shown)
        scaled = [math.log10(value) for value in shown] if log else shown
        span = svg.strip_span(scaled) if len(rows) > 1 or figures else None
        found.append(Metric(title, better, *folded(rows), figures, span, log))
    return found


def over(row: Measured) -> str:
    """What the interval is over, or why there is none."""
    if len(row.values) > 1 and len(set(row.values.values())) == 1:
        return f"the same for {len(row.values)} seeds"
    if row.interval is not None:
        return row.interval.kind
    if not row.seeded:
        return "nothing random, run once"
    return "one seed, no interval"


def _strip(row: Measured, metric: Metric) -> str:
    from markupsafe import Markup

    if metric.span is None:
        return Markup("")
    mean, interval = row.mean, row.interval
    figures = [(figure.value, figure.tolerance) for figure in row.figures]
    if metric.log:
        mean = math.log10(mean)
        if interval is not None:
            ends = math.log10(interval.low), math.log10(interval.high)
            interval = replace(interval, low=ends[0], high=ends[1])
        figures = [
            (math.log10(value), math.log10(1 + tolerance / value) if tolerance else None)
            for value, tolerance in figures
        ]
    return Markup(svg.strip(mean, interval, figures, metric.span))
