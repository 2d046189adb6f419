"""The paper's manipulation task (Sec. 4.3, App. D.6): a path along which a property rises steadily.

A path succeeds strictly if the property never falls, the similarity to the first molecule never
rises, and at least three molecules differ; relaxed if both may err by a little. One step that is
no molecule and the path has failed. For properties that are minimised, fall and rise change place.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from chemflow.oracles import Oracle
from chemflow.protocol import LatentModel, Navigator, Surrogate
from chemflow.runs import Json, Run, fingerprint
from chemflow.scoring import Scorer, tanimoto
from chemflow.starts import Prior, Starts, digest
from chemflow.statistics import Interval, wilson
from chemflow.trajectory import Writer
from chemflow.walk import walk

GAMMA = 0.1
"""By how much the similarity may rise in the relaxed task."""


@dataclass(frozen=True)
class Success:
    """Which of n paths succeed, and what the others fail by; a path may fail by several things."""

    success: Bool[np.ndarray, " n"]
    invalid: Bool[np.ndarray, " n"]
    property: Bool[np.ndarray, " n"]
    similarity: Bool[np.ndarray, " n"]
    diversity: Bool[np.ndarray, " n"]


def success(
    values: Float64[np.ndarray, "n k"],
    similarity: Float64[np.ndarray, "n k"],
    molecules: Int64[np.ndarray, "n k"],
    *,
    maximise: bool = True,
    epsilon: float = 0.0,
    gamma: float = 0.0,
    distinct: int = 3,
) -> Success:
    """Strict success for epsilon = gamma = 0, relaxed for more.

    Args:
        values: Of the property along each path; NaN where there is no molecule.
        similarity: To the first molecule of the path; NaN where there is none.
        molecules: Any numbers, equal for equal molecules.
        epsilon: By how much the property may go the wrong way in a step, in its units.
        gamma: By how much the similarity may rise in a step.
    """
    if not (epsilon >= 0 and gamma >= 0):
        raise ValueError(f"epsilon and gamma must not be negative, got {epsilon} and {gamma}")
    invalid = ~(np.isfinite(values) & np.isfinite(similarity)).all(-1)
    rise = np.diff(values if maximise else -values, axis=-1)
    falls = ~(rise >= -epsilon).all(-1)
    nears = ~(np.diff(similarity, axis=-1) <= gamma).all(-1)
    ordered = np.sort(molecules, axis=-1)
    kinds = 1 + (np.diff(ordered, axis=-1) != 0).sum(-1) if molecules.shape[-1] else 0
    few = np.broadcast_to(kinds < distinct, invalid.shape)
    fails = invalid | falls | nears | few
    return Success(~fails, invalid, falls & ~invalid, nears & ~invalid, few & ~invalid)


def tolerance(values: Float64[np.ndarray, " n"], share: float = 0.05) -> float:
    """The paper's ε: 5 % of the range that the property has in the training data."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        raise ValueError("values must have at least one that is finite")
    return float(share * (finite.max() - finite.min()))


@dataclass(frozen=True)
class Manipulation:
    """What `manipulate` found.

    Attributes:
        strict, relaxed: Shares of all paths, lost ones included, that succeed, with intervals.
        failures: Shares of all paths that fail strictly by each reason.
        mean, predicted: Of the property after each step, by the oracle over valid molecules and
            by the surrogate over all.
        records: One a path: row, success, molecules, values, similarities.
    """

    settings: Json
    size: int
    lost: tuple[tuple[int, str, str], ...]
    strict: Interval
    relaxed: Interval
    failures: dict[str, float]
    mean: tuple[float, ...]
    predicted: tuple[float, ...]
    calls: dict[str, int]
    records: tuple[Json, ...]

    def figures(self) -> dict[str, float]:
        """For `over_seeds`."""
        return {"strict success": self.strict.mean, "relaxed success": self.relaxed.mean}

    def to_text(self) -> str:
        """All but the records as JSON; NaN as null."""
        told = {**vars(self), "records": [], "strict": vars(self.strict)}
        told |= {"relaxed": vars(self.relaxed)}
        for name in ("mean", "predicted"):
            told[name] = [one if np.isfinite(one) else None for one in told[name]]
        return json.dumps(told, indent=1)

    def table(self) -> str:
        """For a terminal."""
        lines = [
            f"{self.size:,} paths of {len(self.mean)} molecules; strict success "
            f"{100 * self.strict.mean:.2f} % [{100 * self.strict.low:.2f}, "
            f"{100 * self.strict.high:.2f}], relaxed {100 * self.relaxed.mean:.2f} % "
            f"[{100 * self.relaxed.low:.2f}, {100 * self.relaxed.high:.2f}]",
            "fail strictly by " + ", ".join(
                f"{name} {100 * share:.1f} %" for name, share in self.failures.items()),
            f"{'step':>5} {'oracle':>10} {'surrogate':>10}",
        ]  # fmt: skip
        lines.extend(
            f"{t:>5} {a:>10.3f} " + (f"{b:>10.3f}" if np.isfinite(b) else f"{'–':>10}")
            for t, (a, b) in enumerate(zip(self.mean, self.predicted, strict=True))
        )
        return "\n".join(lines)


