"""Docking scores by AutoDock Vina: an oracle that never takes a failure for a score.

Needs the extra `docking`. What was docked is kept by InChIKey and not docked again.
"""

import hashlib
import json
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64
from rdkit import Chem
from rdkit.Chem import rdDistGeom, rdForceFieldHelpers
from rdkit.rdBase import BlockLogs

from chemflow.files import read_json, write_text
from chemflow.oracles import score
from chemflow.standardise import Mol

GAS = 0.00198720425864083
"""The gas constant in kcal/(mol K)."""


class DockingError(RuntimeError):
    """A molecule that could not be docked, or an engine that did not run."""


@dataclass(frozen=True)
class Box:
    """Where the ligand may go: centre and size in Å, in the receptor's coordinates.

    A box is prepared around a bound ligand of the crystal structure, or around the residues of
    the site, with some 4 Å to spare on each side; it must be in the frame of the PDBQT file.
    """

    centre: tuple[float, float, float]
    size: tuple[float, float, float]

    def __post_init__(self) -> None:
        if not all(math.isfinite(one) for one in self.centre) or min(self.size) <= 0:
            raise ValueError(f"box must be finite with a positive size, got {self}")


BOXES = {
    "1ERR": Box((67.275, 33.965, 76.011), (7.5, 12.0, 13.5)),
    "2IIK": Box((1.347, -7.046, -2.479), (15.75, 15.75, 13.5)),
}
"""ESR1 and ACAA1 as LIMO and ChemFlow dock them, by their PDB entries. Vina's scores are not
AutoDock-GPU's, and not to be compared with the papers' columns."""

Engine = Callable[[str, "Docking"], float]
"""From a ligand as PDBQT to a score in kcal/mol. Raises whatever goes wrong."""


@dataclass(frozen=True)
class Docking:
    """The best pose's score in kcal/mol; less is better.

    Attributes:
        receptor: A prepared receptor, a rigid PDBQT file.
        box: Where to search.
        name: Of the property.
        exhaustiveness, seed, cpu: Of Vina. One CPU and one seed give one score.
        cache: A folder for the scores, one file a molecule, apart for each receptor and setting.
            Molecules with one InChIKey (so tautomers) share a score.
        failures: "raise", or "nan" to warn and go on without a value.
        engine: What docks, `vina` if None.
    """

    receptor: str
    box: Box
    name: str = "docking"
    exhaustiveness: int = 8
    seed: int = 42
    cpu: int = 1
    cache: str | None = None
    failures: Literal["raise", "nan"] = "raise"
    engine: Engine | None = None
    maximise: bool = False
    spelling: bool = False

    def __post_init__(self) -> None:
        if not Path(self.receptor).is_file():
            raise ValueError(f"receptor must be a PDBQT file, got {self.receptor!r}")
        if self.exhaustiveness < 1 or self.cpu < 1 or self.seed < 1:
            raise ValueError(
                "exhaustiveness, cpu and seed must be at least 1 (Vina draws a seed of its own "
                f"for 0), got {self.exhaustiveness}, {self.cpu} and {self.seed}"
            )

    def values(self, mols: Sequence[Mol]) -> Float64[np.ndarray, " n"]:
        """One score each. Raises DockingError naming the molecule that could not be docked."""
        return np.array([self._one(mol) for mol in mols], np.float64)

    def __call__(self, smiles: Sequence[str]) -> Float64[np.ndarray, " n"]:
        """Of SMILES; NaN for what is no molecule."""
        return score(self, smiles)

    def _one(self, mol: Mol) -> float:
        smiles = Chem.MolToSmiles(mol)
        path = self._path(smiles)
        if path is not None and path.is_file():
            held = read_json(path, "score")["score"]
            if not isinstance(held, (int, float)):
                raise ValueError(f"{path}: score must be a number, got {held!r}")
            return float(held)
        found = self._docked(smiles)
        if path is not None and math.isfinite(found):
            write_text(path, json.dumps({"score": found, "smiles": smiles}), shared=True)
        return found

    def _docked(self, smiles: str) -> float:
        try:
            found = (self.engine or vina)(prepare(smiles, self.seed), self)
            if not math.isfinite(found):
                raise DockingError(f"the engine gave {found}")
        except ImportError:
            raise  # no failure of the molecule
        except Exception as error:
            told = f"{smiles} was not docked: {type(error).__name__}: {error}"
            if self.failures == "raise":
                raise DockingError(told) from error
            warnings.warn(told, RuntimeWarning, stacklevel=2)
            return math.nan
        return found

    def _path(self, smiles: str) -> Path | None:
        if self.cache is None:
            return None
        with BlockLogs():
            key = Chem.MolToInchiKey(Chem.MolFromSmiles(smiles))
        if not key:
            raise DockingError("it has no InChIKey")
        return Path(self.cache) / _setting(self) / f"{key}.json"


def _setting(docking: Docking) -> str:
    """A folder's name that changes with the receptor's contents and whatever changes scores."""
    told = (docking.box, docking.exhaustiveness, docking.seed, docking.cpu)
    engine = getattr(docking.engine or vina, "__qualname__", type(docking.engine).__qualname__)
    digest = hashlib.sha256(repr((told, engine)).encode())
    digest.update(_contents(docking.receptor))
    return digest.hexdigest()[:16]


@cache
def _contents(path: str) -> bytes:
    return Path(path).read_bytes()


def prepare(smiles: str, seed: int = 42) -> str:
    """A ligand as PDBQT: hydrogens, one conformer by ETKDG and MMFF94, torsions by Meeko.

    Raises DockingError for what cannot be embedded or prepared, ImportError without Meeko.
    """
    try:
        from meeko import MoleculePreparation, PDBQTWriterLegacy
    except ModuleNotFoundError as error:
        raise ImportError("docking needs Meeko: pip install 'chemflow[docking]'") from error
    with BlockLogs():
        mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
        if rdDistGeom.EmbedMolecule(mol, randomSeed=seed) < 0:
            raise DockingError("no conformer was found")
        if rdForceFieldHelpers.MMFFHasAllMoleculeParams(mol):
            rdForceFieldHelpers.MMFFOptimizeMolecule(mol)
    setups: Any = MoleculePreparation().prepare(mol)
    written, good, told = PDBQTWriterLegacy.write_string(setups[0])
    if not good:
        raise DockingError(f"Meeko: {told.strip()}")
    return written


@cache
def _engine(receptor: str, box: Box, seed: int, cpu: int) -> Any:
    """Vina with the maps of a receptor, made once in a process."""
    try:
        from vina import Vina
    except ModuleNotFoundError as error:
        raise ImportError(
            "docking needs AutoDock Vina: pip install 'chemflow[docking]', which has it for "
            "Linux and CPython up to 3.12"
        ) from error
    engine = Vina(sf_name="vina", cpu=cpu, seed=seed, verbosity=0)
    engine.set_receptor(receptor)
    engine.compute_vina_maps(center=list(box.centre), box_size=list(box.size))
    return engine


def vina(ligand: str, docking: Docking) -> float:
    """The best pose's affinity by AutoDock Vina 1.2 (Eberhardt et al. 2021)."""
    engine = _engine(docking.receptor, docking.box, docking.seed, docking.cpu)
    engine.set_ligand_from_string(ligand)
    engine.dock(exhaustiveness=docking.exhaustiveness, n_poses=1)
    return float(engine.energies(n_poses=1)[0][0])


def dissociation_constant(score: float, temperature: float = 298.15) -> float:
    """K_d = exp(ΔG/RT) in mol/l, of a score in kcal/mol."""
    return math.exp(score / (GAS * temperature))
