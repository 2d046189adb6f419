"""Trajectories: every step of every row, as lines of JSON, and as SDF for other programs."""

import json
import math
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from jaxtyping import Float64
from rdkit import Chem
from rdkit.Chem import rdDepictor

from chemflow.files import WRONG, reason
from chemflow.starts import Start
from chemflow.walk import Step


@dataclass(frozen=True)
class Point:
    """One row after one step.

    Attributes:
        smiles: As decoded; `canonical` is "" where that is no molecule.
        values: By the oracles; NaN where there is none.
        predicted: By the surrogates.
        similarity: To the molecule that the row started from; NaN if there is none.
        norm: Length of the code.
    """

    row: int
    step: int
    smiles: str
    canonical: str
    values: dict[str, float]
    predicted: dict[str, float]
    similarity: float
    norm: float


def _numbers(values: dict[str, float]) -> dict[str, float | None]:
    return {name: one if math.isfinite(one) else None for name, one in values.items()}


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


class Writer:
    """Writes a batch's steps as they come. Whole or absent: `close` puts the file in its place."""

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.names = tuple(names)
        self._part = path.with_name(f".{path.name}.part")
        self._file: IO[str] = self._part.open("w", encoding="utf-8")

    def write(self, start: Start, step: Step, similar: Float64[np.ndarray, " b"]) -> None:
        """All rows after one step."""
        norms = step.z.double().norm(dim=-1).tolist()
        for row, number in enumerate(start.rows):
            values = dict(zip(self.names, step.scored.values[row].tolist(), strict=True))
            predicted = dict(zip(self.names, step.predicted[row].tolist(), strict=True))
            told: dict[str, Any] = {
                "row": number,
                "step": step.t,
                "smiles": step.smiles[row],
                "canonical": step.scored.canonical[row],
                "values": _numbers(values),
                "predicted": {k: v for k, v in predicted.items() if math.isfinite(v)},
                "similarity": float(similar[row]) if math.isfinite(similar[row]) else None,
                "norm": norms[row],
            }
            self._file.write(json.dumps(told, allow_nan=False) + "\n")

    @classmethod
    @contextmanager
    def maybe(cls, path: Path | None, names: Sequence[str]) -> "Generator[Writer | None]":
        """A writer, or none without a path; an error on the way leaves no file."""
        if path is None:
            yield None
            return
        writer = cls(path, names)
        try:
            yield writer
        except BaseException:
            writer.abandon()
            raise
        writer.close()

    def close(self) -> None:
        """The file is whole."""
        self._file.close()
        self._part.replace(self.path)

    def abandon(self) -> None:
        """It is not, and goes."""
        self._file.close()
        self._part.unlink(missing_ok=True)


def read(*paths: str | Path) -> Iterator[Point]:
    """The points of trajectory files, one file after another.

    Raises ValueError naming the file and the line of what is no point.
    """
    for path in paths:
        with Path(path).open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    told = json.loads(line)
                    yield Point(
                        int(told["row"]),
                        int(told["step"]),
                        str(told["smiles"]),
                        str(told["canonical"]),
                        {name: _number(one) for name, one in told["values"].items()},
                        {name: _number(one) for name, one in told["predicted"].items()},
                        _number(told["similarity"]),
                        _number(told["norm"]),
                    )
                except WRONG as error:
                    told = f"{path}: line {number} is no step: {reason(error)}"
                    raise ValueError(told) from None


def write_sdf(path: str | Path, points: Iterable[Point], properties: bool = True) -> int:
    """Valid steps as an SDF with depiction coordinates; returns their number.

    Row, step, similarity, values and predictions are its properties.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    written = 0
    writer = Chem.SDWriter(str(part))
    try:
        for point in points:
            if not point.canonical:
                continue
            mol = Chem.MolFromSmiles(point.canonical)
            rdDepictor.Compute2DCoords(mol)
            mol.SetProp("_Name", f"row {point.row} step {point.step}")
            if properties:
                told: dict[str, float | int | str] = {"row": point.row, "step": point.step}
                told |= {name: one for name, one in point.values.items() if math.isfinite(one)}
                told |= {f"predicted {name}": one for name, one in point.predicted.items()}
                if math.isfinite(point.similarity):
                    told["similarity"] = point.similarity
                told["SMILES"] = point.canonical
                for name, value in told.items():
                    mol.SetProp(name, str(value))
            writer.write(mol)
            written += 1
    finally:
        writer.close()
    part.replace(path)
    return written
