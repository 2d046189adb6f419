"""Finding experiments: entry points of installed distributions, and nothing else."""

import difflib
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points

from eigenworks.experiment import Experiment

GROUP = "eigenworks.experiments"


class UnknownNameError(Exception):
    """A name that is neither an experiment nor a package that offers one."""


@dataclass(frozen=True)
class Offer:
    """An experiment that an installed distribution offers, not imported yet."""

    name: str
    package: str
    release: str
    entry_point: EntryPoint

    def load(self) -> "Experiment | Broken":
        """Imports the experiment. A failure of any kind is returned, so that the rest goes on."""
        try:
            experiment = self.entry_point.load()
            if not isinstance(experiment, Experiment):
                raise TypeError(
                    f"entry point {self.name} must be an eigenworks.Experiment, "
                    f"got {type(experiment).__name__} from {self.entry_point.value!r}"
                )
            if experiment.name != self.name:
                raise ValueError(
                    f"entry point {self.name} holds an experiment named {experiment.name!r}"
                )
        # SystemExit too: a module that exits when imported must not end the run.
        except (Exception, SystemExit) as error:
            return Broken(f"{type(error).__name__}: {error}", traceback.format_exc())
        return experiment


@dataclass(frozen=True)
class Broken:
    """Why an offered experiment could not be imported."""

    error: str
    traceback: str


def discover() -> list[Offer]:
    """All experiments of the installed distributions, by name."""
    offers = {}
    for point in entry_points(group=GROUP):
        if point.dist is None:
            continue
        package = point.dist.name
        name = f"{package}/{point.name}"
        offers[name] = Offer(name, package, point.dist.version, point)
    return [offers[name] for name in sorted(offers)]


def select(offers: Sequence[Offer], names: Sequence[str]) -> list[Offer]:
    """The offers that `names` (packages or experiments) ask for, all of them for no names.

    Raises UnknownNameError with the nearest names that exist.
    """
    if not names:
        return list(offers)
    known = sorted({offer.name for offer in offers} | {offer.package for offer in offers})
    check_names(names, known, "experiment or package with experiments")
    return [offer for offer in offers if offer.name in names or offer.package in names]


def check_names(names: Sequence[str], known: Sequence[str], what: str) -> None:
    """Raises UnknownNameError for the first of `names` that is not `known`, with near matches."""
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
            near += [other for other in known if name in other and other not in near]
            hint = (
                f"did you mean {' or '.join(near[:3])}?" if near else f"there is {_listed(known)}"
            )
            raise UnknownNameError(f"no {what} is called {name!r}; {hint}")


def _listed(known: Sequence[str]) -> str:
    return ", ".join(known) if known else "none installed"
