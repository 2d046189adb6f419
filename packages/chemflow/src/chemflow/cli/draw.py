"""The command `chemflow draw`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from chemflow.cli.common import console
from chemflow.cli.tasks import paths
from chemflow.draw import chosen, save_strip
from chemflow.trajectory import Point, read, write_sdf

commands = typer.Typer()


@commands.command("draw")
def draw_command(
    run: Annotated[Path, typer.Argument(help="Folder of a run with --trajectories.", exists=True)],
    row: Annotated[
        list[int] | None, typer.Option(help="Row to draw; repeatable. The best ones if none.")
    ] = None,
    panels: Annotated[int, typer.Option(min=1, help="Molecules of a strip.")] = 6,
    kind: Annotated[Literal["svg", "png"], typer.Option("--format")] = "svg",
    sdf: Annotated[bool, typer.Option("--sdf", help="Write all valid steps as SDF.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder; the run's own if none.")] = None,
) -> None:
    """Strips, plots, the report and an SDF of a run."""
    folder = out or run
    files = sorted(run.glob("trajectories-*.jsonl"))
    result = (run / "optimization.json").is_file()
    if not files and not result:
        raise ValueError(f"{run} has neither a result nor trajectories; run with --trajectories")
    drawn: list[list[Point]] = []
    if row:
        kept: dict[int, list[Point]] = {one: [] for one in row}
        for point in read(*files):
            if point.row in kept:
                kept[point.row].append(point)
        if absent := [one for one, points in kept.items() if not chosen(points)]:
            raise ValueError(f"row {absent[0]} has no molecule in the trajectories of {run}")
        drawn = list(kept.values())
    if result:
        from chemflow import plots
        from chemflow.files import write_text
        from chemflow.optimization import load_optimization
        from chemflow.report import write_report

        found = load_optimization(run)
        drawn = drawn or paths(run, found)
        for name in found.names:
            write_text(folder / f"density-{name}.svg", plots.svg(plots.densities(found, name)))
        write_text(folder / "running-best.svg", plots.svg(plots.running_best(found)))
        write_report(folder / "report.html", found, drawn)
        console.print(f"report: {folder / 'report.html'}", markup=False)
    for points in drawn:
        path = folder / f"row-{points[0].row}.{kind}"
        save_strip(path, chosen(points, panels))
        console.print(f"strip: {path}", markup=False)
    if sdf:
        count = write_sdf(folder / "trajectories.sdf", read(*files))
        console.print(f"{count:,} molecules: {folder / 'trajectories.sdf'}", markup=False)
