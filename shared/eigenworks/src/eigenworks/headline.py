"""What stands for an experiment where all of them are in one table."""

from collections.abc import Sequence

from eigenworks.experiment import Figure
from eigenworks.summary import Measured, Result, Verdict

ORDER: tuple[Verdict, ...] = ("holds", "does not hold", "undecided", "not comparable")


def headline(result: Result) -> Measured | None:
    """The row that the experiment names, else the first with a published figure, else the first.

    None for a result without rows.
    """
    rows = {(row.label, row.metric): row for row in result.measured}
    named = [rows[name] for name in result.headline if name in rows]
    compared = [row for row in result.measured if row.figures]
    return next(iter([*named, *compared, *result.measured]), None)


def tally(result: Result) -> list[tuple[Verdict, int]]:
    """How many rows of a full result have which verdict, those beside figures that is."""
    if result.size == "quick":
        return []
    counts = {word: sum(row.verdict == word for row in result.measured) for word in ORDER}
    return [(word, count) for word, count in counts.items() if count]


def kind(result: Result) -> str:
    """What a reader may take a result for."""
    if result.size == "quick":
        return "quick: not a claim"
    return "full, recorded with the package" if result.recorded else "full"


def by_package(results: Sequence[Result]) -> dict[str, dict[str, list[Result]]]:
    """The results of each experiment of each package, quick before full."""
    found: dict[str, dict[str, list[Result]]] = {}
    for result in results:
        found.setdefault(result.package, {}).setdefault(result.name, []).append(result)
    for experiments in found.values():
        for sizes in experiments.values():
            sizes.sort(key=lambda result: result.size != "quick")
    return found


def figures_beside(result: Result, row: Measured) -> tuple[Figure, ...]:
    """Figures of the row's metric, whose digits the row is written with."""
    return tuple(
        figure
        for other in result.measured
        if other.metric == row.metric
        for figure in other.figures
    )
