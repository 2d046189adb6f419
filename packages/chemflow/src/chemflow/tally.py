"""What is kept of a batch's walk: sums by step, the best of each row, and the best of all.

Its size depends on the number of rows and on the length of the walk, never on their product.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt8

from chemflow.candidates import Best, Candidate, Front
from chemflow.objective import Objective
from chemflow.oracles import Oracle
from chemflow.runs import Json, plain
from chemflow.scoring import Scored, tanimoto
from chemflow.starts import Start
from chemflow.walk import Step

THRESHOLDS = (0.0, 0.2, 0.4, 0.6)
"""Similarities δ of the paper's constrained task."""


class Reference:
    """What improvements are measured from: the true input molecules, or what the start decodes to.

    `gains[d, c]` is the best improvement so far at the threshold d in the column c: each property
    in its own units and direction, and last the objective. None yet is 0.
    """

    def __init__(
        self, scored: Scored, score: Float64[np.ndarray, " b"],
        signs: Float64[np.ndarray, " c"], thresholds: Sequence[float],
    ) -> None:  # fmt: skip
        self.fingerprints: UInt8[np.ndarray, "b bytes"] = scored.fingerprints
        self.valid: Bool[np.ndarray, " b"] = scored.valid
        self.signs = signs
        self.values = np.column_stack((scored.values, score))
        self.thresholds = np.array(thresholds)
        shape = (len(self.thresholds), self.values.shape[1], len(score))
        self.gains: Float64[np.ndarray, "d c b"] = np.zeros(shape)
        self.steps: Int64[np.ndarray, "d c b"] = np.full(shape, -1)
        self.found: dict[tuple[int, int, int], str] = {}
        self.curve: list[Any] = []

    def similarity(self, step: Step) -> Float64[np.ndarray, " b"]:
        """Of what the step decodes to; NaN where one of the two is no molecule."""
        similar = tanimoto(step.scored.fingerprints, self.fingerprints)
        return np.where(step.scored.valid & self.valid, similar, np.nan)

    def see(self, step: Step, score: Float64[np.ndarray, " b"]) -> None:
        """A step after the start. What is no molecule improves nothing."""
        if step.t:
            values = np.column_stack((step.scored.values, score))
            gain = (self.signs * (values - self.values)).T
            near = self.similarity(step) >= self.thresholds[:, None]
            better = near[:, None, :] & (gain > self.gains)
            self.gains = np.where(better, gain, self.gains)
            self.steps = np.where(better, step.t, self.steps)
            for d, c, row in np.argwhere(better).tolist():
                self.found[d, c, row] = step.scored.canonical[row]
        self.curve.append(self.gains.sum(-1).tolist())

    def to_json(self) -> Json:
        """Sums for means and deviations over the successful rows, and the curve of means."""
        won = self.gains > 0
        return {
            "success": won.sum(-1).tolist(),
            "sum": self.gains.sum(-1).tolist(),
            "squares": (self.gains**2).sum(-1).tolist(),
            "curve": self.curve,
        }


