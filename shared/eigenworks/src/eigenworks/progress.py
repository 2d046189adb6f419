"""The bar of a run: what is running, how far it is, and about how long the rest takes."""

import time
from collections.abc import Callable, Sequence
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, TextColumn
from rich.progress import Task as Bar
from rich.text import Text

from eigenworks.formatting import duration
from eigenworks.run import Task
from eigenworks.statistics import Real
from eigenworks.store import Unit


class Estimate:
    """Time left, from what the experiments say of themselves and how far off that proved.

    The finished units give the machine's pace (measured over declared seconds); the running
    unit counts by the fraction it reports, or by its declared time as long as it is within.
    """

    def __init__(self, declared: Sequence[Real], clock: Callable[[], Real]) -> None:
        self._waiting = list(declared)
        self._running = 0.0
        self._declared_done = 0.0
        self._measured_done = 0.0
        self._clock = clock
        self._started = clock()
        self._fraction = 0.0

    def start(self) -> None:
        """The next unit begins."""
        self._running = self._waiting.pop(0)
        self._started = self._clock()
        self._fraction = 0.0

    def report(self, fraction: Real) -> None:
        """The running unit says how far it is."""
        self._fraction = fraction

    def end(self) -> None:
        """The running unit has ended."""
        self._measured_done += self._clock() - self._started
        self._declared_done += self._running
        self._running = 0.0

    @property
    def left(self) -> Real:
        """Seconds, not below zero."""
        pace = self._measured_done / self._declared_done if self._declared_done else 1.0
        rest = pace * sum(self._waiting)
        if not self._running:
            return rest
        spent = self._clock() - self._started
        if self._fraction > 0.05:
            return rest + spent * (1 - self._fraction) / self._fraction
        return rest + max(0.0, pace * self._running - spent)


class _Left(ProgressColumn):
    def __init__(self, estimate: Estimate) -> None:
        super().__init__()
        self._estimate = estimate

    def render(self, task: Bar) -> Text:
        if task.finished:
            return Text("")
        return Text(f"about {duration(self._estimate.left)} left", style="progress.remaining")


class LiveWatch:
    """Shows a run in a terminal; elsewhere it prints a line for each unit that ends."""

    def __init__(self, console: Console, tasks: Sequence[Task]) -> None:
        self._console = console
        self._count = len(tasks)
        self._done = 0
        self._estimate = Estimate([task.seconds for task in tasks], time.monotonic)
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[done]}/{task.total:.0f}"),
            _Left(self._estimate),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._id = self._bar.add_task("", total=self._count, done=0)
        self._name = ""

    def __enter__(self) -> "LiveWatch":
        if self._count > 1:
            about = duration(self._estimate.left)
            self._console.print(f"[dim]{self._count} to run, by their own word {about}[/dim]")
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def started(self, task: Task) -> None:
        """A unit begins."""
        self._estimate.start()
        self._name = escape(_task_name(task))
        self._bar.update(self._id, description=self._name)

    def progress(self, fraction: Real, what: str) -> None:
        """The running unit says how far it is and what it does."""
        self._estimate.report(fraction)
        described = f"{self._name} [dim]{escape(what)}[/dim]" if what else self._name
        self._bar.update(self._id, completed=self._done + fraction, description=described)

    def ended(self, unit: Unit) -> None:
        """A unit has ended; its line stays on the screen."""
        self._estimate.end()
        self._done += 1
        self._bar.update(self._id, completed=self._done, done=self._done)
        took = duration(unit.seconds)
        if self._done < self._count:
            took += f", about {duration(self._estimate.left)} left"
        if unit.status == "done":
            self._console.print(f"[green]✓[/green] {self._name} [dim]{took}[/dim]")
        else:
            error = escape(unit.error.strip().splitlines()[0])
            self._console.print(f"[red]✕ {self._name}[/red] [dim]{took}[/dim] {error}")


def _task_name(task: Task) -> str:
    seeded = bool(task.experiment.size(task.size).seeds)
    return f"{task.experiment.name} seed {task.seed}" if seeded else task.experiment.name
