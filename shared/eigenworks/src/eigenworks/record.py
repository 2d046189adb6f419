"""Full results that travel with a package: `results/<experiment>.json` beside its module.

A full run takes longer than a reader waits, so its units are kept with the code that made
them, in one file, and the report shows them beside the quick run of today. A record counts
only for the version and the parameters of the experiment that it was made with.
"""

import importlib.util
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from eigenworks.discover import Offer
from eigenworks.experiment import Experiment
from eigenworks.run import stored_or_none, tasks_of
from eigenworks.store import Unit, UnreadableError, unit_from_json, unit_to_json, write_atomically

FORMAT = "eigenworks record 1"


class NotRecordableError(Exception):
    """A full run that is not whole, or a package that has no folder to keep it in."""


def record_path(offer: Offer) -> Path | None:
    """Where the record lies: `results/` beside the module that holds the experiment.

    None for a module that is not a file in a folder, as one in a zip archive.
    """
    module = offer.entry_point.module
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        return None
    return Path(spec.origin).parent / "results" / f"{offer.entry_point.name}.json"


def write_record(offer: Offer, experiment: Experiment, out: Path) -> Path:
    """Collects the full units of the folder `out` into the record and returns its path.

    Raises NotRecordableError where a seed is missing or failed.
    """
    path = record_path(offer)
    if path is None:
        raise NotRecordableError(f"{offer.name} is not in a folder that a record can be put into")
    units = []
    for task in tasks_of(experiment, offer.release, "full", None):
        unit = stored_or_none(task, out)
        if unit is None or unit.status != "done":
            what = "is not there" if unit is None else "failed"
            raise NotRecordableError(
                f"{offer.name}: the full result of seed {task.seed} {what} in {out}; "
                f"run: eigenworks run --full {offer.name} --out {out}"
            )
        units.append(unit_to_json(unit if not units else without_plots(unit)))
    lines = ",\n".join(json.dumps(u, ensure_ascii=False, allow_nan=False) for u in units)
    head = json.dumps({"format": FORMAT, "experiment": experiment.name}, ensure_ascii=False)
    write_atomically(path, f'{head[:-1]}, "units": [\n{lines}\n]}}\n')
    return path


def without_plots(unit: Unit) -> Unit:
    """The unit's numbers alone: a report draws the plots of the first seed only."""
    return replace(unit, rows=tuple(replace(row, plots=()) for row in unit.rows))


def read_record(offer: Offer, experiment: Experiment) -> Sequence[Unit]:
    """The recorded full units; none where there is no record.

    Raises UnreadableError for a file of another format, and for a record that was made with
    another version or other parameters of the experiment.
    """
    path = record_path(offer)
    if path is None or not path.is_file():
        return ()
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UnreadableError(f"{path} is not a whole record: {error}") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise UnreadableError(f"{path} is not in the format {FORMAT!r}")
    try:
        units = tuple(unit_from_json(unit) for unit in data["units"])
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise UnreadableError(f"{path} is not in the format {FORMAT!r}: {error!r}") from error
    planned = tasks_of(experiment, offer.release, "full", None)
    stale = len(planned) != len(units) or not all(
        task.seed == unit.seed and task.same_question(unit)
        for task, unit in zip(planned, units, strict=False)
    )
    if stale:
        raise UnreadableError(
            f"{path} was recorded with another version, other seeds or other parameters of "
            f"{offer.name} than it has now; run it in full and record it again"
        )
    return units
