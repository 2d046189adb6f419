"""What an experiment is: a claim with its source, the data it needs, and a function.

A package offers an experiment by an entry point of the group `eigenworks.experiments`
whose name is the experiment's name within the package and whose value is an
`Experiment`:

    [project.entry-points."eigenworks.experiments"]
    emg = "spd_metrics.experiments.emg:experiment"

    experiment = Experiment(
        name="spd-metrics/emg",                      # distribution / entry point
        title="Gestures from surface EMG",
        claim=Claim("Re-centring each session gains 9 points", source="pyRiemann 0.12"),
        data=(EMG,),
        quick=Size(seconds=5),
        full=Size(seconds=5),
        figures=(Figure("affine-invariant, mg s1→s2", "accuracy", 75.97,
                        source="pyRiemann 0.12, MDM", tolerance=0.2),),
        run=run,
    )

    def run(trial: Trial) -> Iterator[Row]:
        windows = EMG.load().windows()
        ...
        yield Row("affine-invariant, mg s1→s2", "accuracy", 100 * hits / n, unit="%",
                  better="higher", interval=wilson(hits, n, scale=100))

The unit of work is (experiment, size, seed): `run` is called once for each, with the
global generators of random, NumPy and torch seeded; what it yields is kept on disk when
it has ended, so an interrupted run goes on where it stopped. Several seeds make a mean
with an interval; a row's own `interval` is shown when there is a single value.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from eigenworks.dataset import DataSet
from eigenworks.plots import Plot
from eigenworks.statistics import Interval, Real

Scalar = bool | int | float | str
Value = Scalar | tuple[Scalar, ...]
"""What a parameter may be: it is written to JSON and compared with what was stored."""

SizeName = Literal["quick", "full"]
Relation = Literal["near", "at least", "at most"]


@dataclass(frozen=True)
class Claim:
    """What a paper (or a peer) says, in one sentence, and where it was read.

    `source` names the paper with section or table, or the program with its version.
    """

    text: str
    source: str


@dataclass(frozen=True)
class Figure:
    """A number that somebody else printed for the row (`label`, `metric`), in its unit.

    `source` says where it was read ("LieBN, ICLR 2024, Table 4", "pyRiemann 0.12, run on
    this data"). `tolerance` is how near a full run must come for the row to hold, in the
    row's unit; None means that data, model or size differ, so that the figure is shown and
    not compared. `relation` "at least" and "at most" compare on one side only.
    Raises ValueError for a value that is not finite or a tolerance below zero.
    """

    label: str
    metric: str
    value: Real
    source: str
    tolerance: Real | None = None
    relation: Relation = "near"

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", float(self.value))
        if not math.isfinite(self.value):
            raise ValueError(f"value of figure {self.label!r} must be finite, got {self.value}")
        if self.tolerance is not None and not self.tolerance >= 0:
            raise ValueError(
                f"tolerance of figure {self.label!r} must be >= 0, got {self.tolerance}"
            )


@dataclass(frozen=True)
class Size:
    """How much an experiment does: its seeds, its parameters, and about how long a seed takes.

    `seeds=()` says that nothing is drawn at random: it is run once, whatever `--seeds` asks.
    `parameters` (plain numbers, strings, tuples of them) reach the function by `Trial` and
    decide, with `Experiment.version`, whether a stored result is still the answer.
    `seconds` is for one seed on one core, and only feeds the estimate of the time left.
    """

    seconds: Real
    seeds: tuple[int, ...] = ()
    parameters: Mapping[str, Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "seconds", float(self.seconds))
        object.__setattr__(self, "seeds", tuple(self.seeds))
        object.__setattr__(self, "parameters", dict(self.parameters))
        if not self.seconds > 0:
            raise ValueError(f"seconds must be > 0, got {self.seconds}")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds must differ from each other, got {self.seeds}")


def _no_progress(_fraction: Real, _what: str) -> None:
    """What a trial outside the runner reports to, as in a test."""


@dataclass(frozen=True)
class Trial:
    """One call of an experiment's function.

    `progress(fraction, what)` may be called at any time with 0 <= fraction <= 1; it moves the
    bar and does nothing else. `threads` is what the process was told to use. `folder` is a
    place for intermediate results, there again when an interrupted run goes on with the same
    question and removed once it has succeeded; it need not exist, and None says there is none.
    """

    seed: int
    parameters: Mapping[str, Any]
    threads: int = 1
    progress: Callable[[Real, str], None] = _no_progress
    folder: Path | None = None


@dataclass(frozen=True)
class Row:
    """One measured number of one seed.

    (`label`, `metric`) identifies it across seeds, sizes and runs; `better` says which way
    is an improvement (None: neither, as for a count), so that `compare` can tell a
    regression; `interval` is the uncertainty of this single value (for instance `wilson`
    over the test set) and gives way to the interval over seeds as soon as there are two.
    Raises ValueError for a value that is not finite: an experiment that diverged has failed.
    """

    label: str
    metric: str
    value: Real
    unit: str = ""
    better: Literal["higher", "lower"] | None = None
    interval: Interval | None = None
    plots: tuple[Plot, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", float(self.value))
        object.__setattr__(self, "plots", tuple(self.plots))
        if not math.isfinite(self.value):
            raise ValueError(
                f"value of row {self.label!r} ({self.metric}) must be finite, got {self.value}"
            )


@dataclass(frozen=True)
class Experiment:
    """A claim, the data and the function that measures it. See the head of this file.

    `name` is "<distribution>/<entry point>". `version` goes up by one whenever a stored
    result must not be taken for a new one. `notes` says what a reader has to know beside the
    figures: what differs from the paper, what could not be re-run. `headline` has (label,
    metric) of the row that stands for all in the table of all experiments, or of several, of
    which the first that was measured does; without it, that is the first row with a published
    figure.
    """

    name: str
    title: str
    claim: Claim
    run: Callable[[Trial], Iterable[Row]]
    quick: Size
    full: Size
    data: tuple[DataSet, ...] = ()
    figures: tuple[Figure, ...] = ()
    notes: str = ""
    version: int = 1
    headline: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        package, slash, short = self.name.partition("/")
        if not (package and slash and short) or "/" in short:
            raise ValueError(f"name must be '<package>/<experiment>', got {self.name!r}")

    @property
    def package(self) -> str:
        """The distribution that the experiment belongs to."""
        return self.name.partition("/")[0]

    def size(self, name: SizeName) -> Size:
        """`quick` or `full`."""
        return self.quick if name == "quick" else self.full
