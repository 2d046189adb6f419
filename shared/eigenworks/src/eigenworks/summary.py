"""From stored units to what is reported: means, intervals, verdicts, one result a size."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from eigenworks.discover import Broken, Offer
from eigenworks.experiment import Experiment, Figure, Row, SizeName
from eigenworks.plots import Plot, plot_to_json
from eigenworks.statistics import Interval, Real, student
from eigenworks.store import Unit

FORMAT = "eigenworks run 1"
QUICK = "quick: not a claim"
SHOWN = 20

Verdict = Literal["quick: not a claim", "holds", "does not hold", "undecided", "not comparable", ""]
Status = Literal["done", "failed", "skipped", "incomplete"]


@dataclass(frozen=True)
class Measured:
    """A row over its seeds: `mean` with `interval`, the figures it is set against, a verdict.

    `seeds` are those that gave a value; `seeded` is False where nothing is drawn at random.
    """

    label: str
    metric: str
    unit: str
    better: str | None
    mean: float
    interval: Interval | None
    values: Mapping[int, float]
    seeded: bool
    figures: tuple[Figure, ...]
    verdict: Verdict
    plots: tuple[Plot, ...]


@dataclass(frozen=True)
class Result:
    """An experiment at one size as the report shows it.

    `recorded` says that the units travelled with the package (`record.py`) and were not run
    into this report's folder; `release` is then the one that they were recorded with.
    """

    name: str
    package: str
    title: str
    claim: str
    source: str
    notes: str
    size: SizeName
    version: int
    release: str
    parameters: Mapping[str, Any]
    data: tuple[Mapping[str, str], ...]
    status: Status
    reason: str
    measured: tuple[Measured, ...]
    missing: tuple[Figure, ...]
    units: tuple[Unit, ...]
    seeds: tuple[int, ...]
    seconds: float
    headline: tuple[tuple[str, str], ...] = ()
    recorded: bool = False


def broken_result(offer: Offer, broken: Broken, size: SizeName) -> Result:
    """The red row of an experiment that cannot be imported."""
    failed = Unit(
        offer.name, size, 0, 0, offer.release, {}, "failed", 0.0, "", {},
        error=broken.error, traceback=broken.traceback,
    )  # fmt: skip
    return Result(
        name=offer.name, package=offer.package, title=offer.name, claim="", source="", notes="",
        size=size, version=0, release=offer.release, parameters={}, data=(), status="failed",
        reason=f"it cannot be imported: {broken.error}", measured=(), missing=(),
        units=(failed,), seeds=(), seconds=0.0,
    )  # fmt: skip


def summarise(
    experiment: Experiment,
    release: str,
    size: SizeName,
    seeds: Sequence[int],
    units: Sequence[Unit],
    skipped: str = "",
) -> Result:
    """The result of an experiment from the units that exist for the planned `seeds`.

    `skipped` is why it was not run at all (absent data), in words that say what to do.
    """
    failed = [unit for unit in units if unit.status == "failed"]
    done = [unit for unit in units if unit.status == "done"]
    status: Status
    if failed:
        status, reason = "failed", _failures(failed, len(seeds))
    elif skipped and not done:
        status, reason = "skipped", skipped
    elif len(done) < len(seeds):
        status, reason = "incomplete", f"{len(done)} of {len(seeds)} seeds done: run again to go on"
    else:
        status, reason = "done", ""
    measured = _measured(experiment, size, done)
    present = {(row.label, row.metric) for row in measured}
    return Result(
        name=experiment.name,
        package=experiment.package,
        title=experiment.title,
        claim=experiment.claim.text,
        source=experiment.claim.source,
        notes=experiment.notes,
        size=size,
        version=experiment.version,
        release=release,
        parameters=experiment.size(size).parameters,
        data=tuple(
            {"name": d.name, "how": d.how, "licence": d.licence, "citation": d.citation}
            for d in experiment.data
        ),
        status=status,
        reason=reason,
        measured=measured,
        missing=tuple(f for f in experiment.figures if (f.label, f.metric) not in present),
        units=tuple(units),
        seeds=tuple(seeds),
        seconds=math.fsum(unit.seconds for unit in units),
        headline=experiment.headline,
    )


def recorded(experiment: Experiment, units: Sequence[Unit]) -> Result:
    """The result of the full units that travelled with the package."""
    seeds = [unit.seed for unit in units]
    result = summarise(experiment, units[0].release, "full", seeds, units)
    return replace(result, recorded=True)


def folded(rows: Sequence[Measured]) -> tuple[tuple[Measured, ...], tuple[Measured, ...]]:
    """Rows to show at once, and those that wait behind a line when there are many.

    Where more than SHOWN rows stand together, the ones without a published figure wait.
    """
    compared = tuple(row for row in rows if row.figures)
    if len(rows) <= SHOWN or not compared:
        return tuple(rows), ()
    return compared, tuple(row for row in rows if not row.figures)


def verdict(mean: Real, interval: Interval | None, figure: Figure) -> Verdict:
    """Whether a full run agrees with a figure.

    It holds where the mean lies within the tolerance of the figure, does not hold where the
    whole interval lies outside, and is undecided where only the interval reaches in. A value
    that nothing random went into is judged as it is (`interval=None`): its own interval says
    how far it would carry to other data, not how far it is from a program run on the same.
    """
    if figure.tolerance is None:
        return "not comparable"
    low = -math.inf if figure.relation == "at most" else figure.value - figure.tolerance
    high = math.inf if figure.relation == "at least" else figure.value + figure.tolerance
    # A printed figure is a decimal: 75.97 + 0.2 in binary must not exclude 76.17.
    slack = 1e-9 * max(abs(figure.value), figure.tolerance)
    low, high = low - slack, high + slack
    if low <= mean <= high:
        return "holds"
    if interval is not None and interval.low <= high and interval.high >= low:
        return "undecided"
    return "does not hold"


def run_to_json(
    results: Sequence[Result], *, size: SizeName, finished: str, interrupted: bool
) -> dict[str, Any]:
    """The whole run as plain JSON values: what report.json holds and `compare` reads."""
    return {
        "format": FORMAT,
        "size": size,
        "finished": finished,
        "interrupted": interrupted,
        "machines": machines(results),
        "experiments": [_result_to_json(result) for result in results if not result.recorded],
        # The plots of these travel with the package.
        "recorded": [
            _result_to_json(without_plots(result)) for result in results if result.recorded
        ],
    }


def machines(results: Sequence[Result]) -> list[Mapping[str, Any]]:
    """The different machines that the results were measured on."""
    found: list[Mapping[str, Any]] = []
    for result in results:
        for unit in result.units:
            if unit.machine and unit.machine not in found:
                found.append(unit.machine)
    return found


def without_plots(result: Result) -> Result:
    """The numbers of a result alone."""
    return replace(result, measured=tuple(replace(row, plots=()) for row in result.measured))


def _result_to_json(result: Result) -> dict[str, Any]:
    data = asdict(result)
    for entry, row in zip(data["measured"], result.measured, strict=True):
        entry["plots"] = [plot_to_json(plot) for plot in row.plots]
        entry["values"] = {str(seed): value for seed, value in row.values.items()}
    data["units"] = [
        {
            "seed": unit.seed,
            "status": unit.status,
            "seconds": unit.seconds,
            "finished": unit.finished,
            "error": unit.error,
            "traceback": unit.traceback,
        }
        for unit in result.units
    ]
    return data


def _failures(failed: Sequence[Unit], planned: int) -> str:
    first = failed[0].error.strip().splitlines()[0]
    if planned == 1:
        return first
    which = ", ".join(str(unit.seed) for unit in failed)
    return f"seed{'s' if len(failed) > 1 else ''} {which} of {planned}: {first}"


def _measured(experiment: Experiment, size: SizeName, done: Sequence[Unit]) -> tuple[Measured, ...]:
    """Rows in the order in which they first appear, over all seeds that have them."""
    rows: dict[tuple[str, str], dict[int, Row]] = {}
    for unit in done:
        for row in unit.rows:
            rows.setdefault((row.label, row.metric), {})[unit.seed] = row
    return tuple(_over_seeds(experiment, size, by_seed) for by_seed in rows.values())


def _over_seeds(experiment: Experiment, size: SizeName, by_seed: Mapping[int, Row]) -> Measured:
    first = next(iter(by_seed.values()))
    values = {seed: row.value for seed, row in by_seed.items()}
    mean = math.fsum(values.values()) / len(values)
    interval = student(list(values.values())) or first.interval
    seeded = bool(experiment.size(size).seeds)
    figures = tuple(
        figure
        for figure in experiment.figures
        if (figure.label, figure.metric) == (first.label, first.metric)
    )
    return Measured(
        label=first.label,
        metric=first.metric,
        unit=first.unit,
        better=first.better,
        mean=mean,
        interval=interval,
        values=values,
        seeded=seeded,
        figures=figures,
        verdict=QUICK if size == "quick" else _worst(mean, interval if seeded else None, figures),
        plots=first.plots,
    )


def _worst(mean: float, interval: Interval | None, figures: Sequence[Figure]) -> Verdict:
    """One verdict over the figures of a row: a single disagreement decides."""
    verdicts = {verdict(mean, interval, figure) for figure in figures}
    order: tuple[Verdict, ...] = ("does not hold", "undecided", "holds", "not comparable")
    return next((name for name in order if name in verdicts), "")
