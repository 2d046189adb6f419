"""SMILES -> SELFIES -> numbers of tokens, with an account of every molecule that fell away."""

import hashlib
import io
import json
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import selfies
from jaxtyping import Int64, UInt8, UInt16
from rdkit import Chem

from chemflow.files import WRONG, read_json, reason, write_bytes, write_text
from chemflow.pool import Pool
from chemflow.standardise import MoleculeError, Standardiser, canonical, parse
from chemflow.vocabulary import NOP, Vocabulary, from_selfies

Ids = UInt8[np.ndarray, "n length"] | UInt16[np.ndarray, "n length"]
Progress = Callable[[int], None]
"""Called with the number of molecules read so far."""

_PIECE = 2000
_EXAMPLES = 5


def to_selfies(smiles: str) -> str:
    """The SELFIES of a canonical SMILES.

    What the encoder cannot kekulise itself is given to it as RDKit kekulises it.

    Raises MoleculeError "selfies" for what it refuses, as valences beyond its constraints.
    """
    try:
        return selfies.encoder(smiles)
    except selfies.EncoderError:
        try:
            mol = parse(smiles)
            Chem.Kekulize(mol, clearAromaticFlags=True)
            return selfies.encoder(Chem.MolToSmiles(mol))
        except (selfies.EncoderError, ValueError):
            raise MoleculeError("selfies", smiles) from None


