"""Scores what was decoded: in parallel, each molecule once, and with an account.

A molecule is parsed once for all its properties. What was scored is remembered by its spelling,
since neighbouring codes decode to the same string.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType

import numpy as np
from jaxtyping import Bool, Float64, UInt8
from rdkit import Chem
from rdkit.DataStructs import BitVectToBinaryText, ExplicitBitVect

from chemflow.oracles import Oracle, fingerprint
from chemflow.pool import Pool
from chemflow.standardise import MoleculeError, parse

BITS = 2048
_BYTES = BITS // 8

_Entry = tuple[str, tuple[float, ...], bytes]
"""Canonical SMILES, the oracles' values, the packed fingerprint. Empty for no molecule."""


@dataclass(frozen=True)
class Scored:
    """Molecules as scored.

    Attributes:
        canonical: Canonical SMILES, "" for what is no molecule.
        values: One column for each oracle (n, k); NaN for what is no molecule.
        fingerprints: Morgan fingerprints, radius 2, 2048 bits, packed (n, 256).
    """

    canonical: list[str]
    values: Float64[np.ndarray, "n k"]
    fingerprints: UInt8[np.ndarray, "n 256"]

    @property
    def valid(self) -> Bool[np.ndarray, " n"]:
        """Which are molecules."""
        return np.array([bool(one) for one in self.canonical], bool)


def tanimoto(
    a: UInt8[np.ndarray, "*#batch bytes"], b: UInt8[np.ndarray, "*#batch bytes"]
) -> Float64[np.ndarray, "*batch"]:
    """Similarity of packed fingerprints, pair by pair; 1 for two that are empty.

    Equivalent to `rdkit.DataStructs.TanimotoSimilarity`, but for empty ones.
    """
    both = np.bitwise_count(a & b).sum(-1, dtype=np.int64)
    either = np.bitwise_count(a | b).sum(-1, dtype=np.int64)
    return np.where(either == 0, 1.0, both / np.maximum(either, 1))


def _pack(bits: ExplicitBitVect) -> bytes:
    return BitVectToBinaryText(bits)


def _score(smiles: Sequence[str], oracles: tuple[Oracle, ...]) -> list[_Entry]:
    """Entries of a piece; each oracle sees all its molecules at once."""
    written, places, mols, standard = [], [], [], []
    by_spelling = any(oracle.spelling for oracle in oracles)
    for place, one in enumerate(smiles):
        try:
            mol = parse(one)
        except MoleculeError:
            written.append("")
            continue
        written.append(Chem.MolToSmiles(mol))
        places.append(place)
        mols.append(mol)
        standard.append(parse(written[-1]) if by_spelling and written[-1] != one else mol)
    values = np.full((len(smiles), len(oracles)), np.nan)
    for column, oracle in enumerate(oracles):
        if not mols:
            break
        found = oracle.values(standard if oracle.spelling else mols)
        if len(found) != len(mols):
            raise ValueError(f"{oracle.name} gave {len(found)} values for {len(mols)} molecules")
        values[places, column] = found
    packed = [bytes(_BYTES)] * len(smiles)
    for place, mol in zip(places, mols, strict=True):
        packed[place] = _pack(fingerprint(mol, 2, BITS))
    return [
        (name, tuple(row), bits)
        for name, row, bits in zip(written, values.tolist(), packed, strict=True)
    ]


_ORACLES: tuple[Oracle, ...] = ()
"""Those of a worker process, sent to it once."""


def _start(oracles: tuple[Oracle, ...]) -> None:
    global _ORACLES
    _ORACLES = oracles


def _score_piece(piece: list[str]) -> list[_Entry]:
    return _score(piece, _ORACLES)


class Scorer:
    """Oracles at work.

    Attributes:
        asked: SMILES that were given.
        invalid: How many of them were no molecules.
        evaluated: Molecules that the oracles really saw: each spelling once, while remembered.
    """

    def __init__(
        self, oracles: Sequence[Oracle], workers: int = 1, remember: int = 100_000
    ) -> None:
        names = [oracle.name for oracle in oracles]
        if len(set(names)) != len(names):
            raise ValueError(f"oracles must have different names, got {names}")
        self.oracles = tuple(oracles)
        self.asked = self.invalid = self.evaluated = 0
        self._remember = remember
        self._known: OrderedDict[str, _Entry] = OrderedDict()
        self._pool = Pool(workers, _start, (self.oracles,)) if workers > 1 else None
        self._workers = workers

    @property
    def names(self) -> tuple[str, ...]:
        """Of the oracles, in the order of the columns."""
        return tuple(oracle.name for oracle in self.oracles)

    def __call__(self, smiles: Sequence[str]) -> Scored:
        """Scores a batch."""
        new = list(dict.fromkeys(one for one in smiles if one not in self._known))
        fresh = dict(zip(new, self._entries(new), strict=True))
        entries = []
        for one in smiles:
            entry = fresh.get(one)
            if entry is None:
                entry = self._known[one]
                self._known.move_to_end(one)
            entries.append(entry)
        self._known.update(fresh)
        while len(self._known) > self._remember:
            self._known.popitem(last=False)
        self.asked += len(smiles)
        self.invalid += sum(not entry[0] for entry in entries)
        self.evaluated += sum(bool(entry[0]) for entry in fresh.values())
        values = np.array([entry[1] for entry in entries], np.float64)
        packed = np.frombuffer(b"".join(entry[2] for entry in entries), np.uint8)
        return Scored(
            [entry[0] for entry in entries],
            values.reshape(len(smiles), len(self.oracles)),
            packed.reshape(len(smiles), _BYTES),
        )

    def _entries(self, smiles: list[str]) -> Iterator[_Entry]:
        if self._pool is None:
            yield from _score(smiles, self.oracles)
            return
        # Small enough that the processes end together, large enough to be worth the sending.
        size = max(8, -(-len(smiles) // (4 * self._workers)))
        pieces = (smiles[start : start + size] for start in range(0, len(smiles), size))
        for piece in self._pool.map(_score_piece, pieces):
            yield from piece

    def close(self) -> None:
        """Ends the processes."""
        if self._pool is not None:
            self._pool.close()

    def __enter__(self) -> "Scorer":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
