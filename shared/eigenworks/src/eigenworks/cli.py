"""The command `eigenworks`: a thin shell over discover, run, record, report, bench, compare."""

import signal
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from eigenworks.session import Session

app = typer.Typer(
    help="Runs the experiments of the eigenworks packages on real data, times their kernels, "
    "and writes one report.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)

INTERRUPTED = 130

Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="[NAME]...", help="A package or an experiment; all if none is named."),
]
Out = Annotated[Path, typer.Option(help="Folder for the report and the stored results.")]
Threads = Annotated[int, typer.Option(min=1, help="Threads of torch and the BLAS libraries.")]


def main() -> None:
    """Entry point of the console script: a disk that cannot be written to is one sentence."""
    try:
        app()
    except OSError as error:
        typer.echo(f"eigenworks: {error}", err=True)
        raise SystemExit(1) from error


@app.command("list")
def list_experiments(names: Names = None) -> None:
    """Lists the installed experiments, their claims and whether their data are here."""
    from rich.markup import escape

    from eigenworks.discover import Broken
    from eigenworks.table import print_experiment

    console = _console()
    broken = False
    for offer in _offers(names or []):
        experiment = offer.load()
        if isinstance(experiment, Broken):
            broken = True
            error = escape(experiment.error)
            console.print(f"[bold]{escape(offer.name)}[/bold] [red]cannot be imported[/red]")
            console.print(f"[red]{error}[/red]\n", soft_wrap=True)
        else:
            print_experiment(console, experiment)
    raise typer.Exit(1 if broken else 0)


@app.command()
def run(
    names: Names = None,
    full: Annotated[
        bool, typer.Option("--full", help="The seeds and sizes that support a claim.")
    ] = False,
    seeds: Annotated[str | None, typer.Option(help="How many seeds (5), or which (0,3,7).")] = None,
    out: Out = Path("report"),
    threads: Threads = 1,
    only_failed: Annotated[
        bool, typer.Option("--only-failed", help="Only what failed in the last run into OUT.")
    ] = False,
) -> None:
    """Runs experiments and writes OUT/index.html, a page for each package, and OUT/report.json.

    What OUT holds already is not run again. Ctrl-C and SIGTERM keep what is done and report it;
    the same command goes on.
    Exit status: 0 all done, 1 something failed, 2 a wrong argument, 130 interrupted.
    """
    from eigenworks.session import Session

    chosen = _seeds(seeds)
    _check_folder(out)
    session = Session(
        _offers(names or []),
        size="full" if full else "quick",
        seeds=chosen,
        out=out,
        threads=threads,
        only_failed=only_failed,
        console=_console(),
    )
    interrupted = False
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        session.run()
    except KeyboardInterrupt:
        interrupted = True
    finally:
        signal.signal(signal.SIGTERM, before)
    raise typer.Exit(_finish(session, interrupted))


@app.command()
def record(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME...", help="A package or an experiment.")
    ],
    out: Annotated[Path, typer.Option(help="Folder that `eigenworks run --full` wrote.")] = Path(
        "report"
    ),
) -> None:
    """Keeps the full results of OUT with the package, so that every report shows them.

    One file per experiment, results/NAME.json beside the experiment's module. Exit status 1
    where a full result is not whole.
    """
    from eigenworks.discover import Broken
    from eigenworks.record import NotRecordableError, write_record

    console = _console()
    failed = False
    for offer in _offers(names):
        experiment = offer.load()
        try:
            if isinstance(experiment, Broken):
                raise NotRecordableError(f"{offer.name} cannot be imported: {experiment.error}")
            path = write_record(offer, experiment, out)
        except NotRecordableError as error:
            failed = True
            typer.echo(f"eigenworks: {error}", err=True)
        else:
            console.print(f"{offer.name}: {path}", soft_wrap=True, markup=False)
    raise typer.Exit(1 if failed else 0)