class Tally:
    """Follows one batch."""

    def __init__(
        self,
        objective: Objective,
        start: Start,
        inputs: Scored | None,
        *,
        oracles: Sequence[Oracle],
        seed: int,
        top: int,
        thresholds: Sequence[float],
        snapshots: Sequence[int],
    ) -> None:
        self.objective = objective
        self.count = len(objective.oracles)
        self.start = start
        self.names = tuple(oracle.name for oracle in oracles)
        self.signs = np.array([*(1.0 if one.maximise else -1.0 for one in oracles), 1.0])
        self.seed = seed
        self.thresholds = tuple(thresholds)
        self.snapshots = frozenset(snapshots)
        self.inputs = inputs
        self.references: dict[str, Reference] = {}
        self.best, self.last = Best(top), Best(top)
        self.front = Front(self.names[: self.count], objective.signs)
        self.rows: list[Json] = []
        self.steps: list[Json] = []
        self.kept: dict[int, Any] = {}
        self._first_score: Float64[np.ndarray, " b"] | None = None
        self._best_score = np.full(len(start.rows), -np.inf)
        self._best: list[Json | None] = [None] * len(start.rows)

    def _score(self, scored: Scored) -> Float64[np.ndarray, " b"]:
        return self.objective.score(scored.values[:, : self.count])

    def see(self, step: Step, length: int) -> Float64[np.ndarray, " b"]:
        """A step; `length` is the number of the last. Returns similarities to the reference."""
        score = self._score(step.scored)
        if self._first_score is None:
            self._first_score = score
            if self.inputs is not None:
                self._refer("input", self.inputs)
            self._refer("start", step.scored)
        for reference in self.references.values():
            reference.see(step, score)
        main = next(iter(self.references.values()))
        similar = main.similarity(step)
        self._sums(step, score)
        if step.t in self.snapshots:
            self.kept[step.t] = plain(step.scored.values.T)

        defined = np.nan_to_num(score, nan=-np.inf)
        improved = defined > self._best_score
        self._best_score = np.maximum(self._best_score, defined)
        for row in np.flatnonzero(improved).tolist():
            self._best[row] = self._candidate(step, row, score, similar).to_json()
        reach = np.flatnonzero(np.isfinite(defined) & (defined >= self.best.bar)).tolist()
        self.best.add(self._candidate(step, row, score, similar) for row in reach)
        if step.t == length:
            finite = np.flatnonzero(np.isfinite(defined)).tolist()
            self.last.add(self._candidate(step, row, score, similar) for row in finite)
        if self.count > 1:
            worth = self.front.worth(step.scored.values[:, : self.count])
            worth &= np.isfinite(score)
            self.front.add(
                self._candidate(step, row, score, similar) for row in np.flatnonzero(worth).tolist()
            )
        if step.t == length:
            self._close(step, score, similar)
        return similar

    def _refer(self, name: str, scored: Scored) -> None:
        self.references[name] = Reference(scored, self._score(scored), self.signs, self.thresholds)

    def _sums(self, step: Step, score: Float64[np.ndarray, " b"]) -> None:
        """What means over all rows are made of."""
        values = np.column_stack((step.scored.values, score))
        first = self._first_score if self._first_score is not None else score
        guessed = np.isfinite(step.predicted)
        both = guessed & np.isfinite(step.scored.values)
        self.steps.append(
            {
                "valid": int(step.scored.valid.sum()),
                "defined": np.isfinite(values).sum(0).tolist(),
                "sum": np.nansum(values, 0).tolist(),
                "squares": np.nansum(values**2, 0).tolist(),
                "guessed": guessed.sum(0).tolist(),
                "predicted": np.where(guessed, step.predicted, 0.0).sum(0).tolist(),
                "error": np.where(both, np.abs(step.predicted - step.scored.values), 0.0)
                .sum(0)
                .tolist(),
                "compared": both.sum(0).tolist(),
                "improved": int((score > first).sum()),
                "norm": float(step.z.double().norm(dim=-1).sum()),
            }
        )

    def _candidate(
        self, step: Step, row: int, score: Float64[np.ndarray, " b"],
        similar: Float64[np.ndarray, " b"],
    ) -> Candidate:  # fmt: skip
        guessed = {
            name: (mean, std)
            for name, mean, std in zip(
                self.names, step.predicted[row].tolist(), step.std[row].tolist(), strict=True
            )
            if math.isfinite(mean)
        }
        return Candidate(
            step.scored.canonical[row],
            float(score[row]),
            dict(zip(self.names, step.scored.values[row].tolist(), strict=True)),
            self.seed,
            self.start.rows[row],
            step.t,
            {name: mean for name, (mean, _) in guessed.items()},
            {name: std for name, (_, std) in guessed.items()},
            float(similar[row]),
            self.start.inputs[row],
        )

    def _close(
        self, step: Step, score: Float64[np.ndarray, " b"], similar: Float64[np.ndarray, " b"]
    ) -> None:
        reference = next(iter(self.references.values()))
        columns = (*self.names, "objective")
        for row, number in enumerate(self.start.rows):
            valid = bool(step.scored.canonical[row]) and math.isfinite(score[row])
            self.rows.append(
                {
                    "row": number,
                    "input": self.start.inputs[row],
                    "before": plain(reference.values[row]),
                    "best": self._best[row],
                    "last": self._candidate(step, row, score, similar).to_json() if valid else None,
                    "improvement": {
                        f"{threshold:g}": {
                            column: {
                                "gain": float(reference.gains[d, c, row]),
                                "step": int(reference.steps[d, c, row]),
                                "smiles": reference.found.get((d, c, row), ""),
                            }
                            for c, column in enumerate(columns)
                        }
                        for d, threshold in enumerate(self.thresholds)
                    },
                }
            )

    def to_json(self, keep_rows: bool) -> Json:
        """Everything, in plain values."""
        return {
            "rows": len(self.start.rows),
            "lost": [list(one) for one in self.start.lost],
            "steps": self.steps,
            "references": {name: one.to_json() for name, one in self.references.items()},
            "best": [one.to_json() for one in self.best.list()],
            "last": [one.to_json() for one in self.last.list()],
            "front": [one.to_json() for one in self.front.list()],
            "snapshots": {str(t): values for t, values in self.kept.items()},
            "records": self.rows if keep_rows else [],
        }
