"""The result of `optimize`: tables by step and by threshold, molecules with their provenance."""

import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from chemflow.candidates import Best, Candidate, Front
from chemflow.files import WRONG, reason, write_bytes, write_text
from chemflow.objective import Objective
from chemflow.oracles import Oracle
from chemflow.runs import Json

FORMAT = "chemflow optimization 1"


@dataclass(frozen=True)
class Improvement:
    """How rows improved at one threshold of similarity, measured from one reference.

    Attributes:
        column: A property, in its units (a decrease where less is better), or "objective".
        reference: "input", the molecules that were given, or "start", what the first codes
            decode to.
        threshold: δ, the least similarity to the reference.
        success: Share of all rows, lost ones included, that improved at all.
        mean, std: Over the rows that improved; NaN without any, and std for fewer than two.
        curve: Mean over all rows of the best improvement until each step, 0 where none.
    """

    column: str
    reference: str
    threshold: float
    success: float
    mean: float
    std: float
    curve: tuple[float, ...]


@dataclass(frozen=True)
class StepSummary:
    """All rows after a step.

    Attributes:
        valid: Share that are molecules.
        mean, std: Of each property and of the "objective", over those that have it.
        predicted: Mean of the surrogate's guesses, over all rows.
        error: Mean absolute difference of guess and oracle, where both are there.
        improved: Share with a better objective than at the start.
        norm: Mean length of the codes.
    """

    step: int
    valid: float
    mean: dict[str, float]
    std: dict[str, float]
    predicted: dict[str, float]
    error: dict[str, float]
    improved: float
    norm: float


def _ratio(a: float, b: int) -> float:
    return a / b if b else math.nan


def _deviation(total: float, squares: float, count: int) -> float:
    if count < 2:
        return math.nan
    return math.sqrt(max(squares - total * total / count, 0.0) / (count - 1))


