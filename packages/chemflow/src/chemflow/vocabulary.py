"""SELFIES tokens and their numbers."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import selfies
from jaxtyping import Integer
from torch import Tensor

from chemflow.files import WRONG, reason, write_text
from chemflow.standardise import MoleculeError

NOP = "[nop]"
"""SELFIES' token for nothing: the padding, number 0."""

Ids = Integer[Tensor, "b length"] | Integer[np.ndarray, "b length"]

_FORMAT = "chemflow vocabulary 1"


def from_selfies(text: str) -> str:
    """The SMILES of a SELFIES, "" for one of which no atom comes out."""
    try:
        return str(selfies.decoder(text))
    except selfies.DecoderError:
        return ""


@dataclass(frozen=True)
class Vocabulary:
    """Tokens by number; number 0 is `[nop]`, the rest in the order of Python's strings.

    Attributes:
        tokens: All of them, `[nop]` first.
    """

    tokens: tuple[str, ...]
    _numbers: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.tokens or self.tokens[0] != NOP:
            raise ValueError(f"tokens must start with {NOP}, got {list(self.tokens[:3])}")
        numbers = {token: number for number, token in enumerate(self.tokens)}
        if len(numbers) != len(self.tokens):
            raise ValueError("tokens must differ from one another")
        object.__setattr__(self, "_numbers", numbers)

    @classmethod
    def of(cls, tokens: Iterable[str]) -> "Vocabulary":
        """Of these tokens, in any order and any number of times."""
        return cls((NOP, *sorted(set(tokens) - {NOP})))

    def __len__(self) -> int:
        return len(self.tokens)

    def encode(self, text: str, length: int | None = None) -> list[int]:
        """Numbers of the tokens of a SELFIES, padded with 0 to `length`.

        Raises MoleculeError "unknown token" or "too long": nothing is left out or cut.
        """
        try:
            numbers = [self._numbers[token] for token in selfies.split_selfies(text)]
        except KeyError as error:
            raise MoleculeError(f"unknown token {error.args[0]}", text) from None
        if length is None:
            return numbers
        if len(numbers) > length:
            raise MoleculeError("too long", text)
        return numbers + [0] * (length - len(numbers))

    def selfies(self, ids: Ids) -> list[str]:
        """The SELFIES of each row; `[nop]` is left out wherever it stands.

        Raises ValueError for a number that is no token.
        """
        array = ids.cpu().numpy() if isinstance(ids, Tensor) else np.asarray(ids)
        if array.size and not 0 <= int(array.min()) <= int(array.max()) < len(self.tokens):
            raise ValueError(
                f"ids must be in 0 … {len(self.tokens) - 1}, got {array.min()} … {array.max()}"
            )
        # An object array of strings, with nothing for [nop]: one indexing for all rows.
        words = np.array(("", *self.tokens[1:]), dtype=object)[array]
        return ["".join(row) for row in words]

    def decode(self, ids: Ids) -> list[str]:
        """The SMILES of each row, "" where no atom comes out. Equal rows are decoded once."""
        known: dict[str, str] = {}
        out = []
        for text in self.selfies(ids):
            smiles = known.get(text)
            if smiles is None:
                smiles = known[text] = from_selfies(text)
            out.append(smiles)
        return out

    def save(self, path: str | Path) -> None:
        """As JSON."""
        write_text(Path(path), json.dumps({"format": _FORMAT, "tokens": self.tokens}, indent=1))

    @classmethod
    def load(cls, path: str | Path) -> "Vocabulary":
        """Raises ValueError for a file that is not such a vocabulary."""
        try:
            told = json.loads(Path(path).read_text("utf-8"))
            form, tokens = told["format"], told["tokens"]
            if form != _FORMAT or not all(isinstance(token, str) for token in tokens):
                raise ValueError(f"expected the format {_FORMAT!r}, got {form!r}")
            return cls(tuple(tokens))
        except WRONG as error:
            raise ValueError(f"{path}: not a vocabulary of chemflow: {reason(error)}") from error