@dataclass(frozen=True)
class Report:
    """What became of the molecules that were read: `read == kept + sum(rejected.values())`.

    Attributes:
        rejected: Number by reason: unparsable, empty, fragments, selfies, changed, too short,
            too long, unknown token, duplicate.
        examples: The first few of each reason, as they stood in the source.
    """

    read: int
    kept: int
    rejected: dict[str, int]
    examples: dict[str, list[str]]

    def __str__(self) -> str:
        lines = [f"{self.read:,} molecules read, {self.kept:,} kept"]
        for why, number in self.rejected.items():
            lines.append(f"  {number:,} {why}, as {', '.join(self.examples[why][:2])}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Molecules:
    """Encoded molecules.

    Attributes:
        ids: Numbers of tokens (n, L), padded with 0 at the end; uint8 up to 256 tokens.
        vocabulary: What the numbers mean.
        rows: Where each molecule stood in the source, from 0 (n,).
        report: The account.
        rejected: Where those stood that fell away, and the reasons in the same order.
    """

    ids: Ids
    vocabulary: Vocabulary
    rows: Int64[np.ndarray, " n"]
    report: Report
    rejected: tuple[Int64[np.ndarray, " m"], tuple[str, ...]]

    def __len__(self) -> int:
        return len(self.ids)

    def smiles(self, start: int = 0, stop: int | None = None) -> list[str]:
        """Canonical SMILES of the rows from start to stop."""
        return [canonical(one) for one in self.vocabulary.decode(self.ids[start:stop])]

    def save(self, folder: str | Path) -> None:
        """`vocabulary.json`, `report.json` and, last, `molecules.npz` into a folder."""
        folder = Path(folder)
        self.vocabulary.save(folder / "vocabulary.json")
        write_text(folder / "report.json", json.dumps(vars(self.report), indent=1))
        rows, reasons = self.rejected
        names = sorted(set(reasons))
        file = io.BytesIO()
        np.savez_compressed(
            file,
            ids=self.ids,
            rows=self.rows,
            rejected_rows=rows,
            rejected_reasons=np.array([names.index(one) for one in reasons], np.uint8),
            reasons=np.array(names, dtype=np.str_),
        )
        write_bytes(folder / "molecules.npz", file.getvalue())

    @classmethod
    def load(cls, folder: str | Path) -> "Molecules":
        """Raises ValueError for files that do not belong together, OSError for absent ones."""
        folder = Path(folder)
        vocabulary = Vocabulary.load(folder / "vocabulary.json")
        try:
            report = Report(**json.loads((folder / "report.json").read_text("utf-8")))
        except WRONG as error:
            told = f"{folder / 'report.json'}: not the account of molecules: {reason(error)}"
            raise ValueError(told) from None
        path = folder / "molecules.npz"
        # numpy leaves a file that it cannot read open, where it opened it.
        with path.open("rb") as stream:
            try:
                with np.load(stream, allow_pickle=False) as file:
                    names = file["reasons"].tolist()
                    reasons = tuple(names[one] for one in file["rejected_reasons"])
                    rejected = file["rejected_rows"], reasons
                    found = cls(file["ids"], vocabulary, file["rows"], report, rejected)
                if found.ids.dtype.kind not in "iu" or found.ids.ndim != 2:
                    raise ValueError(f"ids must be whole numbers (n, L), got {found.ids.dtype}")
                if found.rows.dtype.kind not in "iu" or found.rows.ndim != 1:
                    raise ValueError(f"rows must be whole numbers (n,), got {found.rows.dtype}")
            # A changed file makes numpy fail in any way, even as a program with a wrong syntax.
            except Exception as error:
                raise ValueError(f"{path}: not encoded molecules: {reason(error)}") from None
        sound = len(found) == report.kept and len(found.rows) == len(found)
        if not sound or (found.ids.size and not 0 <= found.ids.max() < len(vocabulary)):
            raise ValueError(f"{folder}: molecules.npz does not belong to the files beside it")
        return found


@dataclass(frozen=True)
class _Encode:
    """One piece of a source, in a process of its own: SELFIES, or the reason for none."""

    standardiser: Standardiser
    verify: bool

    def __call__(self, piece: list[str]) -> list[tuple[str, str]]:
        return [self._one(smiles) for smiles in piece]

    def _one(self, smiles: str) -> tuple[str, str]:
        try:
            standard = self.standardiser(smiles)
            text = to_selfies(standard)
            if self.verify and canonical(from_selfies(text)) != standard:
                raise MoleculeError("changed", smiles)
        except MoleculeError as error:
            return "", error.reason
        return text, ""


def _pieces(smiles: Iterable[str]) -> Iterator[list[str]]:
    source = iter(smiles)
    while piece := list(islice(source, _PIECE)):
        yield piece


def _kept_or(
    work: _Encode, folder: Path | None, numbered: tuple[int, list[str]]
) -> list[tuple[str, str]]:
    """The piece as an earlier run left it in the folder, or done now and left there."""
    number, piece = numbered
    if folder is None:
        return work(piece)
    path = folder / f"piece-{number:06d}.json"
    digest = hashlib.sha256("\n".join((repr(work), *piece)).encode()).hexdigest()
    if path.is_file():
        told = read_json(path, "of", "encoded")
        if told["of"] == digest:
            return [(text, reason) for text, reason in told["encoded"]]
    encoded = work(piece)
    write_text(path, json.dumps({"of": digest, "encoded": encoded}))
    return encoded


def encode(
    smiles: Iterable[str],
    vocabulary: Vocabulary | None = None,
    *,
    min_tokens: int = 1,
    max_tokens: int | None = 72,
    standardiser: Standardiser | None = None,
    verify: bool = False,
    unknown: Literal["reject", "raise"] = "reject",
    workers: int = 1,
    folder: str | Path | None = None,
    progress: Progress | None = None,
) -> Molecules:
    """Encodes molecules, and gives an account of those that fell away.

    Duplicates are found by the SELFIES of the canonical SMILES; the first stays. The paper keeps
    13 to 72 tokens (App. D.2).

    Args:
        smiles: Any spelling; read once, piece by piece.
        vocabulary: The one of a trained model. If None, all tokens that occur.
        min_tokens, max_tokens: Molecules with fewer or more are rejected. The length L of the rows
            is `max_tokens` with a given vocabulary, else that of the longest molecule.
        verify: Decode every SELFIES and reject what does not come back as the same molecule.
        unknown: What to do with a token that the vocabulary lacks. It is never left out, which
            would be another molecule.
        workers: Processes.
        folder: Keeps finished pieces there, so that the same call goes on after an interruption.

    Raises MoleculeError for an unknown token with `unknown="raise"`.
    """
    work = _Encode(standardiser or Standardiser(), verify)
    numbers: dict[str, int] = {NOP: 0}
    if vocabulary is not None:
        numbers = {token: number for number, token in enumerate(vocabulary.tokens)}
    flat, ends, rows = array("H"), array("q", [0]), array("q")
    lost_rows, lost_reasons = array("q"), []
    examples: dict[str, list[str]] = {}
    seen: set[bytes] = set()

    def lose(row: int, one: str, reason: str) -> None:
        lost_rows.append(row)
        lost_reasons.append(reason)
        shown = examples.setdefault(reason, [])
        if len(shown) < _EXAMPLES:
            shown.append(one)

    row = 0
    with Pool(workers) as pool:
        # The pieces are kept beside, to quote molecules as they stood in the source.
        kept: list[list[str]] = []

        def numbered() -> Iterator[tuple[int, list[str]]]:
            for number, piece in enumerate(_pieces(smiles)):
                kept.append(piece)
                yield number, piece

        keep = None if folder is None else Path(folder)
        for encoded in pool.map(partial(_kept_or, work, keep), numbered()):
            for one, (text, reason) in zip(kept.pop(0), encoded, strict=True):
                if not reason:
                    tokens = list(selfies.split_selfies(text))
                    reason = _reason(tokens, numbers, vocabulary, min_tokens, max_tokens)
                if reason == "unknown token" and unknown == "raise":
                    absent = next(token for token in tokens if token not in numbers)
                    raise MoleculeError(f"unknown token {absent}", one)
                digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
                if not reason and digest in seen:
                    reason = "duplicate"
                if reason:
                    lose(row, one, reason)
                else:
                    seen.add(digest)
                    flat.extend([numbers.setdefault(token, len(numbers)) for token in tokens])
                    ends.append(len(flat))
                    rows.append(row)
                row += 1
            if progress is not None:
                progress(row)
    order = vocabulary or Vocabulary.of(numbers)
    report = Report(row, len(rows), dict(Counter(lost_reasons).most_common()), examples)
    length = max_tokens if vocabulary is not None else None
    return Molecules(
        _padded(flat, ends, numbers, order, length),
        order,
        np.array(rows, np.int64),
        report,
        (np.array(lost_rows, np.int64), tuple(lost_reasons)),
    )


def _reason(
    tokens: list[str],
    numbers: dict[str, int],
    vocabulary: Vocabulary | None,
    low: int,
    high: int | None,
) -> str:
    if len(tokens) < low:
        return "too short"
    if high is not None and len(tokens) > high:
        return "too long"
    if vocabulary is not None and any(token not in numbers for token in tokens):
        return "unknown token"
    return ""


def _padded(
    flat: "array[int]", ends: "array[int]", numbers: dict[str, int], order: Vocabulary,
    length: int | None,
) -> Ids:  # fmt: skip
    """Rows of the final numbers from the running text of provisional ones."""
    place = {token: number for number, token in enumerate(order.tokens)}
    final = np.array([place[token] for token in numbers])
    kind = np.uint8 if len(order) <= 256 else np.uint16
    stops = np.array(ends, np.int64)
    lengths = np.diff(stops)
    wide = length if length is not None else int(lengths.max(initial=0))
    ids = np.zeros((len(lengths), wide), kind)
    # The positions of each row that hold tokens, row after row, as in the running text.
    ids[np.arange(wide) < lengths[:, None]] = final[np.array(flat, np.int64)].astype(kind)
    return ids