@dataclass(frozen=True)
class Optimization:
    """What `optimize` found.

    Attributes:
        size: Rows that were asked for.
        lost: Rows without a code: (row, SMILES, reason).
        best: The best different molecules that any row met after any step, the start included.
        last: The best different ones among those after the last step, as the paper's Table 1.
        front: For several properties, those that no other dominates.
        calls: Molecules that were decoded and scored, of them invalid, really evaluated (what a
            process remembers it does not evaluate again), and asked for by the navigator itself.
        snapshots: Values of each property (k, n) after some steps, NaN where invalid.
        records: One a row, with its start, its best and its last molecule; empty if not kept.
    """

    settings: Json
    names: tuple[str, ...]
    size: int
    seed: int
    lost: tuple[tuple[int, str, str], ...]
    steps: tuple[StepSummary, ...]
    improvements: tuple[Improvement, ...]
    best: tuple[Candidate, ...]
    last: tuple[Candidate, ...]
    front: tuple[Candidate, ...]
    calls: dict[str, int]
    snapshots: dict[int, Float64[np.ndarray, "k n"]]
    records: tuple[Json, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """The properties, and the objective."""
        return (*self.names, "objective")

    def improvement(
        self, threshold: float = 0.0, column: str = "objective", reference: str | None = None
    ) -> Improvement:
        """One of `improvements`; of the input molecules where there are any."""
        wanted = reference or self.improvements[0].reference
        for one in self.improvements:
            if (one.threshold, one.column, one.reference) == (threshold, column, wanted):
                return one
        raise ValueError(f"no improvement of {column!r} from {wanted!r} at {threshold}")

    def figures(self) -> dict[str, float]:
        """For `over_seeds`: last means, the best three, and shares of success."""
        last = self.steps[-1]
        told = {"valid at the end": last.valid, "improved at the end": last.improved}
        told |= {f"mean {name} at the start": self.steps[0].mean[name] for name in self.names}
        told |= {f"mean {name} at the end": last.mean[name] for name in self.names}
        for place in range(3):
            score = self.best[place].score if place < len(self.best) else math.nan
            told[f"objective, best {place + 1}"] = score
        for one in self.improvements:
            where = f"{one.column} at {one.threshold:g} to {one.reference}"
            told |= {f"success, {where}": one.success, f"improvement, {where}": one.mean}
        return told

    def table(self) -> str:
        """For a terminal: oracle beside surrogate by step, improvements, the best molecules."""
        shown = np.unique(np.linspace(0, len(self.steps) - 1, 6).round().astype(int)).tolist()
        width = max(len(name) for name in self.columns)
        lines = [f"{self.size:,} rows, seed {self.seed}, {len(self.steps) - 1} steps; "
                 f"{self.calls['asked']:,} decoded, {self.calls['invalid']:,} of them no molecule, "
                 f"{self.calls['evaluated']:,} evaluated"]  # fmt: skip
        if self.lost:
            lines.append(f"{len(self.lost)} rows had no code, as {': '.join(self.lost[0][1:])}")
        lines.append(f"{'step':>5} {'valid':>7} {'improved':>9}" + "".join(
            f" {name:>{max(width, 10)}} {'surrogate':>10}" for name in self.names))  # fmt: skip
        for t in shown:
            step = self.steps[t]
            lines.append(f"{t:>5} {step.valid:>7.1%} {step.improved:>9.1%}" + "".join(
                f" {step.mean[name]:>{max(width, 10)}.3f} {_shown(step.predicted.get(name))}"
                for name in self.names))  # fmt: skip
        lines.extend(
            f"{one.column}, similarity to the {one.reference} at least {one.threshold:g}: "
            + (
                f"{one.success:.1%} improved, by {one.mean:.3f} ± {one.std:.3f}"
                if one.success
                else "none improved"
            )
            for one in self.improvements
            if one.column in self.names
        )
        lines.extend(
            f"{place}. {one.smiles}  "
            + ", ".join(f"{name} {value:.3f}" for name, value in one.values.items())
            + f"  (row {one.row}, step {one.step})"
            for place, one in enumerate(self.best[:3], 1)
        )
        return "\n".join(lines)

    def to_json(self) -> Json:
        """Everything but snapshots and records, in plain values; NaN as None."""

        def clean(value: Any) -> Any:
            if isinstance(value, dict):
                return {str(key): clean(one) for key, one in value.items()}
            if isinstance(value, (list, tuple)):
                return [clean(one) for one in value]
            if isinstance(value, float) and not math.isfinite(value):
                return None
            return value

        return clean(
            {
                "format": FORMAT,
                "settings": self.settings,
                "size": self.size,
                "seed": self.seed,
                "lost": self.lost,
                "calls": self.calls,
                "steps": [vars(one) for one in self.steps],
                "improvements": [vars(one) for one in self.improvements],
                "best": [one.to_json() for one in self.best],
                "last": [one.to_json() for one in self.last],
                "front": [one.to_json() for one in self.front],
            }
        )

    def save(self, folder: str | Path) -> None:
        """`optimization.json`, `snapshots.npz` and, if rows were kept, `rows.jsonl`."""
        folder = Path(folder)
        kept = io.BytesIO()
        arrays: dict[str, Any] = {str(t): one for t, one in self.snapshots.items()}
        np.savez_compressed(kept, **arrays)
        write_bytes(folder / "snapshots.npz", kept.getvalue())
        if self.records:
            lines = (json.dumps(one, allow_nan=False) for one in self.records)
            write_text(folder / "rows.jsonl", "\n".join(lines))
        text = json.dumps(self.to_json(), allow_nan=False, indent=1)
        write_text(folder / "optimization.json", text)


def load_optimization(folder: str | Path) -> Optimization:
    """What `Optimization.save` wrote, without the records.

    Raises ValueError for files of another kind, OSError for absent ones.
    """
    path = Path(folder) / "optimization.json"
    snapshots = _snapshots(path.with_name("snapshots.npz"))
    try:
        told = json.loads(path.read_text("utf-8"))
        if told["format"] != FORMAT:
            raise ValueError(f"expected the format {FORMAT!r}, got {told['format']!r}")
        steps = tuple(StepSummary(**_numbers(one)) for one in told["steps"])
        return Optimization(
            settings=told["settings"],
            names=tuple(name for name in steps[0].mean if name != "objective") if steps else (),
            size=told["size"],
            seed=told["seed"],
            lost=tuple((row, smiles, why) for row, smiles, why in told["lost"]),
            steps=steps,
            improvements=tuple(Improvement(**_numbers(one)) for one in told["improvements"]),
            best=tuple(Candidate.from_json(one) for one in told["best"]),
            last=tuple(Candidate.from_json(one) for one in told["last"]),
            front=tuple(Candidate.from_json(one) for one in told["front"]),
            calls=told["calls"],
            snapshots=snapshots,
            records=(),
        )
    except WRONG as error:
        raise ValueError(f"{path}: not an optimization of this package: {reason(error)}") from error


def _snapshots(path: Path) -> dict[int, np.ndarray]:
    # numpy leaves a file that it cannot read open, where it opened it.
    with path.open("rb") as stream:
        try:
            with np.load(stream, allow_pickle=False) as file:
                return {int(t): np.asarray(file[t], np.float64) for t in file.files}
        # A changed file makes numpy fail in any way, even as a program with a wrong syntax.
        except Exception as error:
            raise ValueError(f"{path}: not the codes of a run: {reason(error)}") from error


def _numbers(told: Json) -> Json:
    """None as NaN again, also one level down, and lists as tuples."""

    def one(value: Any) -> Any:
        if isinstance(value, dict):
            return _numbers(value)
        if isinstance(value, list):
            return tuple(one(part) for part in value)
        return math.nan if value is None else value

    return {key: one(value) for key, value in told.items()}


class BestOfParts:
    """Keeps the lists of molecules of many parts in the room of one; see `chemflow.runs.Fold`."""

    def __init__(self, objective: Objective, names: Sequence[str], top: int) -> None:
        self.best, self.last = Best(top), Best(top)
        self.front = Front(tuple(names[: len(objective.oracles)]), objective.signs)

    def take(self, part: Json) -> None:
        """Takes the lists of a part and leaves them empty."""
        self.best.add(Candidate.from_json(one) for one in part["best"])
        self.last.add(Candidate.from_json(one) for one in part["last"])
        if part["front"]:
            self.front.add([Candidate.from_json(one) for one in part["front"]])
        part["best"], part["last"], part["front"] = [], [], []

    def lists(self) -> Json:
        """What is left of them all, as of one part."""
        return {
            "best": [one.to_json() for one in self.best.list()],
            "last": [one.to_json() for one in self.last.list()],
            "front": [one.to_json() for one in self.front.list()],
        }


def merge(
    parts: Sequence[Json], *, settings: Json, objective: Objective, oracles: Sequence[Oracle],
    thresholds: Sequence[float], size: int, seed: int, top: int,
) -> Optimization:  # fmt: skip
    """The result of all batches, in their order."""
    names = tuple(oracle.name for oracle in oracles)
    columns = (*names, "objective")
    kept = BestOfParts(objective, names, top)
    for part in parts:
        kept.take(part)
    times = sorted({int(t) for part in parts for t in part["snapshots"]})
    snapshots = {
        t: np.concatenate(
            [np.array(part["snapshots"][str(t)], np.float64) for part in parts], axis=1
        )
        for t in times
    }
    calls = {key: sum(part["calls"][key] for part in parts)
             for key in ("asked", "invalid", "evaluated", "navigator")}  # fmt: skip
    return Optimization(
        settings=settings,
        names=names,
        size=size,
        seed=seed,
        lost=tuple((row, smiles, why) for part in parts for row, smiles, why in part["lost"]),
        steps=_steps(parts, columns),
        improvements=_improvements(parts, columns, thresholds, size),
        best=tuple(kept.best.list()),
        last=tuple(kept.last.list()),
        front=tuple(kept.front.list()),
        calls=calls,
        snapshots=snapshots,
        records=tuple(one for part in parts for one in part["records"]),
    )


def _steps(parts: Sequence[Json], columns: Sequence[str]) -> tuple[StepSummary, ...]:
    rows = sum(part["rows"] for part in parts)
    found = []
    for t, all_parts in enumerate(zip(*(part["steps"] for part in parts), strict=True)):

        def total(key: str, parts_at_t: tuple[Json, ...] = all_parts) -> Any:
            return np.sum([one[key] for one in parts_at_t], axis=0)

        defined, sums, squares = total("defined"), total("sum"), total("squares")
        found.append(
            StepSummary(
                step=t,
                valid=_ratio(float(total("valid")), rows),
                mean={c: _ratio(float(sums[i]), int(defined[i])) for i, c in enumerate(columns)},
                std={
                    c: _deviation(float(sums[i]), float(squares[i]), int(defined[i]))
                    for i, c in enumerate(columns)
                },
                predicted={
                    c: float(total("predicted")[i] / total("guessed")[i])
                    for i, c in enumerate(columns[:-1])
                    if total("guessed")[i]
                },
                error={
                    c: float(total("error")[i] / total("compared")[i])
                    for i, c in enumerate(columns[:-1])
                    if total("compared")[i]
                },
                improved=_ratio(float(total("improved")), rows),
                norm=_ratio(float(total("norm")), rows),
            )
        )
    return tuple(found)


def _improvements(
    parts: Sequence[Json], columns: Sequence[str], thresholds: Sequence[float], size: int
) -> tuple[Improvement, ...]:
    found = []
    for reference in parts[0]["references"] if parts else ():
        of = [part["references"][reference] for part in parts]
        won, sums, squares = (
            np.sum([one[key] for one in of], axis=0) for key in ("success", "sum", "squares")
        )
        curve = np.sum([one["curve"] for one in of], axis=0)
        for d, threshold in enumerate(thresholds):
            for c, column in enumerate(columns):
                count, total = int(won[d, c]), float(sums[d, c])
                found.append(
                    Improvement(
                        column=column,
                        reference=reference,
                        threshold=threshold,
                        success=_ratio(float(count), size),
                        mean=_ratio(total, count),
                        std=_deviation(total, float(squares[d, c]), count),
                        curve=tuple(_ratio(one, size) for one in curve[:, d, c].tolist()),
                    )
                )
    return tuple(found)


def _shown(value: float | None) -> str:
    return f"{'–':>10}" if value is None else f"{value:>10.3f}"
