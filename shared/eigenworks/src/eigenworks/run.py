"""Running experiments: what is to be done, doing it unit by unit, and stopping well."""

import hashlib
import json
import os
import random
import shutil
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from eigenworks.experiment import Experiment, Row, SizeName, Trial
from eigenworks.machine import THREAD_VARIABLES
from eigenworks.statistics import Real
from eigenworks.store import Unit, UnreadableError, load_unit, save_unit, stored_seeds, unit_path


@dataclass(frozen=True)
class Task:
    """One unit of work: an experiment at a size with a seed."""

    experiment: Experiment
    release: str
    size: SizeName
    seed: int

    @property
    def seconds(self) -> float:
        """The experiment's own estimate."""
        return self.experiment.size(self.size).seconds

    def folder(self, out: Path) -> Path:
        """Where the experiment may keep what it has done of this task."""
        parameters = _plain(self.experiment.size(self.size).parameters)
        question = [self.experiment.version, self.release, parameters]
        digest = hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()[:12]
        return out / "unfinished" / self.experiment.name / f"{self.size}-seed{self.seed}-{digest}"

    def stored(self, out: Path) -> Unit | None:
        """The stored unit that answers for this task, or None.

        Raises UnreadableError for a file that is not a whole result.
        """
        unit = load_unit(unit_path(out, self.experiment.name, self.size, self.seed))
        return unit if unit is not None and self.answered_by(unit) else None

    def answered_by(self, unit: Unit) -> bool:
        """Whether the unit was run with this version, release and these parameters."""
        return unit.release == self.release and self.same_question(unit)

    def same_question(self, unit: Unit) -> bool:
        """Whether the unit was run with this version and these parameters, in any release."""
        parameters = self.experiment.size(self.size).parameters
        return unit.version == self.experiment.version and _plain(unit.parameters) == _plain(
            parameters
        )


@runtime_checkable
class Watch(Protocol):
    """What is told of a run while it goes on."""

    def started(self, task: Task) -> None: ...
    def progress(self, fraction: Real, what: str) -> None: ...
    def ended(self, unit: Unit) -> None: ...


def tasks_of(
    experiment: Experiment, release: str, size: SizeName, seeds: Sequence[int] | None
) -> list[Task]:
    """The tasks of an experiment, with its own seeds where none are asked for.

    An experiment that draws nothing at random is run once, with seed 0.
    """
    own = experiment.size(size).seeds
    chosen = (0,) if not own else own if seeds is None else seeds
    return [Task(experiment, release, size, seed) for seed in chosen]


def tasks_stored(experiment: Experiment, release: str, size: SizeName, out: Path) -> list[Task]:
    """The tasks of an experiment that have a valid result in the folder."""
    candidates = (
        Task(experiment, release, size, seed) for seed in stored_seeds(out, experiment.name, size)
    )
    return [task for task in candidates if stored_or_none(task, out) is not None]


def stored_or_none(
    task: Task, out: Path, complain: Callable[[str], None] = lambda _: None
) -> Unit | None:
    """The stored unit; a broken file is reported to `complain` and counts as absent."""
    try:
        return task.stored(out)
    except UnreadableError as error:
        complain(f"{error}; it is run again")
        return None


def set_thread_variables(threads: int) -> None:
    """One number for every library that starts threads; they read it when first imported."""
    for variable in THREAD_VARIABLES:
        os.environ[variable] = str(threads)


def work(
    tasks: Sequence[Task], out: Path, *, threads: int, machine: Mapping[str, Any], watch: Watch
) -> None:
    """Runs the tasks in order and stores what comes of each.

    An experiment that raises becomes a failed unit and the next task goes on.
    KeyboardInterrupt is not caught: what is stored stays, the unit it hit is not stored.
    """
    for task in tasks:
        watch.started(task)
        folder = task.folder(out)
        unit = run_task(
            task, threads=threads, machine=machine, progress=watch.progress, folder=folder
        )
        save_unit(out, unit)
        if unit.status == "done":
            shutil.rmtree(folder, ignore_errors=True)
        watch.ended(unit)


def run_task(
    task: Task,
    *,
    threads: int,
    machine: Mapping[str, Any],
    progress: Callable[[Real, str], None],
    folder: Path | None = None,
) -> Unit:
    """Calls the experiment once and returns what came of it, rows or error."""
    experiment = task.experiment
    parameters = experiment.size(task.size).parameters
    rows: list[Row] = []
    error = trace = ""
    _prepare(task.seed, threads)
    start = time.perf_counter()
    try:
        trial = Trial(task.seed, parameters, threads, _checked(progress), folder)
        with warnings.catch_warnings():
            # What libraries say to those who write for them.
            for category in (FutureWarning, DeprecationWarning):
                warnings.simplefilter("ignore", category)
            for row in experiment.run(trial):
                _check_row(row, rows)
                rows.append(row)
        if not rows:
            raise ValueError(f"{experiment.name} yielded no rows")
    # SystemExit too: a library that exits must not take the other experiments with it.
    except (Exception, SystemExit) as caught:
        error, trace = f"{type(caught).__name__}: {caught}", traceback.format_exc()
    return Unit(
        experiment=experiment.name,
        size=task.size,
        seed=task.seed,
        version=experiment.version,
        release=task.release,
        parameters=_plain(parameters),
        status="failed" if error else "done",
        seconds=round(time.perf_counter() - start, 3),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=machine,
        rows=tuple(rows),
        error=error,
        traceback=trace,
    )


def _plain(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as JSON gives them back: tuples become lists."""
    return {
        name: list(value) if isinstance(value, tuple | list) else value
        for name, value in parameters.items()
    }


def _prepare(seed: int, threads: int) -> None:
    """Seeds the global generators and sets the threads of the libraries that experiments use.

    Imported here and not at the head, so that `eigenworks --help` does not wait for them.
    """
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the global generator is what other code draws from
    torch.manual_seed(seed)
    torch.set_num_threads(threads)


def _check_row(row: object, before: Sequence[Row]) -> None:
    if not isinstance(row, Row):
        raise TypeError(f"an experiment must yield eigenworks.Row, got {type(row).__name__}")
    if any((row.label, row.metric) == (other.label, other.metric) for other in before):
        raise ValueError(f"row {row.label!r} ({row.metric}) was yielded twice")


def _checked(progress: Callable[[Real, str], None]) -> Callable[[Real, str], None]:
    def report(fraction: Real, what: str) -> None:
        if not 0 <= fraction <= 1:
            raise ValueError(f"fraction must be between 0 and 1, got {fraction}")
        progress(fraction, what)

    return report
