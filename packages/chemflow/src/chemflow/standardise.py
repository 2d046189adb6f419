"""One spelling for each molecule: RDKit reads, repairs and writes it first."""

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from rdkit import Chem
from rdkit.rdBase import BlockLogs

Mol = Chem.Mol


class MoleculeError(ValueError):
    """A molecule that cannot be used. `reason` is one of a few words, for counting."""

    def __init__(self, reason: str, smiles: str) -> None:
        super().__init__(f"{reason}: {smiles!r}")
        self.reason = reason
        self.smiles = smiles


def parse(smiles: str) -> Mol:
    """The molecule. Raises MoleculeError "unparsable", or "empty" for one without atoms.

    RDKit itself reads "" as a molecule of no atoms, which then has a QED of 0.34.
    """
    with BlockLogs():
        mol = Chem.MolFromSmiles(smiles)
    if mol is None:
        raise MoleculeError("unparsable", smiles)
    if mol.GetNumAtoms() == 0:
        raise MoleculeError("empty", smiles)
    return mol


def canonical(smiles: str) -> str:
    """RDKit's canonical SMILES, or "" for what is no molecule."""
    try:
        return Chem.MolToSmiles(parse(smiles))
    except MoleculeError:
        return ""


@cache
def _tool(name: str) -> Any:
    # Slow to import and to make, and not to be sent to other processes.
    from rdkit.Chem.MolStandardize import rdMolStandardize

    return getattr(rdMolStandardize, name)()


@dataclass(frozen=True)
class Standardiser:
    """What is made of a molecule before it is encoded: canonical SMILES.

    Attributes:
        normalise: Apply RDKit's normalisation, which among others writes sulfoxides with charges.
            Reading alone repairs N(=O)=O and the like, which SELFIES refuses.
        fragments: What to do with several molecules in one string: "reject" them, as the paper
            does, or keep the "largest".
        neutralise: Add and remove protons until charges are gone, where that is possible.
        stereo: Keep stereochemistry. MOSES has none, ZINC has.
        isotopes: Keep isotopes.
    """

    normalise: bool = False
    fragments: Literal["reject", "largest"] = "reject"
    neutralise: bool = False
    stereo: bool = True
    isotopes: bool = True

    def __call__(self, smiles: str) -> str:
        """The standard SMILES. Raises MoleculeError: unparsable, empty, fragments."""
        mol = parse(smiles)
        with BlockLogs():
            if self.fragments == "largest" and "." in smiles:
                mol = _tool("LargestFragmentChooser").choose(mol)
            if self.normalise:
                mol = _tool("Normalizer").normalize(mol)
            if self.neutralise:
                mol = _tool("Uncharger").uncharge(mol)
            if not self.stereo:
                Chem.RemoveStereochemistry(mol)
            if not self.isotopes:
                for atom in mol.GetAtoms():
                    atom.SetIsotope(0)
                # Read again: deuterium was an atom of its own, hydrogen is none.
                mol = parse(Chem.MolToSmiles(mol))
            written = Chem.MolToSmiles(mol)
        if "." in written:
            raise MoleculeError("fragments", smiles)
        return written
