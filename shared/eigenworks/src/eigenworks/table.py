"""The tables that commands print."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from eigenworks.experiment import Experiment
from eigenworks.formatting import duration, measured, published
from eigenworks.headline import by_package, figures_beside, headline, kind
from eigenworks.summary import QUICK, Measured, Result, folded

NARROW = 110
"""Below this many columns the mark of a quick row is one word, and its label has the room."""

STYLES = {"done": "green", "failed": "red", "skipped": "yellow", "incomplete": "yellow"}
VERDICTS = {"holds": "green", "does not hold": "red", "undecided": "yellow"}


def print_experiment(console: Console, experiment: Experiment) -> None:
    """What an experiment claims, whether its data are here, and how long it takes."""
    claim = experiment.claim
    quick, full = (
        duration(size.seconds * max(1, len(size.seeds)))
        for size in (experiment.quick, experiment.full)
    )
    console.print(f"[bold]{escape(experiment.name)}[/bold] {escape(experiment.title)}")
    console.print(f"Claim: {escape(claim.text)} [dim]({escape(claim.source)})[/dim]")
    for source in experiment.data:
        if source.available():
            console.print(f"Data: [green]✓[/green] {escape(source.name)}")
        else:
            how = f"[yellow]not here, get it with: {escape(source.how)}[/yellow]"
            console.print(f"Data: {escape(source.name)}, {how}", soft_wrap=True)
    console.print(f"Takes about {quick} quick, {full} full\n")


def print_results(console: Console, results: Sequence[Result]) -> None:
    """Claim, published figure, measured here with interval, verdict, seeds and seconds."""
    for result in results:
        style = STYLES[result.status]
        took = f" in {duration(result.seconds)}" if result.seconds else ""
        console.print()
        console.print(
            f"[bold]{escape(result.name)}[/bold] [{style}]{result.status}[/{style}]{took}"
        )
        if result.claim:
            console.print(f"Claim: {escape(result.claim)} [dim]({escape(result.source)})[/dim]")
        if result.reason:
            console.print(f"[{style}]{escape(result.reason)}[/{style}]", soft_wrap=True)
        if result.measured:
            shown, waiting = folded(result.measured)
            console.print(_rows_table(shown, narrow=console.width < NARROW))
            if waiting:
                console.print(f"{len(waiting)} rows without a published figure are in the report")
            if result.size == "quick":
                console.print(f"[dim]{QUICK}[/dim]")
    kinds = [row.interval.kind for result in results for row in result.measured if row.interval]
    for words in dict.fromkeys(kinds):
        console.print(f"[dim]interval: {escape(words)}[/dim]")


def print_summary(console: Console, results: Sequence[Result]) -> None:
    """One table of all: paper, claim, published, measured with interval, verdict, seconds."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="dim")
    table.add_column("paper and claim", ratio=1)
    table.add_column("published", justify="right", no_wrap=True)
    table.add_column("measured", justify="right", max_width=27)
    table.add_column("verdict", max_width=14)
    table.add_column("time", justify="right", no_wrap=True)
    for experiments in by_package(results).values():
        table.add_section()
        for name, sizes in experiments.items():
            for number, result in enumerate(sizes):
                claim = f"[bold]{escape(name)}[/bold] {escape(result.claim)}"
                table.add_row(
                    f"[dim]{kind(result)}[/dim]" if number else claim, *_headline_cells(result)
                )
    console.print(table)


def _headline_cells(result: Result) -> tuple[str, str, str, str]:
    took = duration(result.seconds) if result.seconds else "–"
    style = STYLES[result.status]
    state = [] if result.status == "done" else [f"[{style}]{result.status}[/{style}]"]
    row = headline(result)
    if row is None:
        return "", "", "\n".join(state), took
    word = "quick" if row.verdict == QUICK else row.verdict or "no figure"
    verdict = "\n".join([*state, f"[{VERDICTS.get(word, 'dim')}]{word}[/]"])
    shown = measured(row.mean, row.interval, row.unit, figures_beside(result, row))
    what = f"[dim]{escape(row.label)}, {escape(row.metric)}[/dim]"
    figures = "\n".join(escape(published(figure, row.unit)) for figure in row.figures)
    return figures, f"{escape(shown)}\n{what}", verdict, took


def _rows_table(rows: Sequence[Measured], narrow: bool) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="dim")
    metrics = {row.metric for row in rows}
    # One metric for all rows heads the column once and is not repeated in each.
    table.add_column(escape(metrics.pop()) if len(metrics) == 1 else "row", overflow="fold")
    table.add_column("published", justify="right", no_wrap=True)
    table.add_column("measured here", justify="right", no_wrap=True)
    table.add_column("verdict")
    table.add_column("seeds", justify="right")
    figures = {
        metric: [figure for row in rows if row.metric == metric for figure in row.figures]
        for metric in dict.fromkeys(row.metric for row in rows)
    }
    for row in rows:
        style = VERDICTS.get(row.verdict, "dim")
        verdict = "quick" if narrow and row.verdict == QUICK else row.verdict
        table.add_row(
            escape(row.label) + (f", [dim]{escape(row.metric)}[/dim]" if metrics else ""),
            "\n".join(escape(published(figure, row.unit)) for figure in row.figures),
            escape(measured(row.mean, row.interval, row.unit, figures[row.metric])),
            f"[{style}]{verdict}[/{style}]" if verdict else "",
            str(len(row.values)) if row.seeded else "–",
        )
    return table
