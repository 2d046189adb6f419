"""Molecules that were found: where each comes from, the best of them, and a Pareto front.

Molecules are told apart by their canonical SMILES, so that the best three are three molecules.
"""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64


def _none(value: float) -> float | None:
    return None if math.isnan(value) else value


def _nan(value: float | None) -> float:
    return math.nan if value is None else value


@dataclass(frozen=True)
class Candidate:
    """One molecule with its provenance: seed, row and step lead back to its code.

    Attributes:
        smiles: Canonical.
        score: Of the objective, by the oracles.
        values: Of each property, by the oracle.
        predicted, std: By the surrogate, where there is one: what the navigator believed.
        similarity: Tanimoto to the molecule that the row started from; NaN if there is none.
        start: Canonical SMILES of that molecule, or "" for a code of the prior.
    """

    smiles: str
    score: float
    values: dict[str, float]
    seed: int
    row: int
    step: int
    predicted: dict[str, float] = field(default_factory=dict)
    std: dict[str, float] = field(default_factory=dict)
    similarity: float = math.nan
    start: str = ""

    def to_json(self) -> dict[str, Any]:
        """As plain values; None for NaN."""
        told = asdict(self)
        told["similarity"] = _none(self.similarity)
        told["values"] = {name: _none(value) for name, value in self.values.items()}
        return told

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> "Candidate":
        """The inverse of `to_json`."""
        plain = dict(told)
        plain["similarity"] = _nan(told["similarity"])
        plain["values"] = {name: _nan(value) for name, value in told["values"].items()}
        return cls(**plain)


def _order(one: Candidate) -> tuple[float, int, int, int, str]:
    """Best first; among equals the earliest, so that the order of finding does not matter."""
    return (-one.score, one.seed, one.row, one.step, one.smiles)


class Best:
    """The `size` best different molecules of any number."""

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError(f"size must be at least 1, got {size}")
        self.size = size
        self._found: dict[str, Candidate] = {}
        self.bar = -math.inf
        """What a molecule must reach to come into question."""

    def add(self, candidates: Iterable[Candidate]) -> None:
        """Takes those that are good enough. One with the score NaN never is."""
        for one in candidates:
            known = self._found.get(one.smiles)
            if one.score >= self.bar and (known is None or _order(one) < _order(known)):
                self._found[one.smiles] = one
        if len(self._found) > 4 * self.size:
            self._found = {one.smiles: one for one in self.list()}
            self.bar = min(one.score for one in self._found.values())

    def list(self) -> list[Candidate]:
        """Best first."""
        return sorted(self._found.values(), key=_order)[: self.size]


def undominated(points: Float64[np.ndarray, "n k"]) -> Bool[np.ndarray, " n"]:
    """Which points no other is at least as good as in all coordinates and better in one.

    More is better. Equal points are all kept.
    """
    keep = np.ones(len(points), bool)
    for place, point in enumerate(points):
        if keep[place]:
            worse = (points <= point).all(-1) & (points < point).any(-1)
            keep &= ~worse
    return keep


class Front:
    """The Pareto front of different molecules; `signs` says which properties are maximised."""

    def __init__(self, names: tuple[str, ...], signs: Float64[np.ndarray, " k"]) -> None:
        self.names = names
        self.signs = signs
        self._found: dict[str, Candidate] = {}

    def _points(self, candidates: Iterable[Candidate]) -> Float64[np.ndarray, "n k"]:
        rows = [[one.values[name] for name in self.names] for one in candidates]
        return self.signs * np.array(rows, np.float64).reshape(-1, len(self.names))

    def add(self, candidates: Iterable[Candidate]) -> None:
        """Takes those that nothing dominates, and drops what they dominate."""
        for one in candidates:
            known = self._found.get(one.smiles)
            if known is None or _order(one) < _order(known):
                self._found[one.smiles] = one
        found = list(self._found.values())
        keep = undominated(self._points(found))
        self._found = {one.smiles: one for one, kept in zip(found, keep, strict=True) if kept}

    def worth(self, values: Float64[np.ndarray, "n k"]) -> Bool[np.ndarray, " n"]:
        """Which rows of values no molecule of the front dominates; NaN is never worth it."""
        good = np.isfinite(values).all(-1)
        for point in self._points(self._found.values()):
            good = good & ~(self.signs * values <= point).all(-1)
        return np.asarray(good)

    def list(self) -> list[Candidate]:
        """By the first property, best first."""
        return sorted(
            self._found.values(),
            key=lambda one: (-self.signs[0] * one.values[self.names[0]], *_order(one)),
        )
