"""Properties of molecules as RDKit computes them: QED, SA, logP, plogP, similarity, MPO.

An oracle scores molecules, in the units of the property. What is no molecule has no value: NaN,
and whoever asks counts it.
"""

import importlib.util
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64
from rdkit import Chem, RDConfig
from rdkit.Chem import rdFingerprintGenerator, rdMolDescriptors
from rdkit.DataStructs import ExplicitBitVect, TanimotoSimilarity

from chemflow.standardise import Mol, MoleculeError, parse

Cycles = Literal["basis", "sssr"]
Convention = Literal["normalised", "raw", "count"]


@runtime_checkable
class Oracle(Protocol):
    """What scores molecules. Picklable, where more than one process is to score."""

    @property
    def name(self) -> str: ...
    @property
    def maximise(self) -> bool:
        """Whether more is better; synthetic accessibility and docking scores are minimised."""
        ...

    @property
    def spelling(self) -> bool:
        """Whether the value depends on the order of atoms, and thus on how a SMILES is written.

        Such an oracle is asked for the canonical spelling, so that a molecule has one value.
        """
        ...

    def values(self, mols: Sequence[Mol]) -> Float64[np.ndarray, " n"]:
        """One value for each molecule, all of which have atoms."""
        ...


@dataclass(frozen=True)
class Property:
    """An oracle of one function of one molecule.

    `Property("weight", Descriptors.MolWt)(["CCO", "C1"])` is `[46.069, nan]`.
    """

    name: str
    function: Callable[[Mol], float]
    maximise: bool = True
    spelling: bool = False

    def values(self, mols: Sequence[Mol]) -> Float64[np.ndarray, " n"]:
        """The function of each. An error of the function's says of which molecule."""
        return np.array([self._one(mol) for mol in mols], np.float64)

    def _one(self, mol: Mol) -> float:
        try:
            return float(self.function(mol))
        except Exception as error:
            error.add_note(f"while {self.name} was scoring {Chem.MolToSmiles(mol)}")
            raise

    def __call__(self, smiles: Sequence[str]) -> Float64[np.ndarray, " n"]:
        """Of SMILES as they are spelt; NaN for what is no molecule."""
        return score(self, smiles)


def score(oracle: Oracle, smiles: Sequence[str]) -> Float64[np.ndarray, " n"]:
    """Values of SMILES as they are spelt; NaN for what is no molecule, "" included."""
    out = np.full(len(smiles), np.nan)
    mols, places = [], []
    for place, one in enumerate(smiles):
        try:
            mols.append(parse(one))
        except MoleculeError:
            continue
        places.append(place)
    if mols:
        out[places] = oracle.values(mols)
    return out


def logp(mol: Mol) -> float:
    """Crippen's logarithm of the octanol-water partition coefficient."""
    return rdMolDescriptors.CalcCrippenDescriptors(mol)[0]


def qed(mol: Mol) -> float:
    """Quantitative estimate of drug-likeness, in 0 … 1, with RDKit's default weights.

    Equivalent to `rdkit.Chem.QED.qed`.
    """
    rdkit_qed = import_module("rdkit.Chem.QED")
    # RDKit copies the molecule to take explicit hydrogens from it, and so computes its Crippen
    # contributions anew. Without such atoms the molecule itself will do.
    if any(atom.GetAtomicNum() == 1 for atom in mol.GetAtoms()):
        return float(rdkit_qed.qed(mol))
    return float(rdkit_qed.qed(mol, qedProperties=_qed_properties(mol, rdkit_qed)))


def _qed_properties(mol: Mol, rdkit_qed: Any) -> Any:
    strict = rdMolDescriptors.NumRotatableBondsOptions.Strict
    return rdkit_qed.QEDproperties(
        MW=rdMolDescriptors._CalcMolWt(mol),
        ALOGP=logp(mol),
        HBA=sum(len(mol.GetSubstructMatches(one)) for one in rdkit_qed.Acceptors),
        HBD=rdMolDescriptors.CalcNumHBD(mol),
        PSA=rdMolDescriptors.CalcTPSA(mol),
        ROTB=rdMolDescriptors.CalcNumRotatableBonds(mol, strict),
        AROM=len(Chem.GetSSSR(Chem.DeleteSubstructs(Chem.Mol(mol), rdkit_qed.AliphaticRings))),
        ALERTS=sum(mol.HasSubstructMatch(one) for one in rdkit_qed.StructuralAlerts),
    )


