"""One `eigenworks run`: which tasks there are, which are kept, and what came of all of them."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from eigenworks.dataset import DataSet
from eigenworks.discover import Broken, Offer, discover
from eigenworks.experiment import Experiment, SizeName
from eigenworks.machine import describe
from eigenworks.progress import LiveWatch
from eigenworks.record import read_record
from eigenworks.run import (
    Task,
    set_thread_variables,
    stored_or_none,
    tasks_of,
    tasks_stored,
    work,
)
from eigenworks.store import Unit, UnreadableError, clear_partials
from eigenworks.summary import Result, broken_result, recorded, summarise


class Session:
    """Holds the arguments of a run and what was loaded for it."""

    def __init__(
        self,
        offers: Sequence[Offer],
        *,
        size: SizeName,
        seeds: Sequence[int] | None,
        out: Path,
        threads: int,
        only_failed: bool,
        console: Console,
    ) -> None:
        self.offers = list(offers)
        self.size: SizeName = size
        self.seeds = seeds
        self.out = out
        self.threads = threads
        self.only_failed = only_failed
        self.console = console
        self._loaded: dict[str, Experiment | Broken] = {}

    def run(self) -> None:
        """Runs what is to be run. KeyboardInterrupt passes through; what is stored stays."""
        set_thread_variables(self.threads)
        clear_partials(self.out)
        wanted, kept = [], 0
        for offer in self.offers:
            with self.console.status(f"importing {offer.name}"):
                experiment = self._load(offer)
            if isinstance(experiment, Broken):
                self.console.print(
                    f"[red]✕ {escape(offer.name)}[/red] cannot be imported: "
                    f"{escape(experiment.error)}"
                )
                continue
            tasks = self._tasks(offer, experiment)
            todo = [task for task in tasks if self._is_wanted(task)]
            kept += len(tasks) - len(todo)
            for task in tasks:
                # What a run that was killed after its last result had no time to remove.
                if task not in todo and self._is_done(task):
                    shutil.rmtree(task.folder(self.out), ignore_errors=True)
            absent = absent_data(experiment)
            if todo and absent:
                self.console.print(
                    f"[yellow]– {escape(offer.name)}[/yellow] skipped, its data are not here: "
                    f"{escape(how_to_get(absent))}",
                    soft_wrap=True,
                )
                continue
            wanted.extend(todo)
        if kept and not self.only_failed:
            self.console.print(
                f"[dim]{kept} result{'s' if kept > 1 else ''} of an earlier run kept; "
                f"delete {escape(str(self.out))} to measure afresh[/dim]"
            )
        if self.only_failed and not wanted:
            self.console.print(f"Nothing that failed in {escape(str(self.out))} is left to run.")
        if wanted:
            machine = describe(self.threads)
            with LiveWatch(self.console, wanted) as watch:
                work(wanted, self.out, threads=self.threads, machine=machine, watch=watch)

    def results(self, interrupted: bool = False) -> tuple[list[Result], list[Result]]:
        """Results of what this run selected, and of all that the folder holds.

        Another size or another experiment of an earlier run stays in the report, and a full
        result that came with the package stands in where the folder has none. After an
        interruption nothing more is imported: who pressed Ctrl-C is waiting.
        """
        selected, everything = [], []
        chosen = {offer.name for offer in self.offers}
        for offer in discover():
            if interrupted and offer.name not in self._loaded:
                continue
            for size in ("quick", "full"):
                asked = offer.name in chosen and size == self.size
                result = self._result(offer, size, asked)
                if result is not None:
                    everything.append(result)
                    if asked:
                        selected.append(result)
            if not any(r.name == offer.name and r.size == "full" for r in everything):
                everything.extend(self._recorded(offer))
        return selected, everything

    def _recorded(self, offer: Offer) -> list[Result]:
        """The full result that came with the package, where it is still the answer."""
        if offer.name not in self._loaded:
            return []
        experiment = self._load(offer)
        if isinstance(experiment, Broken):
            return []
        try:
            units = read_record(offer, experiment)
        except UnreadableError as error:
            self._complain(f"{error}; the report leaves it out")
            return []
        return [recorded(experiment, units)] if units else []

    def _result(self, offer: Offer, size: SizeName, asked: bool) -> Result | None:
        if not asked and not (self.out / "units" / offer.name).is_dir():
            return None
        experiment = self._load(offer)
        if isinstance(experiment, Broken):
            return broken_result(offer, experiment, size) if asked else None
        tasks = (
            self._tasks(offer, experiment)
            if asked
            else tasks_stored(experiment, offer.release, size, self.out)
        )
        units = [unit for task in tasks if (unit := stored_or_none(task, self.out))]
        if not units and (not asked or self.only_failed):
            return None
        absent = absent_data(experiment)
        skipped = how_to_get(absent) if absent else ""
        seeds = [task.seed for task in tasks]
        return summarise(experiment, offer.release, size, seeds, units, skipped)

    def _tasks(self, offer: Offer, experiment: Experiment) -> list[Task]:
        if self.only_failed and self.seeds is None:
            return tasks_stored(experiment, offer.release, self.size, self.out)
        return tasks_of(experiment, offer.release, self.size, self.seeds)

    def _is_wanted(self, task: Task) -> bool:
        unit: Unit | None = stored_or_none(task, self.out, self._complain)
        if self.only_failed:
            return unit is not None and unit.status == "failed"
        return unit is None or unit.status == "failed"

    def _is_done(self, task: Task) -> bool:
        unit = stored_or_none(task, self.out)
        return unit is not None and unit.status == "done"

    def _complain(self, sentence: str) -> None:
        self.console.print(f"[yellow]{escape(sentence)}[/yellow]", soft_wrap=True)

    def _load(self, offer: Offer) -> Experiment | Broken:
        if offer.name not in self._loaded:
            self._loaded[offer.name] = offer.load()
        return self._loaded[offer.name]


def absent_data(experiment: Experiment) -> list[DataSet]:
    """The data sets of the experiment that are not here."""
    return [source for source in experiment.data if not source.available()]


def how_to_get(absent: Sequence[DataSet]) -> str:
    """What to do for the absent data, in one sentence."""
    return "; ".join(f"{source.name}: {source.how}" for source in absent)
