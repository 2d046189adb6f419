"""What the metrics of whole sets need to know of each molecule, in parallel."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Float64, UInt8
from rdkit import Chem
from rdkit.Chem import BRICS, rdFingerprintGenerator, rdMolDescriptors
from rdkit.Chem.GraphDescriptors import BertzCT
from rdkit.Chem.Scaffolds import MurckoScaffold
from rdkit.DataStructs import BitVectToBinaryText

from chemflow.oracles import logp, qed, sa
from chemflow.pool import Pool
from chemflow.standardise import Mol, MoleculeError, parse

BITS = 1024
"""Of the Morgan fingerprints of MOSES."""

CONTINUOUS: dict[str, Callable[[Mol], float]] = {
    "BertzCT": BertzCT,
    "MolLogP": logp,
    "MolWt": rdMolDescriptors._CalcMolWt,
    "TPSA": rdMolDescriptors.CalcTPSA,
}
DISCRETE: dict[str, Callable[[Mol], float]] = {
    "NumHAcceptors": rdMolDescriptors.CalcNumHBA,
    "NumHDonors": rdMolDescriptors.CalcNumHBD,
    "NumRotatableBonds": rdMolDescriptors.CalcNumRotatableBonds,
    "NumAliphaticRings": rdMolDescriptors.CalcNumAliphaticRings,
    "NumAromaticRings": rdMolDescriptors.CalcNumAromaticRings,
}
"""Descriptors of GuacaMol's divergence."""

PROPERTIES: dict[str, Callable[[Mol], float]] = {
    "logP": logp, "SA": sa, "QED": qed, "weight": rdMolDescriptors._CalcMolWt,
}  # fmt: skip
"""Properties of which MOSES compares the distributions."""


@dataclass(frozen=True)
class Described:
    """Valid molecules of a set, in its order, and how many there were in all.

    Attributes:
        asked: Strings that were given.
        canonical: SMILES of those that are molecules.
        fingerprints: Morgan, radius 2, 1024 bits, packed (n, 128).
        fragments: BRICS fragments of each.
        scaffolds: Murcko scaffold of each; "" with fewer than two rings.
        values: Columns by name, of `PROPERTIES`, `CONTINUOUS` and `DISCRETE`.
        clean: Whether it matches no structural alert.
    """

    asked: int
    canonical: list[str]
    fingerprints: UInt8[np.ndarray, "n 128"]
    fragments: list[list[str]]
    scaffolds: list[str]
    values: dict[str, Float64[np.ndarray, " n"]] = field(repr=False)
    clean: list[bool]

    def __len__(self) -> int:
        return len(self.canonical)


@cache
def _alerts() -> Any:
    from rdkit.Chem import FilterCatalog

    wanted = FilterCatalog.FilterCatalogParams()
    wanted.AddCatalog(FilterCatalog.FilterCatalogParams.FilterCatalogs.PAINS)
    return FilterCatalog.FilterCatalog(wanted)


@cache
def _patterns(smarts: tuple[str, ...]) -> list[Mol]:
    made = []
    for one in smarts:
        pattern = Chem.MolFromSmarts(one)
        if pattern is None:
            raise ValueError(f"filters must be SMARTS, got {one!r}")
        made.append(pattern)
    return made


@cache
def _generator() -> Any:
    return rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=BITS)


@dataclass(frozen=True)
class _Describe:
    filters: tuple[str, ...]

    def __call__(self, piece: list[str]) -> list[tuple[Any, ...] | None]:
        return [self._one(smiles) for smiles in piece]

    def _one(self, smiles: str) -> tuple[Any, ...] | None:
        try:
            mol = parse(smiles)
        except MoleculeError:
            return None
        values = {
            name: float(function(mol))
            for name, function in (PROPERTIES | CONTINUOUS | DISCRETE).items()
        }
        dirty = _alerts().HasMatch(mol) or any(
            mol.HasSubstructMatch(one) for one in _patterns(self.filters)
        )
        return (
            Chem.MolToSmiles(mol),
            BitVectToBinaryText(_generator().GetFingerprint(mol)),
            Chem.MolToSmiles(BRICS.BreakBRICSBonds(mol)).split("."),
            scaffold(mol),
            values,
            not dirty,
        )


def scaffold(mol: Mol) -> str:
    """The Murcko scaffold, "" if it has fewer than two rings, as MOSES counts them."""
    found = MurckoScaffold.GetScaffoldForMol(mol)
    return Chem.MolToSmiles(found) if found.GetRingInfo().NumRings() >= 2 else ""


def describe(smiles: Sequence[str], *, filters: Iterable[str] = (), workers: int = 1) -> Described:
    """Parses and describes; `filters` are SMARTS beside RDKit's PAINS alerts."""
    size = 500
    pieces = (list(smiles[start : start + size]) for start in range(0, len(smiles), size))
    with Pool(workers) as pool:
        work = _Describe(tuple(filters))
        rows = [row for piece in pool.map(work, pieces) for row in piece if row is not None]
    packed = np.frombuffer(b"".join(row[1] for row in rows), np.uint8).reshape(-1, BITS // 8)
    names = (*PROPERTIES, *CONTINUOUS, *DISCRETE)
    return Described(
        len(smiles),
        [row[0] for row in rows],
        packed,
        [row[2] for row in rows],
        [row[3] for row in rows],
        {name: np.array([row[4][name] for row in rows], np.float64) for name in names},
        [row[5] for row in rows],
    )