@cache
def _sascorer() -> Any:
    """RDKit's contributed scorer, by its file: its folder is no package."""
    path = Path(RDConfig.RDContribDir, "SA_Score", "sascorer.py")
    spec = importlib.util.spec_from_file_location("chemflow._sascorer", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ImportError(f"this RDKit has no {path}: install rdkit from its wheel")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def sa(mol: Mol) -> float:
    """Synthetic accessibility of Ertl and Schuffenhauer (2009), 1 easy … 10 hard."""
    return float(_sascorer().calculateScore(mol))


def longest_cycle(mol: Mol, cycles: Cycles = "basis") -> int:
    """Atoms in the longest ring, 0 without rings.

    Of RDKit's smallest set of smallest rings ("sssr"), or of a basis of cycles of the molecular
    graph as networkx finds it ("basis"). The latter depends on the order of the atoms, and has
    longer cycles in bridged molecules: 0.45 % of ZINC250k differ.
    """
    if cycles == "sssr":
        return max(map(len, mol.GetRingInfo().AtomRings()), default=0)
    if cycles != "basis":
        raise ValueError(f"cycles must be 'basis' or 'sssr', got {cycles!r}")
    if not mol.GetRingInfo().NumRings():
        return 0
    from networkx import Graph, cycle_basis

    graph = Graph()
    graph.add_nodes_from(range(mol.GetNumAtoms()))
    # In the order of the adjacency matrix, on which the basis depends.
    graph.add_edges_from(
        sorted(
            tuple(sorted((bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()))) for bond in mol.GetBonds()
        )
    )
    return max(map(len, cycle_basis(graph)), default=0)


NORMALISATION = {
    "logP": (2.4570953396190123, 1.434324401111988),
    "-SA": (-3.0525811293166134, 0.8335207024513095),
    "-ring": (-0.0485696876403053, 0.2860212110245455),
}
"""Mean and standard deviation over ZINC250k, the latter's rings by "basis" (MARS, GCPN, TDC)."""


def penalised_logp(
    mol: Mol, convention: Convention = "normalised", cycles: Cycles = "basis"
) -> float:
    """logP less synthetic accessibility less a penalty of large rings, in one of three ways.

    "normalised" (GCPN, HierVAE, MARS, ChemFlow): the three as z-scores of ZINC250k, the penalty
    max(longest cycle - 6, 0). "raw" (MolDQN): the same without normalisation. "count" (LIMO):
    raw, with the number of rings of more than six atoms (always by SSSR).
    """
    if convention == "count":
        return logp(mol) - sa(mol) - sum(len(ring) > 6 for ring in mol.GetRingInfo().AtomRings())
    parts = {
        "logP": logp(mol),
        "-SA": -sa(mol),
        "-ring": -float(max(longest_cycle(mol, cycles) - 6, 0)),
    }
    if convention == "raw":
        return sum(parts.values())
    if convention != "normalised":
        raise ValueError(f"convention must be normalised, raw or count, got {convention!r}")
    return sum((parts[name] - mean) / sd for name, (mean, sd) in NORMALISATION.items())


def plogp(convention: Convention = "normalised", cycles: Cycles = "basis") -> Property:
    """The oracle `penalised_logp`. A sanity check, no aim: long chains of carbon win it."""
    if convention not in ("normalised", "raw", "count") or cycles not in ("basis", "sssr"):
        raise ValueError(
            "convention must be normalised, raw or count and cycles basis or sssr, "
            f"got {convention!r} and {cycles!r}"
        )
    by_order = cycles == "basis" and convention != "count"
    name = f"plogp-{convention}" + (f"-{cycles}" if convention != "count" else "")
    function = partial(penalised_logp, convention=convention, cycles=cycles)
    return Property(name, function, spelling=by_order)


def logp_minus_sa(mol: Mol) -> float:
    """logP - SA: plogP without the cliff of its rings."""
    return logp(mol) - sa(mol)


QED = Property("qed", qed)
"""Drug-likeness, 0 … 1."""
SA = Property("sa", sa, maximise=False)
"""Synthetic accessibility, 1 (easy) … 10."""
LOGP = Property("logp", logp)
"""Crippen's estimate of log P."""
LOGP_MINUS_SA = Property("logp-sa", logp_minus_sa)
"""log P - SA."""


@cache
def _morgan(radius: int, bits: int) -> Any:
    return rdFingerprintGenerator.GetMorganGenerator(radius=radius, fpSize=bits)


def fingerprint(mol: Mol, radius: int = 2, bits: int = 2048) -> ExplicitBitVect:
    """Morgan's, folded to `bits`."""
    return _morgan(radius, bits).GetFingerprint(mol)


@dataclass(frozen=True)
class Similarity:
    """Tanimoto similarity of Morgan fingerprints (radius 2, 2048 bits) to a query, in 0 … 1.

    With a `cap` below 1, similarity over `cap`, at most 1: GuacaMol's rediscovery and similarity
    tasks. Raises ValueError for a query that is no molecule.
    """

    query: str
    cap: float = 1.0
    maximise: bool = True
    spelling: bool = False

    def __post_init__(self) -> None:
        parse(self.query)
        if not 0 < self.cap <= 1:
            raise ValueError(f"cap must be in 0 … 1 and not 0, got {self.cap}")

    @property
    def name(self) -> str:
        """With the query in it."""
        return f"similarity({self.query})"

    def values(self, mols: Sequence[Mol]) -> Float64[np.ndarray, " n"]:
        """Of each molecule to the query."""
        query = fingerprint(parse(self.query))
        found = [TanimotoSimilarity(query, fingerprint(mol)) for mol in mols]
        return np.minimum(np.array(found, np.float64) / self.cap, 1.0)

    def __call__(self, smiles: Sequence[str]) -> Float64[np.ndarray, " n"]:
        """Of SMILES; NaN for what is no molecule."""
        return score(self, smiles)


@dataclass(frozen=True)
class Desirability:
    """How much a value is wanted, from 0 (not) to 1 (fully), straight in between.

    `Desirability(QED, low=0.4, high=0.8)` rises. With `low > high` it falls: 1 up to `high`, 0
    from `low`.
    """

    oracle: Oracle
    low: float
    high: float
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.low == self.high or not (math.isfinite(self.low) and math.isfinite(self.high)):
            raise ValueError(f"low and high must be finite and differ, got {self.low}, {self.high}")
        if not self.weight > 0:
            raise ValueError(f"weight must be positive, got {self.weight}")

    def of(self, values: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
        """0 … 1; NaN stays."""
        return np.clip((values - self.low) / (self.high - self.low), 0.0, 1.0)


@dataclass(frozen=True)
class MPO:
    """Several wishes at once: the weighted geometric or arithmetic mean of desirabilities, 0 … 1.

    The geometric one is 0 as soon as one wish is not met at all.
    """

    name: str
    parts: tuple[Desirability, ...]
    mean: Literal["geometric", "arithmetic"] = "geometric"
    maximise: bool = True

    def __post_init__(self) -> None:
        if not self.parts:
            raise ValueError("parts must not be empty")
        if self.mean not in ("geometric", "arithmetic"):
            raise ValueError(f"mean must be geometric or arithmetic, got {self.mean!r}")

    @property
    def spelling(self) -> bool:
        """Whether that of any part is."""
        return any(part.oracle.spelling for part in self.parts)

    def values(self, mols: Sequence[Mol]) -> Float64[np.ndarray, " n"]:
        """Of each molecule."""
        wanted = np.stack([part.of(part.oracle.values(mols)) for part in self.parts])
        weights = np.array([part.weight for part in self.parts])
        weights = weights / weights.sum()
        if self.mean == "arithmetic":
            return weights @ wanted
        with np.errstate(divide="ignore"):
            return np.exp(weights @ np.log(wanted))

    def __call__(self, smiles: Sequence[str]) -> Float64[np.ndarray, " n"]:
        """Of SMILES; NaN for what is no molecule."""
        return score(self, smiles)


def named(text: str) -> Oracle:
    """The oracle of a name, as the command reads it.

    qed, sa, logp, logp-sa, plogp, plogp-raw, plogp-count (each but the last also with -sssr at
    the end), similarity:SMILES. Raises ValueError for another.
    """
    simple: dict[str, Oracle] = {one.name: one for one in (QED, SA, LOGP, LOGP_MINUS_SA)}
    for label, convention in (("plogp", "normalised"), ("plogp-raw", "raw")):
        simple[label] = plogp(convention)
        simple[f"{label}-sssr"] = plogp(convention, "sssr")
    simple["plogp-count"] = plogp("count")
    kind, colon, rest = text.partition(":")
    if kind == "similarity" and colon:
        return Similarity(rest)
    if text not in simple:
        known = ", ".join(simple)
        raise ValueError(f"property must be one of {known}, similarity:SMILES; got {text!r}")
    return simple[text]
