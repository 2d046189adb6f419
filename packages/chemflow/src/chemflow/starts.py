"""Where walks start: codes of the prior, molecules, or codes as given."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from chemflow.draws import normal_rows
from chemflow.protocol import LatentModel
from chemflow.standardise import canonical


def digest(start: int | Sequence[str] | Float[Tensor, "n d"]) -> str:
    """Of what was given as the start."""
    if isinstance(start, int):
        return str(start)
    if isinstance(start, Tensor):
        data = start.detach().cpu().contiguous().numpy().tobytes()
    else:
        data = "\n".join(start).encode()
    return hashlib.blake2b(data, digest_size=16).hexdigest()


Prior = Literal["model", "normal"]
_PURPOSE = 1


@dataclass(frozen=True)
class Start:
    """The rows of one batch.

    Attributes:
        rows: Their numbers in the run.
        z: Codes (b, D) of those that have one.
        inputs: Canonical SMILES of each, "" for codes of the prior.
        lost: (row, SMILES, reason) of molecules that the model has no code for.
    """

    rows: tuple[int, ...]
    z: Float[Tensor, "b d"]
    inputs: tuple[str, ...]
    lost: tuple[tuple[int, str, str], ...] = ()


class Starts:
    """All rows of a run, made batch by batch.

    Args:
        model: What encodes molecules and, for the prior "model", draws codes.
        start: How many codes of the prior, or SMILES, or codes (n, D).
        prior: "model" draws from the model's own prior by `model.sample_codes(rows, seed)` where
            it has one; "normal", or a model without, from N(0, I).
        device: Where the codes lie.
    """

    def __init__(
        self,
        model: LatentModel,
        start: int | Sequence[str] | Float[Tensor, "n d"],
        seed: int = 0,
        prior: Prior = "model",
        device: str | torch.device = "cpu",
    ) -> None:
        self.model = model
        self.seed = seed
        self.device = torch.device(device)
        self.smiles: tuple[str, ...] = ()
        self.codes: Tensor | None = None
        if isinstance(start, int):
            if start < 0:
                raise ValueError(f"start must not be negative, got {start}")
            self.size = start
            own = prior == "model" and hasattr(model, "sample_codes")
            self.kind = "model prior" if own else "N(0, I)"
        elif isinstance(start, Tensor):
            if start.ndim != 2 or start.shape[1] != model.latent_size:
                raise ValueError(
                    f"start must be codes (n, {model.latent_size}), got {tuple(start.shape)}"
                )
            if not bool(start.isfinite().all()):
                raise ValueError("start must be finite codes, got NaN or infinity")
            self.codes, self.size, self.kind = start, len(start), "codes"
        else:
            self.smiles = tuple(start)
            self.size, self.kind = len(self.smiles), "molecules"

    def batch(self, first: int, stop: int) -> Start:
        """The rows from first to stop. Molecules without a code are lost, with the reason."""
        numbers = torch.arange(first, stop, device=self.device)
        empty = ("",) * (stop - first)
        rows = tuple(range(first, stop))
        if self.codes is not None:
            return Start(rows, self.codes[first:stop].to(self.device), empty)
        if not self.smiles:
            if self.kind == "model prior":
                model: Any = self.model
                z = model.sample_codes(numbers, self.seed)
            else:
                size = self.model.latent_size
                z = normal_rows(self.seed, numbers, size, purpose=_PURPOSE)
            return Start(rows, z.detach().to(self.device), empty)
        kept, texts, codes, lost = [], [], [], []
        for row, smiles in zip(rows, self.smiles[first:stop], strict=True):
            text = canonical(smiles)
            if not text:
                lost.append((row, smiles, "no molecule"))
                continue
            try:
                codes.append(self._encode([text]))
            except ValueError as error:
                lost.append((row, smiles, str(error)))
                continue
            kept.append(row)
            texts.append(text)
        z = torch.cat(codes) if codes else torch.zeros(0, self.model.latent_size)
        return Start(tuple(kept), z.to(self.device), tuple(texts), tuple(lost))

    def _encode(self, smiles: list[str]) -> Tensor:
        with torch.no_grad():
            return self.model.encode_smiles(smiles).detach()
