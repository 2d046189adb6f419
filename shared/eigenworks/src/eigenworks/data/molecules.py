"""Molecules as SMILES: MOSES from its wheel, ZINC250k from a file.

train = MOSES.load("train")              # 1,584,663 SMILES
low = ZINC_LOW_PLOGP.load()              # the 800 start molecules of constrained optimisation
"""

import gzip
import lzma
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from eigenworks.dataset import (
    DataError,
    development_file,
    has_development_files,
    packaged_file,
    require,
)

Split = Literal["train", "test", "test_scaffolds"]

SIZES: dict[Split, int] = {"train": 1_584_663, "test": 176_074, "test_scaffolds": 176_225}
"""Molecules of each split."""

_SMILES = re.compile(r"[A-Za-z0-9@+\-\[\]()=#$:/\\.%*]+\Z")


@dataclass(frozen=True)
class Moses:
    """Drug-like molecules of ZINC Clean Leads without charges and stereochemistry."""

    name: str = "MOSES (molsets wheel)"
    how: str = "pip install --no-deps molsets"
    licence: str = "MIT"
    citation: str = "Polykovskiy et al., Frontiers in Pharmacology 2020, arXiv:1811.12823"

    def path(self, split: Split = "train") -> Path | None:
        """Where the file of the split lies, or None."""
        return packaged_file("moses", f"dataset/data/{split}.csv.gz")

    def available(self) -> bool:
        """Whether all splits are installed."""
        return all(self.path(split) is not None for split in get_args(Split))

    def load(self, split: Split = "train") -> list[str]:
        """The SMILES of a split, in the order of the file. Raises DataError."""
        if split not in SIZES:
            raise DataError(f"split must be one of {', '.join(SIZES)}, got {split!r}")
        path = require(self, self.path(split))
        smiles = read_molecules(path, header="SMILES")
        if len(smiles) != SIZES[split]:
            raise DataError(f"{path}: expected {SIZES[split]:,} molecules, got {len(smiles):,}")
        return smiles


@dataclass(frozen=True)
class MoleculeFile:
    """A file of SMILES in the folder that EIGENWORKS_DATA names, first word of each line."""

    name: str
    file: str
    size: int
    licence: str
    citation: str

    @property
    def how(self) -> str:
        """The file is the user's to get: ZINC asks not to hand on large parts of it."""
        return f"{self.file}, a SMILES first in each line, in the folder that EIGENWORKS_DATA names"

    def available(self) -> bool:
        """Whether the file is there."""
        return has_development_files(self.file)

    def load(self) -> list[str]:
        """The SMILES in the order of the file. Raises DataError."""
        path = development_file(self.file)
        smiles = read_molecules(path)
        if len(smiles) != self.size:
            raise DataError(f"{path}: expected {self.size:,} molecules, got {len(smiles):,}")
        return smiles


MOSES = Moses()
ZINC250K = MoleculeFile(
    "ZINC250k",
    "chem/zinc250k.smi.xz",
    249_455,
    "free to use; large parts may not be handed on",
    "Irwin and Shoichet, ZINC, JCIM 2005; the selection of Gómez-Bombarelli et al. 2018",
)
ZINC_LOW_PLOGP = MoleculeFile(
    "800 molecules of ZINC250k with low penalised logP",
    "chem/hgraph_logp_test800.txt",
    800,
    "MIT",
    "Jin, Barzilay and Jaakkola, ICML 2018 and 2020",
)


def read_molecules(path: Path, header: str | None = None) -> list[str]:
    """The first word or column of each line; plain, .gz or .xz. Raises DataError."""
    opened = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix, open)
    try:
        with opened(path, "rt", encoding="utf-8") as file:
            lines = file.read().split("\n")
    except (OSError, EOFError, lzma.LZMAError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a whole file of SMILES: {error}") from error
    if header is not None and lines.pop(0).partition(",")[0].strip() != header:
        raise DataError(f"{path}: expected a first column {header!r}")
    smiles = [re.split(r"[,\s]", line, maxsplit=1)[0] for line in lines if line.strip()]
    for number, one in enumerate(smiles):
        if not _SMILES.match(one):
            raise DataError(f"{path}: molecule {number} is no SMILES: {one!r}")
    return smiles