@app.command()
def bench(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="A package, or package/script; all if none."),
    ] = None,
    out: Out = Path("report"),
    threads: Threads = 1,
    quick: Annotated[
        bool, typer.Option("--quick", help="Few sizes and calls: shows that everything runs.")
    ] = False,
) -> None:
    """Runs the benchmark scripts that stand beside a package's source in a checkout.

    Each script runs in a process of its own, with the rivals it measures; one table, OUT/bench.json
    and OUT/bench.html hold what came of them.
    """
    from eigenworks.bench import run_benches, scripts
    from eigenworks.discover import UnknownNameError, check_names

    console = _console()
    _check_folder(out)
    found, without = scripts()
    chosen = names or []
    known = sorted({s.name for s in found} | {s.package for s in found} | set(without))
    try:
        check_names(chosen, known, "package or benchmark")
    except UnknownNameError as error:
        raise _usage(str(error)) from error
    for package in without:
        if not chosen or package in chosen:
            console.print(f"[dim]{package}: {without[package]}[/dim]")
    selected = [s for s in found if not chosen or s.name in chosen or s.package in chosen]
    if not selected:
        console.print("There is no benchmark to run.")
        raise typer.Exit(1 if chosen else 0)
    raise typer.Exit(run_benches(selected, out, threads=threads, quick=quick, console=console))


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(metavar="A.json", help="Before: report.json or bench.json.")],
    b: Annotated[Path, typer.Argument(metavar="B.json", help="After: of the same kind.")],
) -> None:
    """Shows two runs side by side; exit status 1 where B is worse than A beyond the intervals."""
    from eigenworks.compare import IncomparableError, compare_files, differences_table

    try:
        differences = compare_files(a, b)
    except IncomparableError as error:
        raise _usage(str(error)) from error
    console = _console()
    same = sum(difference.judgement == "same" for difference in differences)
    if same < len(differences):
        console.print(differences_table(differences))
    if same:
        console.print(f"{same} of {len(differences)} rows are the same")
    worse = sum(difference.judgement == "worse" for difference in differences)
    if worse:
        console.print(
            f"[red]{worse} of {len(differences)} rows are worse beyond their intervals[/red]"
        )
    raise typer.Exit(1 if worse else 0)


def _finish(session: "Session", interrupted: bool) -> int:
    """Writes the report of what there is and says what it says; the exit status."""
    from rich.markup import escape

    from eigenworks.report import write_report
    from eigenworks.table import print_results, print_summary

    console = session.console
    selected, all_results = session.results(interrupted)
    page = write_report(
        all_results,
        session.out,
        size=session.size,
        finished=datetime.now(UTC),
        interrupted=interrupted,
    )
    print_results(console, selected)
    if len(selected) > 1:
        chosen = {result.name for result in selected}
        print_summary(console, [result for result in all_results if result.name in chosen])
    console.print(f"report: {escape(str(page))}", soft_wrap=True)
    if interrupted:
        console.print("[yellow]interrupted; the same command goes on from here[/yellow]")
        return INTERRUPTED
    return 1 if any(result.status == "failed" for result in selected) else 0


def _offers(names: list[str]) -> list:
    from eigenworks.discover import UnknownNameError, discover, select

    offers = discover()
    if not offers:
        raise _usage(
            "no installed package offers an experiment; install one, "
            "for instance with: pip install 'spd-metrics[experiments]'"
        )
    try:
        return select(offers, names)
    except UnknownNameError as error:
        raise _usage(str(error)) from error


def _seeds(text: str | None) -> tuple[int, ...] | None:
    """ "5" is seeds 0 to 4; "3," and "0,3,7" are those seeds."""
    if text is None:
        return None
    parts = text.removesuffix(",").split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise _usage(f"--seeds must be a number of seeds (5) or a list (0,3,7), got {text!r}")
    numbers = [int(part) for part in parts]
    seeds = tuple(numbers) if "," in text else tuple(range(numbers[0]))
    if not seeds or len(set(seeds)) != len(seeds):
        raise _usage(f"--seeds must ask for at least one seed and each only once, got {text!r}")
    return seeds


def _check_folder(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise _usage(f"--out must be a folder, got the file {out}")


def _usage(message: str) -> typer.Exit:
    """One sentence on standard error, exit status 2."""
    typer.echo(f"eigenworks: {message}", err=True)
    return typer.Exit(2)


def _console() -> "Console":
    from rich.console import Console

    return Console(highlight=False)