def manipulate(
    model: LatentModel,
    navigator: Navigator,
    oracle: Oracle,
    *,
    epsilon: float,
    start: int | Sequence[str] | Float[Tensor, "n d"] = 1000,
    steps: int = 9,
    seed: int = 0,
    prior: Prior = "model",
    gamma: float = GAMMA,
    distinct: int = 3,
    surrogate: Surrogate | None = None,
    batch: int = 256,
    workers: int = 1,
    folder: str | Path | None = None,
    trajectories: bool = False,
    device: str | torch.device = "cpu",
    group: dist.ProcessGroup | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Manipulation:
    """Walks and asks whether the property changed steadily. Strict success implies relaxed.

    Similarity is to what the first code decodes to, x₁ of the paper: a path is judged by itself.

    Args:
        epsilon: ε of relaxed success, in units of the property: `tolerance` of the training data.
        steps: One fewer than the molecules of a path; the paper's paths have ten.
        others: As of `optimize`.
    """
    if trajectories and folder is None:
        raise ValueError("trajectories need a folder")
    starts = Starts(model, start, seed, prior, device)
    surrogates: Mapping[str, Surrogate] = {} if surrogate is None else {oracle.name: surrogate}
    settings: Json = {
        "task": "manipulate",
        "version": version("chemflow"),
        "rdkit": version("rdkit"),
        "model": fingerprint(model),
        "navigator": fingerprint(navigator),
        "surrogates": {name: fingerprint(one) for name, one in surrogates.items()},
        "property": fingerprint(oracle),
        "start": [starts.kind, starts.size, digest(start)],
        "seed": seed,
        "steps": steps,
        "epsilon": epsilon,
        "gamma": gamma,
        "distinct": distinct,
        "batch": batch,
        "trajectories": trajectories,
    }
    run = Run(settings, folder, group)
    share = len(run.share(starts.size, batch))
    done = [0]

    with Scorer([oracle], workers) as scorer:

        def work(number: int, first: int, stop: int) -> Json:
            before = (scorer.asked, scorer.invalid, scorer.evaluated, navigator.oracle_calls)
            begun = starts.batch(first, stop)
            path = Path(folder or ".") / f"trajectories-{number:06d}.jsonl"
            names, values, guesses, similar = [], [], [], []
            with Writer.maybe(path if trajectories else None, scorer.names) as writer:
                for step in walk(model, navigator, begun, steps, scorer, surrogates):
                    scored = step.scored
                    origin = scored if step.t == 0 else origin
                    near = tanimoto(scored.fingerprints, origin.fingerprints)
                    near = np.where(scored.valid & origin.valid, near, np.nan)
                    names.append(scored.canonical)
                    values.append(scored.values[:, 0])
                    guesses.append(step.predicted[:, 0])
                    similar.append(near)
                    if writer is not None:
                        writer.write(begun, step, near)
                    if progress is not None:
                        progress(done[0] * (steps + 1) + step.t + 1, share * (steps + 1))
            after = (scorer.asked, scorer.invalid, scorer.evaluated, navigator.oracle_calls)
            kinds = ("asked", "invalid", "evaluated", "navigator")
            return {
                "lost": [list(one) for one in begun.lost],
                "calls": {name: b - a for name, a, b in zip(kinds, before, after, strict=True)},
                "records": _records(begun.rows, names, values, similar, guesses),
            }

        def finished(batches: int, _of: int) -> None:
            done[0] = batches

        parts = run.batches(starts.size, batch, work, finished)
    return _merge(parts, settings, starts.size, oracle.maximise)


def _records(
    rows: Sequence[int], names: Sequence[Sequence[str]], values: Sequence[Any],
    similar: Sequence[Any], guesses: Sequence[Any],
) -> list[Json]:  # fmt: skip
    def clean(series: Sequence[Any], row: int) -> list[float | None]:
        found = [float(one[row]) for one in series]
        return [one if np.isfinite(one) else None for one in found]

    return [
        {
            "row": number,
            "molecules": [one[row] for one in names],
            "values": clean(values, row),
            "similarity": clean(similar, row),
            "predicted": clean(guesses, row),
        }
        for row, number in enumerate(rows)
    ]


def _array(records: Sequence[Json], key: str, width: int) -> Float64[np.ndarray, "n k"]:
    rows = [[np.nan if one is None else one for one in record[key]] for record in records]
    return np.array(rows, np.float64).reshape(-1, width)


def _merge(parts: Sequence[Json], settings: Json, size: int, maximise: bool) -> Manipulation:
    records = [one for part in parts for one in part["records"]]
    width = settings["steps"] + 1
    numbers: dict[str, int] = {}
    molecules = np.array(
        [[numbers.setdefault(one, len(numbers)) for one in r["molecules"]] for r in records],
        np.int64,
    ).reshape(-1, width)
    values, similar = _array(records, "values", width), _array(records, "similarity", width)
    guesses = _array(records, "predicted", width)
    asked = {"maximise": maximise, "distinct": settings["distinct"]}
    strict = success(values, similar, molecules, **asked)
    relaxed = success(
        values, similar, molecules, epsilon=settings["epsilon"], gamma=settings["gamma"], **asked
    )
    for record, a, b in zip(records, strict.success, relaxed.success, strict=True):
        record |= {"strict": bool(a), "relaxed": bool(b)}
    lost = tuple((row, smiles, why) for part in parts for row, smiles, why in part["lost"])
    shares = {"no code": len(lost)}
    for name in ("invalid", "property", "similarity", "diversity"):
        shares[name] = int(getattr(strict, name).sum())
    return Manipulation(
        settings=settings,
        size=size,
        lost=lost,
        strict=wilson(int(strict.success.sum()), size),
        relaxed=wilson(int(relaxed.success.sum()), size),
        failures={name: count / size if size else 0.0 for name, count in shares.items()},
        mean=_means(values),
        predicted=_means(guesses),
        calls={
            key: sum(part["calls"][key] for part in parts)
            for key in ("asked", "invalid", "evaluated", "navigator")
        },
        records=tuple(records),
    )


def _means(values: Float64[np.ndarray, "n k"]) -> tuple[float, ...]:
    count = np.isfinite(values).sum(0)
    total = np.nansum(values, 0)
    return tuple(float(a / b) if b else float("nan") for a, b in zip(total, count, strict=True))
